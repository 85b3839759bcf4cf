"""Rows whose true features are known, at any size, and how well a dictionary has found them. No model, no text."""

from mohole.synthetic.scores import score
from mohole.synthetic.store import HOOKPOINT, write_rows
from mohole.synthetic.world import Firings, SyntheticWorld

__all__ = ["HOOKPOINT", "Firings", "SyntheticWorld", "score", "write_rows"]
