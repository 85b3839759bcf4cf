"""The results of an evaluation as typed values, and their two JSON files. The JSON has exactly the fields of these classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mohole.config import Suite
from mohole.errors import ArtifactError
from mohole.metrics import DensityHistogram, Masks, Measure
from mohole.metrics.measure import as_json
from mohole.metrics.stamp import Stamp
from mohole.record import write_json
from mohole.tensors import open_tensors, write_tensors

EVALUATION_FILE = "evaluation.json"
RECOVERY_FILE = "recovery.json"
REPLICATES_FILE = "replicates.safetensors"

FLOORS = ("neuron", "pca", "random")
"""Detectors that nobody has to train a dictionary for."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task: the share of prompts whose whole right answer the model gives, greedily."""

    name: str
    n: int
    """Prompts. Each is independent, so the intervals are Wilson's."""
    clean: float
    clean_low: float
    clean_high: float
    replaced: float
    """With the reconstruction in place of the activation at every token but BOS, prompt and answer."""
    replaced_low: float
    replaced_high: float

    @property
    def change(self) -> float:
        """replaced - clean: negative is skill lost."""
        return self.replaced - self.clean


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """What is unexplained of one class of tokens. Classes do not overlap, so shares add up to 1."""

    name: str
    n: int
    share_of_rows: float
    share_of_error: Measure
    fvu: Measure


@dataclass(frozen=True, slots=True)
class DenseLatent:
    """A latent that fires in more than a tenth of the rows."""

    latent: int
    density: float
    mean_cosine: float | None
    """Cosine of its decoder row with the mean row: near 1 or -1 it carries the mean, which is a bias's work. None: no length."""


@dataclass(frozen=True, slots=True)
class DarkMatter:
    """What the dictionary leaves unexplained, class by class, and what it explains by latents that nearly always fire."""

    n_rows: int
    classes: tuple[ErrorClass, ...]
    dense: tuple[DenseLatent, ...]
    """The densest, at most 50."""


@dataclass(frozen=True, slots=True)
class Caution:
    """A number that should not be what it is."""

    name: str
    """Which guard saw it; stays the same from release to release."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Rated:
    """One number of a suite, for the dictionary and beside it for what could be had without one."""

    name: str
    measures: dict[str, Measure]
    """`dictionary`; `random` (directions), `neurons`, `pca` treated as dictionaries; `probe`: with all of the row."""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One suite of supervised or causal measurements."""

    suite: Suite
    rated: tuple[Rated, ...]
    left_out: tuple[str, ...]
    """What was not measured and why, a sentence each."""

    def rating(self, name: str) -> Rated | None:
        """One number, None if it was not measured."""
        return next((rated for rated in self.rated if rated.name == name), None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a dictionary stands in for the activation."""

    hookpoint: str
    """Where it stands, for people: `resid_post.3`, `mlp_in.3 -> mlp_out.3`."""
    kind: str
    """What it is: `sae`, `transcoder`, `crosscoder`, `cross_layer_transcoder`."""
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    n_latents: int
    measures: dict[str, Measure]
    tasks: tuple[TaskResult, ...]
    density: DensityHistogram
    dark_matter: DarkMatter
    warnings: tuple[Caution, ...]
    """Numbers that should not be what they are. Empty is good."""
    checked: Stamp
    """By which definitions it was measured, and that they gave every known answer."""
    suites: tuple[SuiteResult, ...] = ()
    """Those asked for by `evaluate.suites`."""


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


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """Write an evaluation into a folder: its JSON, and the replicates of its measures."""
    write_json(out / EVALUATION_FILE, as_json(evaluation))
    kept = {name: each.replicates for name, each in evaluation.measures.items() if each.replicates is not None}
    write_tensors(out / REPLICATES_FILE, kept)


def read_replicates(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """The replicates of each measure of a finished evaluation.

    Raises:
        ArtifactError: missing or damaged.
    """
    return {name: np.array(values) for name, values in open_tensors(Path(path) / REPLICATES_FILE).items()}


def read_evaluation(path: Path | str) -> Evaluation:
    """The evaluation in a finished evaluation folder.

    Raises:
        ArtifactError: missing or damaged.
    """
    return _read(Path(path) / EVALUATION_FILE, Evaluation)


def read_recovery(path: Path | str) -> Recovery | None:
    """The recovery in a finished evaluation folder; None where the corpus had no truth, or it was not asked for.

    Raises:
        ArtifactError: damaged.
    """
    file = Path(path) / RECOVERY_FILE
    return _read(file, Recovery) if file.is_file() else None


def _read(file: Path, kind: type[Result]) -> Result:
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file; `mohole evaluate RECIPE` makes it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"{file}: damaged at {place or 'its start'} ({first['msg']}); delete its folder and make it again"
        ) from None
