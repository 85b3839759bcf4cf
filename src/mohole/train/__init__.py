"""Training: one sparse autoencoder from the shuffled rows of one hookpoint."""

from mohole.train.loop import train

__all__ = ["train"]
