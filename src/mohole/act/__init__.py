"""Acting on a model through its features: exact clamps, the demonstration of one, and what a latent's removal changes."""

from mohole.act.choose import Choice, most_active, most_effective
from mohole.act.clamp import Clamp
from mohole.act.demonstrate import DEFAULT_TIMES_MAX, Comparison, Demonstration, demonstrate, read_steering
from mohole.act.effect import AblationEffect, LogitChange, ablation_effect
from mohole.act.steering import Check, Continuation, Steered, steer

__all__ = [
    "DEFAULT_TIMES_MAX",
    "AblationEffect",
    "Check",
    "Choice",
    "Clamp",
    "Comparison",
    "Continuation",
    "Demonstration",
    "LogitChange",
    "Steered",
    "ablation_effect",
    "demonstrate",
    "most_active",
    "most_effective",
    "read_steering",
    "steer",
]
