"""What every suite works on: both sides of the split, classes of tokens, the dictionary and its floors; and how it reports."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mohole.config import Evaluate
from mohole.corpus import Corpus, Task
from mohole.dictionary import Autoencoder
from mohole.evaluate.recovery.truth import Truth
from mohole.evaluate.results import Rated
from mohole.evaluate.suites.classes import Classed, Group, groups, thinned
from mohole.evaluate.suites.coders import Coder, coders_for
from mohole.evaluate.suites.readout import ReadOut, some_windows
from mohole.metrics import DocumentSums, Masks, measured
from mohole.metrics.measure import Statistic
from mohole.model import LanguageModel
from mohole.store import Store

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SPLIT = "everything is chosen and fitted on training documents and scored on held-out ones"
DETECTORS = ("dictionary", "random", "neurons", "pca", "probe")


@dataclass(frozen=True)
class Material:
    """Everything a suite may look at."""

    model: LanguageModel
    dictionary: Autoencoder
    corpus: Corpus
    store: Store
    truth: Truth | None
    """None where the corpus has no labels."""
    tasks: Sequence[Task]
    settings: Evaluate
    seed: int

    @cached_property
    def groups(self) -> list[Group]:
        return groups(self.truth) if self.truth else []

    @cached_property
    def coders(self) -> list[Coder]:
        """The dictionary, random directions, neurons, PCA."""
        tokens = self.truth.selection.rows.tokens if self.truth else self.store.tokens[~self.store.held_out]
        step = max(1, len(tokens) // 20_000)
        return coders_for(self.dictionary, self.vectors(tokens[::step]), self.seed)

    def vectors(self, tokens: Int64) -> Float32:
        """Stored rows of the dictionary's hookpoint."""
        return self.store.take(self.dictionary.hookpoint, tokens).astype(np.float32)

    def thinned(self, items: Classed, n_classes: int) -> Classed:
        """At most `suite_rows` of them."""
        return thinned(items, self.settings.suite_rows, n_classes, self.seed)

    def read_out(self, tokens: Int64) -> ReadOut:
        """`suite_windows` windows that hold any of these tokens."""
        windows = some_windows(self.corpus, tokens, self.settings.suite_windows, self.seed)
        hookpoint, batch = self.dictionary.hookpoint, self.settings.batch_tokens
        return ReadOut(self.model, self.corpus, hookpoint, windows, batch_tokens=batch)


@dataclass(frozen=True)
class Unit:
    """What a number's measures have in common."""

    name: str
    unit: str
    n_of: str
    masks: Masks
    baseline: str
    definition: str
    undefined: str = "too little evidence in these documents"


def rated(unit: Unit, documents: Int64, n: int, statistics: dict[str, Statistic], seed: int) -> Rated:
    """The number for each kind of dictionary, with intervals over documents (ascending, as the statistics take them)."""
    measures = {
        detector: measured(
            statistic,
            documents,
            seed=seed,
            name=unit.name,
            unit=unit.unit,
            n=n,
            n_of=unit.n_of,
            masks=unit.masks,
            baseline=unit.baseline,
            definition=f"{unit.definition}; {SPLIT}",
            undefined=unit.undefined,
        )
        for detector, statistic in statistics.items()
    }
    return Rated(unit.name, measures)


def over(documents: Int64, sums: DocumentSums) -> DocumentSums:
    """The same sums with a row for each of these documents, so that sums of different tokens take the same weights."""
    every = DocumentSums(sums.columns)
    every.add(documents, np.zeros((len(documents), len(sums.columns))))
    every.merge(sums)
    return every


def mean_over(statistics: Iterable[Statistic]) -> Statistic:
    """The plain mean of several numbers; NaN where one of them is undefined."""
    kept = list(statistics)
    return lambda weights: np.mean([statistic(weights) for statistic in kept], axis=0)


def constant(value: float) -> Statistic:
    """A number that does not depend on which documents are scored."""
    return lambda weights: np.full(len(weights), value)


def best_on_selection(options: Sequence[int], score: Callable[[int], float]) -> int:
    """The option with the highest score; of equals the smallest. Undefined scores are not chosen unless all are."""
    scores = [score(option) for option in options]
    return options[int(np.argmax([-np.inf if np.isnan(value) else value for value in scores]))]
