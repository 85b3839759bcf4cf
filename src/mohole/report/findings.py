"""What a run found, as plain values ready to show: quality, recovery, features with their texts, steering.

No layout but the few lines of `Findings` in a notebook.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mohole.act import Demonstration
from mohole.drawing import notebook
from mohole.evaluate import Evaluation, Recovery
from mohole.interpret import Label


@dataclass(frozen=True, slots=True)
class Snippet:
    """A stretch of text with a latent's activation at every token."""

    document: int
    start: int
    """Global index of the first token."""
    focus: int
    """Which token it is about, counted from the first."""
    pieces: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """The activation it is about."""
        return self.values[self.focus]


@dataclass(frozen=True, slots=True)
class Band:
    """Activations in (low, high], and some texts drawn from there."""

    low: float
    high: float
    count: int
    snippets: tuple[Snippet, ...]


@dataclass(frozen=True, slots=True)
class Concept:
    """A planted concept that a latent has been found to be."""

    label: str
    f1: float
    """Of the latent against all tokens, on held-out documents: telling it from its family alone would not make it the concept."""
    n_languages: int
    """Languages in which the latent fires on the concept's words; 0 where that was not scored."""


@dataclass(frozen=True, slots=True)
class FeatureCard:
    """A latent with its evidence."""

    latent: int
    label: Label
    concept: Concept | None
    """The planted concept for which this is the best latent, where there is one."""
    count: int
    density: float
    maximum: float
    mean: float
    histogram: tuple[int, ...]
    """Activations in equal steps from 0 to the maximum; zeros not counted."""
    top: tuple[Snippet, ...]
    bands: tuple[Band, ...]
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]

    @property
    def f1(self) -> float | None:
        """The label's F1 on documents the labeller did not study; None where the latent fires too rarely to say."""
        return None if self.label.status in ("few", "dead") else self.label.f1


@dataclass(frozen=True, slots=True)
class HookpointFindings:
    """One dictionary and everything measured about it."""

    hookpoint: str
    n_latents: int
    d_model: int
    nonlinearity: str
    n_tokens: int
    """Tokens that the catalogue looked at."""
    evaluation: Evaluation
    recovery: Recovery | None
    """None where the text's concepts are not known."""
    record: tuple[Mapping[str, Any], ...]
    """The training record's lines."""
    features: tuple[FeatureCard, ...]


@dataclass(frozen=True, slots=True)
class ArtifactFacts:
    """One of the run's artifacts."""

    name: str
    kind: str
    digest: str
    code: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything a report shows about a run."""

    name: str
    model: str
    corpus: str
    n_documents: int
    n_tokens: int
    context: int
    held_out: float
    """Share of documents kept away from training."""
    seed: int
    code: str
    hookpoints: tuple[HookpointFindings, ...]
    """At least one, in order of execution."""
    firing_share: float
    """Labels were made and scored for activations above this share of a latent's maximum."""
    steering: Demonstration | None
    artifacts: tuple[ArtifactFacts, ...]

    def _repr_html_(self) -> str:
        """Shown by notebooks."""
        quality = [
            (place.hookpoint, f"{place.n_latents:,}", *(_value(place, name) for name in _QUALITY))
            for place in self.hookpoints
        ]
        warnings = [
            f"{place.hookpoint}: {caution.sentence}"
            for place in self.hookpoints
            for caution in place.evaluation.warnings
        ]
        told = [
            (
                f"{place.hookpoint}/{card.latent}",
                card.label.text,
                "–" if card.f1 is None else f"{card.f1:.2f}",
                f"{card.density:.2%}",
            )
            for place in self.hookpoints
            for card in place.features[:_SHOWN]
        ]
        return notebook.card(
            self.name,
            notebook.note(
                f"{self.model}, taken apart on {self.n_tokens:,} tokens of {self.n_documents:,} documents ({self.corpus})",
                kind="soft",
            ),
            notebook.note(*warnings, kind="warning"),
            notebook.part(
                "Quality on documents never trained on",
                notebook.table(("", "latents", "FVU", "L0", "CE recovered", "excess CE, nats", "dead"), quality),
            ),
            notebook.part("Features", notebook.table(("", "label", "F1", "fires at"), told, words=(0, 1))),
        )


_QUALITY = ("fvu", "l0", "ce_recovered", "excess_ce", "dead")
_SHOWN = 5
"""Features of each hookpoint in a notebook."""


def _value(place: HookpointFindings, name: str) -> str:
    measure = place.evaluation.measures.get(name)
    if measure is None:
        return "not measured"
    return "undefined" if measure.value is None else f"{measure.value:.4g}".replace("-", "−")
