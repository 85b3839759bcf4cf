"""Training: a dictionary of any kind, or many, from the shuffled rows of one hookpoint or several."""

from mohole.train.loop import train

__all__ = ["train"]
