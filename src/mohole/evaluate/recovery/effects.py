"""What the edits of a latent did to the predictions after a label and elsewhere: sums by document, and their measures.

Which edits there are is said at the head of cause.py; what evidence and the gap are, in metrics/evidence.py.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.evaluate.recovery.results import EditEffect
from mohole.metrics import DocumentSums, Masks, Measure, kl_nats, measured
from mohole.metrics.evidence import LEAST_GAP_NATS, evidence_nats
from mohole.metrics.measure import Statistic, ratio

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

EDITS = ("up", "random", "zero", "ablate")
_WHERE = {"up": "without", "random": "without", "zero": "with", "ablate": "with"}
"""Where an edit should matter: a push where the label is not, a removal where it is."""
_PLACES = {"with": "after the label", "without": "where the label is not"}
_OTHER = {"with": "without", "without": "with"}
_QUANTITIES = ("n", "evidence clean", *(f"{what} {edit}" for edit in EDITS for what in ("evidence", "kl")))

_UNTOUCHED = "the model untouched"
_REPLACED = "every token of the text; not BOS, not padding, not special tokens"
_EVIDENCE = "evidence: sum p(v) ln(p_with(v) / p_without(v)) of a prediction p"


class Effects:
    """Evidence for one label, and KL, after the label and where the label is not, for each edit."""

    def __init__(self, signature: Float[Tensor, " vocab"]) -> None:
        self._signature = signature
        self._sums = DocumentSums([f"{name} {place}" for name in _QUANTITIES for place in ("with", "without")])

    def add(
        self, logits: Mapping[str, Float[Tensor, "prediction vocab"]], has_label: Bools, documents: Int64, *, place: str
    ) -> None:
        """Add predictions: of the model as it is ("clean") and with each edit.

        Raises:
            NumericsError: one is not finite.
        """
        found = {"n": torch.ones(len(documents), dtype=torch.float64)}
        for name, each in logits.items():
            found[f"evidence {name}"] = evidence_nats(each, self._signature)
            if name != "clean":
                found[f"kl {name}"] = kl_nats(logits["clean"], each)
        values = torch.stack([found[name] for name in _QUANTITIES], dim=1).numpy()
        here = has_label[:, None]
        sides = np.stack([np.where(here, values, 0.0), np.where(here, 0.0, values)], axis=2)
        self._sums.add(documents, sides.reshape(len(values), -1), place=place)

    @property
    def is_one_sided(self) -> bool:
        return min(self._sums.total("n with"), self._sums.total("n without")) == 0

    def gap(self, negatives: str, seed: int) -> Measure:
        """How differently the model predicts with the label and without it."""
        definition = f"mean evidence after the label less that where the label is not; {_EVIDENCE}"
        masks = Masks(scored=_scored(negatives))
        return self._made(self._gap, seed, masks, name="gap", unit="nats of evidence", definition=definition)

    def of_edits(self, negatives: str, seed: int) -> dict[str, EditEffect]:
        """What each edit did."""
        masks = Masks(replaced=_REPLACED, scored=_scored(negatives))
        return {edit: self._effect(edit, masks, seed) for edit in EDITS}

    def _effect(self, edit: str, masks: Masks, seed: int) -> EditEffect:
        here, other = _WHERE[edit], _OTHER[_WHERE[edit]]
        gained = "gained" if here == "without" else "lost"
        return EditEffect(
            moved=self._made(
                lambda weights: self._moved(edit, weights),
                seed,
                masks,
                name=f"{edit}_moved",
                unit="nats of evidence",
                definition=f"mean evidence {gained} {_PLACES[here]}; {_EVIDENCE}",
                baseline=_UNTOUCHED,
            ),
            share=self._made(
                lambda weights: ratio(self._moved(edit, weights), self._clear_gap(weights)),
                seed,
                masks,
                name=f"{edit}_share",
                unit="share of the gap",
                definition=f"mean evidence {gained} {_PLACES[here]}, of the gap: 1 is all that the label makes of a "
                "prediction, 0 is nothing, below 0 the wrong way",
                baseline=_UNTOUCHED,
                undefined=f"the gap is below {LEAST_GAP_NATS} nats: the model predicts much the same with and without it",
            ),
            kl=self._made(
                self._mean(f"kl {edit}", here),
                seed,
                masks,
                name=f"{edit}_kl",
                unit="nats per token",
                definition=f"mean KL(clean || edited) {_PLACES[here]}",
                baseline=_UNTOUCHED,
            ),
            specificity=self._made(
                lambda weights: self._specificity(edit, weights),
                seed,
                masks,
                name=f"{edit}_specificity",
                unit="share of KL",
                definition=f"mean KL {_PLACES[here]}, of that plus the mean KL {_PLACES[other]}",
                baseline="0.5: an edit that changes all predictions alike",
                undefined="the edit changes no prediction",
            ),
        )

    def _made(self, statistic: Statistic, seed: int, masks: Masks, **words: str) -> Measure:
        n = int(self._sums.total("n with") + self._sums.total("n without"))
        return measured(statistic, self._sums.documents, seed=seed, n=n, n_of="predictions", masks=masks, **words)

    def _mean(self, quantity: str, place: str) -> Statistic:
        return self._sums.mean_of(f"{quantity} {place}", f"n {place}")

    def _gap(self, weights: Float64) -> Float64:
        return self._mean("evidence clean", "with")(weights) - self._mean("evidence clean", "without")(weights)

    def _clear_gap(self, weights: Float64) -> Float64:
        gap = self._gap(weights)
        return np.where(gap > LEAST_GAP_NATS, gap, 0.0)

    def _moved(self, edit: str, weights: Float64) -> Float64:
        here = _WHERE[edit]
        gained = self._mean(f"evidence {edit}", here)(weights) - self._mean("evidence clean", here)(weights)
        return gained if here == "without" else -gained

    def _specificity(self, edit: str, weights: Float64) -> Float64:
        here = _WHERE[edit]
        inside = self._mean(f"kl {edit}", here)(weights)
        return ratio(inside, inside + self._mean(f"kl {edit}", _OTHER[here])(weights))


def _scored(negatives: str) -> str:
    return (
        f"in windows with the label every prediction from it on; in others every one from the first of {negatives} on"
    )
