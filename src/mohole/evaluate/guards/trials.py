"""Guards that try something: a dictionary that does better as something it is not said to be.

They take a few hundred rows: they encode them alone and together, at the store's other hookpoints, at other scales, with another
nonlinearity. A dictionary that rebuilds rows twice as well there has most likely been loaded with that mistake; and with fewer
latents none should do better at all. FVU alone does not tell: the demo's dictionaries have 0.09 to 0.64 at another layer of the
stream, and 0.02 with ReLU in place of their TopK.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, assert_never

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary import (
    AnyDictionary,
    Crosscoder,
    CrossLayerTranscoder,
    Latents,
    NormalisedAutoencoder,
    SparseAutoencoder,
    Transcoder,
)
from mohole.dictionary.normalised import at
from mohole.evaluate.results import Caution
from mohole.evaluate.rows.choice import Rows, take
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import fvu
from mohole.store import Store

Int64 = NDArray[np.int64]

N_PROBED = 256  # rows that a mistake is tried on
N_ALONE = 32  # of them, encoded one by one
_SUSPECT_FVU = 0.1  # below it no other scale is tried
_MUCH_BETTER = 0.5  # of its own FVU
_BETTER_WITH_FEWER = 0.9  # of its own FVU, with fewer latents
_LEAST_FVU = 0.005  # a dictionary this good is what it is said to be
_SCALES = tuple(2.0 ** (step / 2) for step in range(-12, 13) if step)
_KS = (2, 4, 8, 16, 32, 64, 128, 256)

_Coded = TypeVar("_Coded", Latents, SparseAutoencoder)


def probe(store: Store, rows: Rows, spliced: StandIn) -> Iterator[Caution]:
    """Guards that try something. Constant rows say nothing of a dictionary, and nothing is tried on them."""
    chosen = rows.tokens[np.unique(np.linspace(0, len(rows) - 1, N_PROBED).astype(np.int64))]
    stored = take(store, (*spliced.reads, *spliced.writes), chosen, "of the probed ones")
    yield from _alone_and_together(spliced, stored)
    own = _fvu(spliced, stored)
    if own is None or own < _LEAST_FVU:
        return
    yield from _elsewhere(store, chosen, spliced, own)
    yield from _otherwise(spliced, stored, own)
    if own > _SUSPECT_FVU:
        yield from _rescaled(spliced, stored, own)


def _alone_and_together(spliced: StandIn, stored: Mapping[str, Tensor]) -> Iterator[Caution]:
    some = {name: rows[:N_ALONE] for name, rows in stored.items()}
    whole = spliced.rebuild(stored)[1]
    n_rows = len(some[spliced.reads[0]])
    n_other = n_active = 0
    for row in range(n_rows):
        codes = spliced.rebuild({name: rows[row : row + 1] for name, rows in some.items()})[1]
        begin, end = (int(whole.row_starts[at]) for at in (row, row + 1))
        n_active += len(codes.latents)
        together = dict(zip(whole.latents[begin:end].tolist(), whole.values[begin:end].tolist(), strict=True))
        alone = dict(zip(codes.latents.tolist(), codes.values.tolist(), strict=True))
        largest = max((abs(value) for value in (*together.values(), *alone.values())), default=0.0)
        n_other += any(
            abs(together.get(latent, 0.0) - alone.get(latent, 0.0)) > 1e-3 * largest for latent in {*together, *alone}
        )
    if n_other > 1:  # one row may stand on the edge of a tie, which rounding decides
        in_batch = int(whole.row_starts[n_rows]) / n_rows
        yield Caution(
            "codes_depend_on_batch",
            f"{n_other} of {n_rows} rows have other codes alone (L0 {n_active / n_rows:.1f}) than in a batch "
            f"(L0 {in_batch:.1f}): every number here depends on the batch. Was it trained by batches, and has no threshold?",
        )


def _elsewhere(store: Store, tokens: Int64, spliced: StandIn, own: float) -> Iterator[Caution]:
    dictionary = spliced.dictionary
    if not isinstance(dictionary, SparseAutoencoder | NormalisedAutoencoder):
        return
    found: dict[str, float] = {}
    for name in store.hookpoints:
        if name != spliced.reads[0] and store.d_model(name) == dictionary.d_model:
            moved = stand_in(at(dictionary, name))
            value = _fvu(moved, take(store, [name], tokens, "of the probed ones"))
            if value is not None:
                found[name] = value
    best = min(found, key=lambda name: found[name], default=None)
    if best is not None and found[best] < _MUCH_BETTER * own:
        yield Caution(
            "better_elsewhere",
            f"It rebuilds {best} better (FVU {found[best]:.3g}) than {spliced.name} (FVU {own:.3g}): is it of that hookpoint?",
        )


def _rescaled(spliced: StandIn, stored: Mapping[str, Tensor], own: float) -> Iterator[Caution]:
    found = {scale: _fvu(spliced, {name: rows * scale for name, rows in stored.items()}) or np.inf for scale in _SCALES}
    best = min(found, key=lambda scale: found[scale])
    if found[best] < _MUCH_BETTER * min(own, 1.0):
        yield Caution(
            "better_scaled",
            f"It rebuilds rows times {best:.2g} better (FVU {found[best]:.3g}) than rows as they are (FVU {own:.3g}): "
            "was the scale of its training left out?",
        )


def _otherwise(spliced: StandIn, stored: Mapping[str, Tensor], own: float) -> Iterator[Caution]:
    l0 = float(spliced.rebuild(stored)[1].n_active.double().mean())
    best, least = "", np.inf
    for nonlinearity in _others(spliced):
        value = _fvu(replace(spliced, dictionary=_with(spliced.dictionary, nonlinearity)), stored)
        is_fewer = isinstance(nonlinearity, TopK) and nonlinearity.k < l0
        enough = (_BETTER_WITH_FEWER if is_fewer else _MUCH_BETTER) * min(own, 1.0)
        if value is not None and value < min(enough, least):
            least = value
            best = f"topk, k = {nonlinearity.k}," if isinstance(nonlinearity, TopK) else nonlinearity.kind
    if best:
        yield Caution(
            "better_otherwise",
            f"With {best} in place of its nonlinearity (L0 {l0:.1f}) FVU is {least:.3g}, as it is {own:.3g}: "
            "was it trained with another?",
        )


def _others(spliced: StandIn) -> Iterator[Nonlinearity]:
    """What else its encoder may have been trained with, as far as its tensors say nothing against it."""
    own = _nonlinearity(spliced.dictionary)
    match own:
        case Gated():
            return
        case TopK() | BatchTopK() | JumpReLU():
            yield ReLU()
        case ReLU():
            pass
        case _:
            assert_never(own)
    yield from (TopK(k=k) for k in _KS if 2 * k <= spliced.n_latents and own != TopK(k=k))


def _nonlinearity(dictionary: AnyDictionary) -> Nonlinearity:
    match dictionary:
        case SparseAutoencoder(nonlinearity=nonlinearity) | NormalisedAutoencoder(nonlinearity=nonlinearity):
            return nonlinearity
        case Transcoder(latents=latents) | Crosscoder(latents=latents):
            return latents.nonlinearity
        case CrossLayerTranscoder(layers=layers):
            return layers[0].nonlinearity
        case _:
            assert_never(dictionary)


def _with(dictionary: AnyDictionary, nonlinearity: Nonlinearity) -> AnyDictionary:
    def changed(latents: _Coded) -> _Coded:
        return replace(latents, nonlinearity=nonlinearity, threshold=None, b_mag=None, r_mag=None)

    match dictionary:
        case NormalisedAutoencoder(own=own):
            return replace(dictionary, own=changed(own))
        case SparseAutoencoder():
            return changed(dictionary)
        case Transcoder() | Crosscoder():
            return replace(dictionary, latents=changed(dictionary.latents))
        case CrossLayerTranscoder():
            return replace(dictionary, layers=tuple(changed(layer) for layer in dictionary.layers))
        case _:
            assert_never(dictionary)


def _fvu(spliced: StandIn, stored: Mapping[str, Float[Tensor, "row d"]]) -> float | None:
    """None: the rows have no variance, or the reconstruction is no number."""
    target, output = spliced.compared(stored)
    if len(target) < 2 or not bool((target != target[0]).any()) or not bool(torch.isfinite(output).all()):
        return None
    return float(fvu(target, output))
