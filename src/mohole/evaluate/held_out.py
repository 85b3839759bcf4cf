"""The splice of `splice.py` on a little held-out text, again and again while a dictionary is learned. The same definitions.

The text, the model's own loss on it and both ablations are run once; each look at a dictionary is one more pass of the model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.corpus import Corpus
from mohole.dictionary import Dictionary
from mohole.errors import HookpointError
from mohole.evaluate.splice import (
    MASKS,
    Passage,
    ablations,
    add_losses,
    choose_windows,
    definitions,
    passages,
    rebuild,
    require_pairs,
)
from mohole.metrics import DocumentSums, token_nats
from mohole.model import LanguageModel

Float64 = NDArray[np.float64]

_FOLLOWED = ("ce_recovered", "ce_recovered_zero", "excess_ce")
_COLUMNS = ("pairs", "clean", "replaced", "mean", "zero")


class HeldOutLoss:
    """What the model loses on some held-out windows with a dictionary in the place of its activation.

    The windows are the first of those that `evaluate` measures on. The mean row of the ablation is that of the replaced
    positions themselves.
    """

    def __init__(
        self, model: LanguageModel, corpus: Corpus, hookpoint: str, *, max_tokens: int, batch_tokens: int, seed: int
    ) -> None:
        """Raises: StageError: no pair of tokens in the held-out windows."""
        self._model, self._hookpoint = model, model.canonical(hookpoint)
        chosen = choose_windows(corpus, corpus.n_documents, max_tokens, seed)
        self._passages = list(passages(model, corpus, chosen, batch_tokens))
        self._fixed: list[dict[str, Float[Tensor, " _"]]] = []
        changes = {"clean": None, **(ablations(self._mean_row()) if self._passages else {})}
        for passage in self._passages:
            self._fixed.append({name: self._nats(passage, change) for name, change in changes.items()})
        self._n_tokens = sum(passage.n_tokens for passage in self._passages)
        require_pairs(self._sums([fixed["clean"] for fixed in self._fixed]))

    def __call__(self, dictionary: Dictionary) -> dict[str, float | None]:
        """CE recovered against both ablations, and the excess in nats. None where the ablation does no harm.

        Raises:
            HookpointError: a dictionary of another place. NumericsError: a loss that is not finite.
        """
        if dictionary.hookpoint != self._hookpoint:
            raise HookpointError(f"{dictionary.hookpoint}: the loss of {self._hookpoint} is measured here")
        change = rebuild(dictionary)
        sums = self._sums([self._nats(passage, change) for passage in self._passages])
        return {name: value for name, value in _values(sums).items() if name in _FOLLOWED}

    def stamp(self) -> Mapping[str, Any]:
        """What the numbers are of: text, masks, the losses that do not change, and each number's baseline and definition."""
        sums = self._sums([fixed["clean"] for fixed in self._fixed])
        unchanged = {name: value for name, value in _values(sums).items() if name in ("ce_clean", "ce_mean", "ce_zero")}
        said = {each.name: each for each in definitions(sums) if each.name in _FOLLOWED}
        return {
            "hookpoint": self._hookpoint,
            "n_pairs": int(sums.total("pairs")),
            "n_tokens": self._n_tokens,
            "n_documents": len(sums.documents),
            "replaced": MASKS.replaced,
            "scored": MASKS.scored,
            "mean_row": "of the replaced positions",
            **unchanged,
            "measures": {
                name: {"unit": each.unit, "baseline": each.baseline, "definition": each.definition}
                for name, each in said.items()
            },
        }

    def _mean_row(self) -> Float64:
        total, n_rows = torch.zeros(self._model.d_model, dtype=torch.float64), 0
        for passage in self._passages:
            rows = self._model.read(passage.tokens, [self._hookpoint])[self._hookpoint].cpu()[passage.is_text]
            total, n_rows = total + rows.double().sum(0), n_rows + len(rows)
        return np.asarray((total / n_rows).numpy())

    def _nats(self, passage: Passage, change: Any) -> Float[Tensor, " pair"]:
        return token_nats(passage.predictions(self._model, self._hookpoint, change), passage.targets)

    def _sums(self, replaced: list[Float[Tensor, " _"]]) -> DocumentSums:
        sums = DocumentSums(_COLUMNS)
        for passage, fixed, own in zip(self._passages, self._fixed, replaced, strict=True):
            add_losses(sums, passage, fixed | {"replaced": own}, self._hookpoint)
        return sums


def _values(sums: DocumentSums) -> dict[str, float | None]:
    """Every number to six digits: what differs beyond them is rounding."""
    everything = np.ones((1, len(sums.documents)))
    found = {each.name: float(each.statistic(everything)[0]) for each in definitions(sums)}
    return {name: None if np.isnan(value) else float(f"{value:.6g}") for name, value in found.items()}
