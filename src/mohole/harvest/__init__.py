"""Run the model over the corpus and keep its activations."""

from mohole.harvest.harvest import harvest
from mohole.harvest.live import LiveStream

__all__ = ["LiveStream", "harvest"]
