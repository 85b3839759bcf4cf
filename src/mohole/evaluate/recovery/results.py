"""What was found against ground truth, as typed values: label by label, family by family, language by language."""

from dataclasses import dataclass
from typing import Literal

from mohole.metrics import Masks, Measure

FLOORS = ("neuron", "pca", "random")
"""Detectors that nobody has to train a dictionary for."""


@dataclass(frozen=True, slots=True)
class Score:
    """One kind of detector for one label: the candidate best on the selection documents, scored on held-out documents.

    F1 and AUROC each have their own best candidate: a latent that fires rightly may be a poor ranker, as silent tokens tie.
    """

    f1: float
    f1_low: float | None
    f1_high: float | None
    precision: float
    recall: float
    candidate: int | None
    """The latent, neuron (residual coordinate) or principal component of the F1. None for a probe."""
    sign: Literal[1, -1]
    """-1: the neuron or component detects by being low."""
    threshold: float
    """The rule is sign * value > threshold, chosen on the selection documents. 0 for a latent means that it fires."""
    f1_selection: float
    """F1 where the candidate was chosen: the best of many, so optimistic."""
    auroc: float
    auroc_low: float
    auroc_high: float
    auroc_candidate: int | None


@dataclass(frozen=True, slots=True)
class EditEffect:
    """What one edit of a latent does to predictions: where it should matter, and elsewhere."""

    moved: Measure
    """Evidence for the label, in nats: gained where the label is not (up, random), or lost where it is (zero, ablate)."""
    share: Measure
    """The same as a share of the gap."""
    kl: Measure
    """Whatever changed where the edit should matter."""
    specificity: Measure
    """KL where the edit should matter, of that and KL elsewhere."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What a latent does in the model. That it detects a label says nothing about it."""

    latent: int
    maximum: float
    """Its largest activation on the selection documents: what `up` holds it at."""
    gap: Measure
    """How differently the model predicts after the label and where the label is not, in nats of evidence."""
    edits: dict[str, EditEffect]
    """`up` (held at its maximum), `random` (as far along a random direction), `zero` (held at zero), `ablate` (its direction)."""


@dataclass(frozen=True, slots=True)
class LabelResult:
    """One label of the truth, found by five kinds of detector."""

    label: str
    family: str
    contrast: Literal["family", "kind", "all"]
    contrast_text: str
    """Which tokens the negatives are."""
    n_positive: int
    n_negative: int
    n_documents: int
    """Held-out documents with a positive."""
    n_positive_selection: int
    n_negative_selection: int
    latent: Score
    neuron: Score
    pca: Score
    """The best principal component of the rows that detectors are chosen on."""
    random: Score
    probe: Score
    firing_f1: float
    """F1 of the latent that is best without any threshold (it fires or not), chosen on the selection documents."""
    firing_latent: int
    all_latent: int
    """The latent with the best F1 for the label against all tokens: only of it can one say that it *is* the label."""
    f1_all_latent: float
    """Its F1 against all tokens, with a threshold, both chosen on the selection documents."""
    f1_all_random: float
    auroc_all_latent: float
    """Against all tokens. Easy: see `auroc_all_random` before believing it."""
    auroc_all_random: float
    cause: Cause | None = None
    """What `latent` does in the model, for the labels that were tried (evaluate.causal_labels)."""


@dataclass(frozen=True, slots=True)
class Medians:
    """Median over a family's labels, one for each kind of detector."""

    latent: float
    neuron: float
    pca: float
    random: float
    probe: float

    @property
    def floor(self) -> float:
        """The best of what is free."""
        return max(self.neuron, self.pca, self.random)


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """A family of labels in one line."""

    family: str
    is_words: bool
    """Its labels stand on words of a language: nearly all of its tokens carry a word_language/ label too."""
    n_labels: int
    f1: Medians
    f1_low: float | None
    f1_high: float | None
    """Interval of the latents' median F1."""
    margin: float
    """Latents' median F1 less the best floor's: max(neuron, pca, random)."""
    margin_low: float | None
    margin_high: float | None
    auroc: Medians
    always_yes: float
    """Median F1 of saying yes to every token of the contrast: what a score means nothing below."""
    f1_all_latent: float
    f1_all_random: float
    """Medians of the F1 against all tokens."""
    auroc_all_latent: float
    auroc_all_random: float


@dataclass(frozen=True, slots=True)
class LanguageRate:
    """How often the concept's latent fires on the concept's word in one language."""

    language: str
    rate: float
    n: int


@dataclass(frozen=True, slots=True)
class ConceptLanguages:
    """One latent for a concept in all languages?"""

    label: str
    latent: int
    """Chosen on the selection documents: largest (lowest firing rate over languages) - (rate on the family's other tokens)
    - (rate on all tokens)."""
    languages: tuple[LanguageRate, ...]
    n_fired: int
    """Languages in which it fires on more than 0.9 of the concept's tokens: `n_fired` of `len(languages)`."""
    other_rate: float
    """Firing rate on the family's other tokens."""
    n_other: int
    is_multilingual: bool
    """It fires in every language, and on fewer than 0.05 of the other tokens."""


@dataclass(frozen=True, slots=True)
class Multilingual:
    """Share of concepts with one latent in all their languages."""

    share: float | None
    low: float | None
    high: float | None
    """Wilson's interval over concepts."""
    share_random: float | None
    """The same share for the dictionary of random directions."""
    concepts: tuple[ConceptLanguages, ...]


@dataclass(frozen=True, slots=True)
class Unscored:
    """A label with too little evidence."""

    label: str
    n_positive: int
    n_positive_selection: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """Which planted concepts the latents are, beside what is possible (probe) and what is free (FLOORS)."""

    hookpoint: str
    n_rows: int
    n_documents: int
    n_rows_selection: int
    n_documents_selection: int
    masks: Masks
    definitions: dict[str, str]
    words: FamilyResult | None
    """All families of words together. None where the truth names no words."""
    families: tuple[FamilyResult, ...]
    labels: tuple[LabelResult, ...]
    multilingual: Multilingual
    unscored: tuple[Unscored, ...]
    warnings: tuple[str, ...]

    def label(self, name: str) -> LabelResult | None:
        """One label's result, None if it was not scored."""
        return next((result for result in self.labels if result.label == name), None)

    def family(self, name: str) -> FamilyResult | None:
        """One family's result, None if none of its labels was scored."""
        return next((result for result in self.families if result.family == name), None)

    def concept(self, name: str) -> ConceptLanguages | None:
        """One concept's languages, None if it was not seen in two of them."""
        return next((result for result in self.multilingual.concepts if result.label == name), None)
