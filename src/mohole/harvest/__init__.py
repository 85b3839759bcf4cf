"""Run the model over the corpus and keep its activations."""

from mohole.harvest.harvest import harvest

__all__ = ["harvest"]
