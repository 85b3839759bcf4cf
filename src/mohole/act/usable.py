"""The strengths at which steering is of use: the rule, the range that follows from a sweep, and what is said outside of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mohole import artifact
from mohole.act.interventions import Clamp, Intervention
from mohole.act.parsing import parse_interventions
from mohole.errors import ArtifactError
from mohole.metrics import Measure
from mohole.metrics.written import NGRAM

DOSES = "doses"
"""Folder of a run in which its sweeps are."""
USABLE_FILE = "usable.json"
_FORMAT = 1
_COSTS = {"perplexity": "perplexity", "repeated": "repetition", "kl": "KL", "tasks": "tasks"}
"""Measures with a bound, and what is said of one that is broken."""


class StrengthWarning(UserWarning):
    """A strength outside of the range that a sweep found usable."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What steering may cost. A number that is not measured, as of tasks where none are known, breaks no bound."""

    perplexity: float = 3.0
    """Of the written text to the model unsteered: so many times that of what it writes unsteered."""
    repeated: float = 0.2
    """Share of phrases that the text has said before: so much more than unsteered."""
    kl: float = 0.5
    """Nats per token that predictions on other text are away from the unsteered model's."""
    tasks: float = 0.25
    """Share of right answers to other tasks: so much less than unsteered."""

    def rule(self, effect: str) -> str:
        """In words."""
        return (
            f"the longest run of tried strengths at which the 95 % interval of the effect ({effect}) lies above that of the "
            f"unsteered text; perplexity under the unsteered model is at most {self.perplexity:g} times the unsteered text's; "
            f"repeated {NGRAM}-grams are at most {self.repeated:g} more of all; KL on other text is at most {self.kl:g} nats per "
            f"token; and right answers to other tasks, where there are any, are at most {self.tasks:g} fewer of all"
        )

    def broken(self, found: Mapping[str, Measure], unsteered: Mapping[str, Measure], effect: str) -> tuple[str, ...]:
        """What of the rule does not hold at a strength, in words; nothing: it is usable.

        Args:
            found, unsteered: measures of a strength and of none, by name, as of a dose's points.
        """
        said = [] if _is_above(found[effect], unsteered[effect]) else ["no clear effect"]
        for name, word in _COSTS.items():
            value = found[name].value if name in found else None
            limit = self.limit(name, unsteered[name].value) if name in unsteered else None
            if value is not None and limit is not None and (value < limit if name == "tasks" else value > limit):
                said.append(word)
        return tuple(said)

    def limit(self, name: str, unsteered: float | None) -> float | None:
        """Beyond which a cost breaks the rule: more, of tasks less. None: of what is no cost, or has nothing to stand against."""
        if name == "kl":
            return self.kl
        if unsteered is None:
            return None
        limits = {
            "perplexity": self.perplexity * unsteered,
            "repeated": unsteered + self.repeated,
            "tasks": unsteered - self.tasks,
        }
        return limits.get(name)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One tried strength, of what the range was found from. None: undefined, or not measured."""

    strength: float | None
    """None: unsteered."""
    effect: float | None
    effect_low: float | None
    effect_high: float | None
    perplexity: float | None
    repeated: float | None
    kl: float | None
    tasks: float | None
    broken: tuple[str, ...]
    """What of the rule does not hold."""


@dataclass(frozen=True, slots=True)
class UsableRange:
    """At which strengths steering is of use, by a stated rule, as a sweep found it."""

    low: float | None
    """In `unit`, as `high`. None: at no strength that was tried."""
    high: float | None
    unit: str
    effect: str
    """Name of the measure that is the effect."""
    rule: str
    n_prompts: int
    n_texts: int
    """Written at each strength."""
    evidence: tuple[Evidence, ...]
    """Unsteered first, then strengths ascending."""

    def objection(self, strength: float) -> str | None:
        """What there is to say against a strength; None: it lies in the range."""
        if self.low is None or self.high is None:
            return f"no strength of the {len(self.evidence) - 1} that were tried is usable"
        if self.low - 1e-9 <= strength <= self.high + 1e-9:
            return None
        which = "below" if strength < self.low else "above"
        span = f"{self.low:g} alone" if self.low == self.high else f"{self.low:g} to {self.high:g}"
        return f"{strength:g} {self.unit} is {which} its usable range, {span}"


def longest_run(strengths: Sequence[float], is_usable: Sequence[bool]) -> tuple[float, float] | None:
    """First and last of the longest run of usable neighbours; of equal ones the first. None: none is usable.

    Args:
        strengths: ascending.
    """
    best: tuple[int, int] | None = None
    first = 0
    for place, holds in enumerate([*is_usable, False]):
        if not holds:
            if place > first and (best is None or place - first > best[1] - best[0]):
                best = first, place
            first = place + 1
    return None if best is None else (strengths[best[0]], strengths[best[1] - 1])


@dataclass(frozen=True)
class Swept:
    """A sweep of a run: what was swept, at 1 times its strength, and what came of it."""

    interventions: tuple[Intervention, ...]
    usable: UsableRange


def write_usable(out: Path, interventions: Sequence[Mapping[str, Any]], usable: UsableRange) -> None:
    """Write a sweep's range into its folder, sealed with its own checksum."""
    facts = {"format": _FORMAT, "interventions": list(interventions), "usable": usable_json(usable)}
    (out / USABLE_FILE).write_bytes(artifact.sealed(facts))


def read_swept(run: Path, digests: Mapping[str, str]) -> tuple[Swept, ...]:
    """The sweeps of a run that are of these dictionaries and catalogues; others are of latents that are gone.

    Args:
        digests: of the artifacts that are there now, by their place, such as `resid_post.1/dictionary`.

    Raises:
        ArtifactError: a sweep is damaged.
    """
    found = []
    for manifest in sorted((run / DOSES).glob(f"[!.]*/{artifact.MANIFEST}")):
        parents = artifact.open_artifact(manifest.parent, kind="dose", verify=False).inputs.parents
        own = {place: digest for place, digest in parents.items() if "/" in place}
        if own and all(digests.get(place) == digest for place, digest in own.items()):
            found.append(_read(manifest.parent))
    return tuple(found)


def _read(folder: Path) -> Swept:
    facts = artifact.unsealed((folder / USABLE_FILE).read_bytes())
    if facts is None or facts.get("format") != _FORMAT:
        raise ArtifactError(f"{folder / USABLE_FILE}: damaged, or of another version; delete {folder} and sweep again")
    return Swept(parse_interventions(facts["interventions"]), usable_of(facts["usable"], str(folder / USABLE_FILE)))


def usable_json(usable: UsableRange) -> Any:
    """As plain JSON values."""
    return _RANGE.dump_python(usable, mode="json")


def usable_of(raw: Any, where: str) -> UsableRange:
    """Raises: ArtifactError: no such values, found at `where`."""
    try:
        return _RANGE.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(
            f"{where}: no usable range mohole can read ({place}: {first['msg']}); sweep again"
        ) from None


_RANGE = TypeAdapter(UsableRange)


def swept_clamp(swept: Sequence[Swept], clamp: Clamp) -> UsableRange | None:
    """The range of a sweep of just this clamp's latent, at the same tokens; None: nobody has swept that.

    Args:
        clamp: with its dictionary named as in the run.
    """
    for each in swept:
        if len(each.interventions) == 1 and isinstance(own := each.interventions[0], Clamp):
            same = (own.latent, own.hookpoint, own.where, own.when) == (
                clamp.latent, clamp.hookpoint, clamp.where, clamp.when,
            )  # fmt: skip
            if same and own.times_max == 1.0:
                return each.usable
    return None


def _is_above(one: Measure, other: Measure) -> bool:
    """Do their intervals lie apart, this one higher? Without both intervals nobody can say so."""
    return one.low is not None and other.high is not None and one.low > other.high
