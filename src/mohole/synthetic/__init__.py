"""Rows whose true features are known, at any size, and how well a dictionary has found them. No model, no text."""

from mohole.synthetic.scores import SCORES_FILE, read_scores, score
from mohole.synthetic.store import HOOKPOINT, write_rows
from mohole.synthetic.world import Firings, SyntheticWorld

__all__ = ["HOOKPOINT", "SCORES_FILE", "Firings", "SyntheticWorld", "read_scores", "score", "write_rows"]
