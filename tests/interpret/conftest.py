"""A stream of random words in which rules can be planted, and its labels."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mohole import config
from mohole.interpret import Label
from mohole.interpret.labeller import label_latents
from mohole.interpret.rules import Firing
from mohole.interpret.text import View, read_text

PIECES = [
    " bridge", " Brücke", " pont", "桥", " The", "the", " liar", " honest", " Golden", " Iron", " Gate", " Bri", "dge",
    " forest", " Wald", " walking", " talking", " singing", " preset", " prewar", " 7", " 3", " +", " =", ".", "\n",
    " NATO", " PARIS", " house", " cat", " dog", " tree", " stone", " water", " small", " green", " quick", " of", " and", "!",
]  # fmt: skip
ID = {piece: i for i, piece in enumerate(PIECES)}
N_DOCUMENTS, LENGTH = 300, 40


class Stream:
    """Random documents of whole words; latents are masks over the tokens."""

    def __init__(self, seed: int = 0, pieces: list[str] | None = None, n_documents: int = N_DOCUMENTS) -> None:
        rng = np.random.default_rng(seed)
        self.pieces = pieces or PIECES
        self.tokens = rng.integers(0, len(self.pieces), n_documents * LENGTH).astype(np.int32)
        self.starts = np.arange(n_documents + 1) * LENGTH
        self.n_documents = n_documents
        if pieces is None:
            self._repair()

    def _repair(self) -> None:
        """ "dge" stands after " Bri" and nowhere else; documents do not begin with it."""
        bri, dge = ID[" Bri"], ID["dge"]
        self.tokens[self.tokens == dge] = ID[" of"]
        self.tokens[self.tokens == ID["the"]] = ID[" The"]  # "the" without a space would grow onto the word before
        after = np.flatnonzero(self.tokens[:-1] == bri) + 1
        self.tokens[after[after % LENGTH != 0]] = dge

    def sprinkle(self, *phrases: tuple[str, ...]) -> None:
        """Write one of these phrases at 600 places, none across the end of a document."""
        rng = np.random.default_rng(1)
        for start in rng.choice(len(self.tokens) // 8, 600, replace=False) * 8:
            ids = [ID[piece] for piece in phrases[rng.integers(len(phrases))]]
            self.tokens[start : start + len(ids)] = ids

    def at(self, *pieces: str) -> NDArray[np.bool_]:
        return np.isin(self.tokens, [ID[piece] for piece in pieces])

    def before(self, mask: NDArray[np.bool_], n: int = 1) -> NDArray[np.bool_]:
        """True n tokens after the mask, within a document."""
        moved = np.zeros_like(mask)
        moved[n:] = mask[:-n]
        moved[np.arange(len(mask)) % LENGTH < n] = False
        return moved

    def since(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """True after the first True of each document."""
        rows = np.logical_or.accumulate(mask.reshape(-1, LENGTH), axis=1)
        return self.before(rows.reshape(-1))

    def text_and_firings(self, *masks: NDArray[np.bool_], seed: int = 0):
        view = View(self.tokens, self.starts, self.pieces)
        text, place_of_row = read_text(view, np.arange(len(self.tokens)), len(self.tokens), seed=seed)
        assert (place_of_row == np.arange(len(self.tokens))).all()
        firings = [Firing(tuple(np.flatnonzero(mask & (text.pool == pool)) for pool in range(3))) for mask in masks]
        return text, firings

    def labels(self, *masks: NDArray[np.bool_], seed: int = 0) -> list[Label]:
        text, firings = self.text_and_firings(*masks, seed=seed)
        counts = np.array([mask.sum() for mask in masks])
        return label_latents(text, firings, np.ones(len(masks), np.float32), counts, config.Label(), "resid_post.0")


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def new_stream() -> Callable[..., Stream]:
    return Stream
