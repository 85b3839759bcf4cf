"""Acting on a model: interventions through features and directions, with proof; named variants, vector files, a demonstration."""

from mohole.act.check import Check, check
from mohole.act.choose import Choice, most_active, most_effective
from mohole.act.demonstrate import DEFAULT_TIMES_MAX, Comparison, Demonstration, demonstrate, read_steering
from mohole.act.direction import Direction, difference_of_means
from mohole.act.effect import AblationEffect, LogitChange, ablation_effect
from mohole.act.interventions import (
    Ablate,
    Add,
    Cap,
    Clamp,
    Intervention,
    Latent,
    Named,
    Orthogonalise,
    Scale,
    Swap,
    Vector,
    When,
    as_json,
    parse_interventions,
)
from mohole.act.sources import Sources
from mohole.act.steering import Continuation, Stamp, Steered, steer, steer_rows
from mohole.act.terms import NOTHING, Plan, make_plan
from mohole.act.variants import Variant, open_variant, plan_variant, remove_variant, save_variant, variant_names
from mohole.act.vector_files import read_directions, write_directions
from mohole.act.where import Where

__all__ = [
    "DEFAULT_TIMES_MAX",
    "NOTHING",
    "Ablate",
    "AblationEffect",
    "Add",
    "Cap",
    "Check",
    "Choice",
    "Clamp",
    "Comparison",
    "Continuation",
    "Demonstration",
    "Direction",
    "Intervention",
    "Latent",
    "LogitChange",
    "Named",
    "Orthogonalise",
    "Plan",
    "Scale",
    "Sources",
    "Stamp",
    "Steered",
    "Swap",
    "Variant",
    "Vector",
    "When",
    "Where",
    "ablation_effect",
    "as_json",
    "check",
    "demonstrate",
    "difference_of_means",
    "make_plan",
    "most_active",
    "most_effective",
    "open_variant",
    "parse_interventions",
    "plan_variant",
    "read_directions",
    "read_steering",
    "remove_variant",
    "save_variant",
    "steer",
    "steer_rows",
    "variant_names",
    "write_directions",
]
