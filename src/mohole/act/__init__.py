"""Acting on a model through its features: exact clamps, and the demonstration of one."""

from mohole.act.choose import Choice, most_effective
from mohole.act.clamp import Clamp
from mohole.act.demonstrate import Comparison, Demonstration, demonstrate, read_steering
from mohole.act.steering import Check, Continuation, Steered, steer

__all__ = [
    "Check",
    "Choice",
    "Clamp",
    "Comparison",
    "Continuation",
    "Demonstration",
    "Steered",
    "demonstrate",
    "most_effective",
    "read_steering",
    "steer",
]
