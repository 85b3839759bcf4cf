"""The splice of `splice.py` on a little held-out text, again and again while a dictionary is learned. The same definitions.

The text, the model's own loss on it and both ablations are run once; each look at a dictionary is one more pass of the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder
from mohole.errors import HookpointError
from mohole.evaluate.in_model.ablations import Ablation, Backdrop
from mohole.evaluate.in_model.edits import together
from mohole.evaluate.in_model.nats import readings
from mohole.evaluate.in_model.passages import SCORED, Passage, choose_windows, masks_at, passages, require_pairs
from mohole.evaluate.in_model.splice import ablating, add_losses, predictions
from mohole.evaluate.standin import stand_in
from mohole.metrics import DocumentSums, token_nats
from mohole.model import Edit, LanguageModel

_FOLLOWED = ("ce_recovered", "ce_recovered_zero", "excess_ce")
_ABLATIONS: tuple[Ablation, ...] = ("mean", "zero")
_COLUMNS = ("pairs", "clean", "replaced", *_ABLATIONS)


class HeldOutLoss:
    """What the model loses on some held-out windows with a dictionary in the place of its activation.

    The windows are the first of those that `evaluate` measures on.
    """

    def __init__(
        self, model: LanguageModel, corpus: Corpus, hookpoint: str, *, max_tokens: int, batch_tokens: int, seed: int
    ) -> None:
        """Raises: StageError: no pair of tokens in the held-out windows."""
        self._model, self._hookpoint = model, model.canonical(hookpoint)
        chosen = choose_windows(corpus, corpus.n_documents, max_tokens, seed)
        self._passages = require_pairs(list(passages(model, corpus, chosen, batch_tokens)))
        self._fixed: list[dict[str, Float[Tensor, " _"]]] = []
        backdrop = Backdrop(model, [self._hookpoint], self._passages, seed)
        for passage in self._passages:
            own = {"clean": token_nats(predictions(model, passage, []), passage.targets)}
            for ablation in _ABLATIONS:
                own[ablation] = self._nats(passage, ablating(backdrop, ablation, [self._hookpoint], passage))
            self._fixed.append(own)
        self._n_tokens = sum(passage.n_tokens for passage in self._passages)

    def __call__(self, dictionary: SparseAutoencoder) -> dict[str, float | None]:
        """CE recovered against both ablations, and the excess in nats. None where the ablation does no harm.

        Raises:
            HookpointError: a dictionary of another place. NumericsError: a loss that is not finite.
        """
        if dictionary.hookpoint != self._hookpoint:
            raise HookpointError(f"{dictionary.hookpoint}: the loss of {self._hookpoint} is measured here")
        own = [stand_in(dictionary, self._model)]
        sums = self._sums([self._nats(passage, together(own, passage.is_text, {})) for passage in self._passages])
        return {name: value for name, value in _values(sums).items() if name in _FOLLOWED}

    def stamp(self) -> Mapping[str, Any]:
        """What the numbers are of: text, masks, the losses that do not change, and each number's baseline and definition."""
        sums = self._sums([fixed["clean"] for fixed in self._fixed])
        unchanged = {name: value for name, value in _values(sums).items() if name in ("ce_clean", "ce_mean", "ce_zero")}
        said = {each.name: each for each in readings(sums) if each.name in _FOLLOWED}
        return {
            "hookpoint": self._hookpoint,
            "n_pairs": int(sums.total("pairs")),
            "n_tokens": self._n_tokens,
            "n_documents": len(sums.documents),
            "replaced": masks_at([self._hookpoint]).replaced,
            "scored": SCORED,
            "mean_row": "of the replaced positions",
            **unchanged,
            "measures": {
                name: {"unit": each.unit, "baseline": each.baseline, "definition": each.definition}
                for name, each in said.items()
            },
        }

    def _nats(self, passage: Passage, edits: Sequence[Edit]) -> Float[Tensor, " pair"]:
        return token_nats(predictions(self._model, passage, edits), passage.targets)

    def _sums(self, replaced: list[Float[Tensor, " _"]]) -> DocumentSums:
        sums = DocumentSums(_COLUMNS)
        for passage, fixed, own in zip(self._passages, self._fixed, replaced, strict=True):
            add_losses(sums, passage, fixed | {"replaced": own}, self._hookpoint)
        return sums


def _values(sums: DocumentSums) -> dict[str, float | None]:
    """Every number to six digits: what differs beyond them is rounding."""
    everything = np.ones((1, len(sums.documents)))
    found = {each.name: float(each.statistic(everything)[0]) for each in readings(sums)}
    return {name: None if np.isnan(value) else float(f"{value:.6g}") for name, value in found.items()}
