"""Acting on a model through its features: exact clamps, and the demonstration of one."""

from mohole.act.choose import Choice, most_active, most_effective
from mohole.act.clamp import Clamp
from mohole.act.demonstrate import DEFAULT_TIMES_MAX, Comparison, Demonstration, demonstrate, read_steering
from mohole.act.steering import Check, Continuation, Steered, steer

__all__ = [
    "DEFAULT_TIMES_MAX",
    "Check",
    "Choice",
    "Clamp",
    "Comparison",
    "Continuation",
    "Demonstration",
    "Steered",
    "demonstrate",
    "most_active",
    "most_effective",
    "read_steering",
    "steer",
]
