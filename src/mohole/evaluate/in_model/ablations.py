"""What a reconstruction is held against: the activation taken away, in four ways, at the same positions and no others.

zero            nothing
mean            the mean row of all replaced positions
position_mean   the mean row of the replaced positions at the same place of their window; where fewer than 16 documents reach
                that place, the mean row: the mean of one row would be the row itself
resample        a row of another document, drawn by key from a pool of the text's own rows; the same token's row at every
                hookpoint that is ablated, whatever the batch

The mean takes away what varies; position_mean leaves what the position alone says; resample puts in rows that are as the model
makes them, from another text. Zero is often far from any row, so that its damage flatters what is compared with it.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.evaluate.in_model.passages import Passage
from mohole.keys import Use, uniform, words
from mohole.model import LanguageModel

Int64 = NDArray[np.int64]

Ablation = Literal["mean", "zero", "position_mean", "resample"]
ABLATIONS: tuple[Ablation, ...] = ("mean", "zero", "position_mean", "resample")

LEAST_DOCUMENTS = 16  # of a position, for a mean of its own
POOL_ROWS = 2048


class Backdrop:
    """What each ablation puts in the place of the activations of some passages, at some hookpoints."""

    def __init__(self, model: LanguageModel, hookpoints: Sequence[str], passages: Sequence[Passage], seed: int) -> None:
        """Runs the passages through the model once, as far as the last of the hookpoints."""
        self._seed = seed
        self._pool_tokens, self._pool_documents = _pool(passages, seed)
        n_places = 1 + max((int(passage.positions.max()) for passage in passages), default=0)
        n_rows, document_sets = torch.zeros(n_places, dtype=torch.float64), [set[int]() for _ in range(n_places)]
        sums = {name: torch.zeros(n_places, model.width(name), dtype=torch.float64) for name in hookpoints}
        self._pool = {name: torch.zeros(len(self._pool_tokens), model.width(name)) for name in hookpoints}
        for passage in passages:
            places = torch.from_numpy(passage.positions)
            n_rows += torch.bincount(places, minlength=n_places)
            for place, document in zip(passage.positions.tolist(), passage.replaced_documents.tolist(), strict=True):
                document_sets[place].add(document)
            for name, read in model.read(passage.tokens, hookpoints).items():
                rows = read[passage.is_text.to(read.device)].cpu()
                sums[name].index_add_(0, places, rows.double())
                self._keep(name, rows, passage.replaced_tokens)
        is_enough = torch.tensor([len(documents) >= LEAST_DOCUMENTS for documents in document_sets])
        self._means = {name: (total.sum(0) / n_rows.sum()).float() for name, total in sums.items()}
        self._at_places = {
            name: torch.where(is_enough[:, None], (total / n_rows.clamp(min=1)[:, None]).float(), self._means[name])
            for name, total in sums.items()
        }

    @property
    def resamples(self) -> bool:
        """Is there another document for every row?"""
        return len(np.unique(self._pool_documents)) > 1

    @property
    def available(self) -> tuple[Ablation, ...]:
        return tuple(name for name in ABLATIONS if name != "resample" or self.resamples)

    def rows(self, ablation: Ablation, hookpoint: str, passage: Passage) -> Float[Tensor, "replaced d"]:
        """What stands in for the passage's replaced rows."""
        n_rows = len(passage.replaced_tokens)
        match ablation:
            case "mean":
                return self._means[hookpoint].expand(n_rows, -1)
            case "zero":
                return torch.zeros(n_rows, len(self._means[hookpoint]))
            case "position_mean":
                return self._at_places[hookpoint][torch.from_numpy(passage.positions)]
            case "resample":
                return self._pool[hookpoint][torch.from_numpy(self._drawn(passage))]
            case _:
                assert_never(ablation)

    def _keep(self, hookpoint: str, rows: Tensor, tokens: Int64) -> None:
        by_token = np.argsort(self._pool_tokens, kind="stable")
        place = np.searchsorted(self._pool_tokens, tokens, sorter=by_token).clip(max=len(by_token) - 1)
        kept = self._pool_tokens[by_token[place]] == tokens
        self._pool[hookpoint][by_token[place[kept]]] = rows[torch.from_numpy(kept)].float()

    def _drawn(self, passage: Passage) -> Int64:
        """For each replaced row a place in the pool, of another document: all of those are equally likely."""
        first = np.searchsorted(self._pool_documents, passage.replaced_documents)
        last = np.searchsorted(self._pool_documents, passage.replaced_documents, side="right")
        n_others = len(self._pool_documents) - (last - first)
        drawn = (uniform(self._seed, Use.ABLATION_ROWS, passage.replaced_tokens) * n_others).astype(np.int64)
        return np.where(drawn >= first, drawn + (last - first), drawn)


def _pool(passages: Sequence[Passage], seed: int) -> tuple[Int64, Int64]:
    """Tokens whose rows may be drawn, and their documents, ascending: the first by key among all that are replaced."""
    tokens = np.concatenate([passage.replaced_tokens for passage in passages])
    documents = np.concatenate([passage.replaced_documents for passage in passages])
    chosen = np.sort(np.lexsort((tokens, words(seed, Use.ABLATION_POOL, tokens)))[:POOL_ROWS])
    order = chosen[np.lexsort((tokens[chosen], documents[chosen]))]
    return tokens[order], documents[order]
