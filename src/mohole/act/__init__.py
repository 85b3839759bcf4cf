"""Acting on a model: interventions through features and directions, with proof; named variants, vector files, a demonstration."""

from mohole.act.check import Check, check
from mohole.act.choose import Choice, most_active, most_effective
from mohole.act.demonstrate import DEFAULT_TIMES_MAX, Comparison, Demonstration, demonstrate, read_steering
from mohole.act.direction import Direction, difference_of_means
from mohole.act.dose import Concept, DoseResponse, Point, TaskRight, Trial
from mohole.act.dose_files import read_dose, write_dose
from mohole.act.dose_sweep import STRENGTHS, latents_of, measure_dose
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
    latents_in,
    sources_in,
)
from mohole.act.ledger import Stamp
from mohole.act.parsing import as_json, parse_interventions
from mohole.act.planning import make_plan, read_latent
from mohole.act.reader import Reader
from mohole.act.sources import Sources
from mohole.act.steering import Continuation, Steered, Stepped, steer, steer_rows
from mohole.act.strength import at_strength
from mohole.act.terms import NOTHING, LatentReading, Plan
from mohole.act.usable import DOSES, Bounds, StrengthWarning, UsableRange, read_swept
from mohole.act.variants import (
    Variant,
    digests_of,
    filled_in,
    keep_range,
    objections,
    open_variant,
    plan_variant,
    remove_variant,
    save_variant,
    variant_names,
)
from mohole.act.vector_files import read_directions, write_directions
from mohole.act.where import Where

__all__ = [
    "DEFAULT_TIMES_MAX",
    "DOSES",
    "NOTHING",
    "STRENGTHS",
    "Ablate",
    "AblationEffect",
    "Add",
    "Bounds",
    "Cap",
    "Check",
    "Choice",
    "Clamp",
    "Comparison",
    "Concept",
    "Continuation",
    "Demonstration",
    "Direction",
    "DoseResponse",
    "Intervention",
    "Latent",
    "LatentReading",
    "LogitChange",
    "Named",
    "Orthogonalise",
    "Plan",
    "Point",
    "Reader",
    "Scale",
    "Sources",
    "Stamp",
    "Steered",
    "Stepped",
    "StrengthWarning",
    "Swap",
    "TaskRight",
    "Trial",
    "UsableRange",
    "Variant",
    "Vector",
    "When",
    "Where",
    "ablation_effect",
    "as_json",
    "at_strength",
    "check",
    "demonstrate",
    "difference_of_means",
    "digests_of",
    "filled_in",
    "keep_range",
    "latents_in",
    "latents_of",
    "make_plan",
    "measure_dose",
    "most_active",
    "most_effective",
    "objections",
    "open_variant",
    "parse_interventions",
    "plan_variant",
    "read_directions",
    "read_dose",
    "read_latent",
    "read_steering",
    "read_swept",
    "remove_variant",
    "save_variant",
    "sources_in",
    "steer",
    "steer_rows",
    "variant_names",
    "write_directions",
    "write_dose",
]
