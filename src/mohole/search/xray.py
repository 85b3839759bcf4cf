"""A text token by token: which features fire at each, and one feature along the whole."""

from dataclasses import dataclass

import numpy as np
import torch

from mohole.dictionary import AnyDictionary, SparseCodes
from mohole.errors import ConfigError
from mohole.model import LanguageModel
from mohole.search.passes import read
from mohole.search.peaks import PeakFinder, Peaks


@dataclass(frozen=True)
class XrayRows:
    """One entry for each token of the text, in order. The begin-of-text token put in front is not among them."""

    tokens: tuple[str, ...]
    """Pieces as the corpus shows them. Exact: make them visible to show."""
    latents: tuple[tuple[int, ...], ...]
    """Strongest first, ties by latent. None at a special token: no dictionary was trained on its row."""
    activations: tuple[tuple[float, ...], ...]
    """Of `latents`, in units of `encode`: the model's, or of each row's own scale."""
    along: tuple[float, ...] | None
    """The followed latent at each token; 0 where it is silent."""
    peaks: Peaks
    """Of every latent that fires in the text, whether it is among those of its tokens or not; places count the tokens."""


def xray(
    model: LanguageModel,
    dictionary: AnyDictionary,
    text: str,
    *,
    hookpoint: str,
    top: int,
    follow: int | None = None,
    context: int | None = None,
) -> XrayRows:
    """Run a text and see which latents fire where.

    Long texts are run window by window, as documents of a corpus are: a token sees what stands before it in its window.

    Args:
        top: latents of each token, at most.
        follow: a latent to see along the whole text.
        context: tokens of a window, as the run's corpus has them; None: what the model was made for.

    Raises:
        ConfigError: as `read`, or `top` below 1, or no such latent. HookpointError: as `read`.
    """
    if top < 1:
        raise ConfigError(f"top: {top} is too small; at least 1")
    reading = read(model, dictionary, text, hookpoint=hookpoint, context=context)
    n_latents = reading.standin.n_latents
    if follow is not None and not 0 <= follow < n_latents:
        raise ConfigError(f"latent {follow}: the dictionary at {hookpoint} has latents 0 to {n_latents - 1}")
    n = len(reading.tokens)
    latents: list[tuple[int, ...]] = [()] * n
    activations: list[tuple[float, ...]] = [()] * n
    along = np.zeros(n, dtype=np.float32)
    finder = PeakFinder(n_latents)
    for places, codes in reading.codes():
        finder.add(places, codes)
        for row, place in enumerate(places.tolist()):
            latents[place], activations[place] = _strongest(codes, row, top)
        if follow is not None:
            along[places] = codes.column(follow).numpy()
    followed = None if follow is None else tuple(along.tolist())
    return XrayRows(reading.pieces, tuple(latents), tuple(activations), followed, finder.peaks())


def _strongest(codes: SparseCodes, row: int, top: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    here = slice(int(codes.row_starts[row]), int(codes.row_starts[row + 1]))
    values, latents = codes.values[here], codes.latents[here]
    order = torch.argsort(values, descending=True, stable=True)[:top]  # stable: latents of a row ascend
    return tuple(latents[order].tolist()), tuple(values[order].tolist())
