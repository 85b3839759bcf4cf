"""Activations of a few latents of any dictionary, at the price of those few where the nonlinearity allows it.

Where a latent's activation depends on its own encoder row alone (ReLU, JumpReLU, BatchTopK with its learned threshold, gated),
reading K latents costs K encoder rows, not the dictionary. TopK keeps the k largest of all, so every encoder row is needed; but
whether one latent is kept takes counting how many are larger, not sorting them; and where it is silent, as most latents are in
most rows, a loop finds k larger ones among the first few. Few rows on the CPU are read by compiled loops (`kernels.few`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, ReLU, TopK
from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.dictionary import Dictionary
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.latents import Latents
from mohole.dictionary.normalised import NormalisedAutoencoder, own_rows
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.kernels.eight_bits import eight_bits_of
from mohole.kernels.few import FewLatents, LatentLoop, TopLatents, is_few, is_looped, kept_of

_COUNTED = 8
"""Latents of a TopK dictionary that are read by counting; more are read by encoding. 64 rows of 1,024 latents: a latent's count
costs a twentieth of the encoding."""
_TILE_NUMBERS = 1 << 22

Steerable = AnyDictionary | Dictionary
"""Any of mohole's kinds, or another's that keeps to the law of a dictionary of one hookpoint."""


def name_of(dictionary: Steerable) -> str:
    """What a dictionary is called where nobody has given it a name: its hookpoint, or the one it writes."""
    match dictionary:
        case Transcoder(writes=writes):
            return writes
        case Crosscoder(hookpoints=hookpoints):
            return "+".join(hookpoints)
        case CrossLayerTranscoder(writes=targets):
            return "+".join(targets)
        case _:
            return dictionary.hookpoint


@dataclass(frozen=True)
class Readout:
    """Activations of some latents that are read in one place."""

    dictionary: Steerable
    layer: int
    latents: tuple[int, ...]
    few: Latents | None
    """Encoder rows of these latents alone; None: all are needed."""

    def __call__(
        self, rows: Float[Tensor, "row d"], wanted: Bool[np.ndarray, "row latent"] | None = None
    ) -> Float[Tensor, "row latent"]:
        """Activations, zeros included, of rows in float32 on the readout's device.

        Args:
            wanted: which latents are read of which row; the others' numbers mean nothing. None: all of every row.
        """
        loop = self.loop(wanted) if is_looped(rows) else None
        if isinstance(loop, FewLatents):
            return loop(self._normalised(rows), wanted)
        if self.few is not None:
            return _activations(self.few, self._centred(rows))
        if loop is None:
            return self._of_all(rows)
        found, is_open = loop(self._normalised(rows), wanted)
        if is_open.any():
            found[is_open] = self._of_all(rows[is_open])
        return found

    def _of_all(self, rows: Tensor) -> Tensor:
        """From all encoder rows, with torch's operators."""
        own = _latents(self.dictionary, self.layer)
        if own is None or not isinstance(own.nonlinearity, TopK) or len(self.latents) > _COUNTED:
            return _columns(self._encoded(rows), self.latents)
        return _kept(own, own.nonlinearity.k, self._centred(rows).to(own.W_enc.device), self.latents)

    def loop(self, wanted: Bool[np.ndarray, "row latent"] | None = None) -> LatentLoop | None:
        """The loop that reads these latents, of rows for which `is_looped` holds and which are normalised where the encoder wants
        them so; None: torch's operators read them."""
        return self._loop if is_few(len(self.latents), wanted) else None

    @property
    def normalises_rows(self) -> bool:
        """Is each row normalised by itself before it is encoded?"""
        return isinstance(self.dictionary, NormalisedAutoencoder)

    @cached_property
    def _loop(self) -> LatentLoop | None:
        own = _latents(self.dictionary, self.layer) if self.few is None else self.few
        if own is None or not is_looped(own.W_enc) or not own.W_enc.is_contiguous():
            return None
        origin = origin_of(self.dictionary)
        others = own.b_enc, own.threshold, own.b_mag, own.r_mag, origin
        if any(tensor is not None and tensor.requires_grad for tensor in others):  # a loop would cut it off
            return None
        return _looped(own, self.latents, origin)

    def _centred(self, rows: Tensor) -> Tensor:
        """Rows normalised and less the origin: what the encoder rows multiply."""
        origin, rows = origin_of(self.dictionary), self._normalised(rows)
        return rows if origin is None else rows - origin.to(rows.device)

    def _normalised(self, rows: Tensor) -> Tensor:
        return own_rows(self.dictionary, rows) if isinstance(self.dictionary, NormalisedAutoencoder) else rows

    def _encoded(self, rows: Tensor) -> SparseCodes:
        if isinstance(self.dictionary, CrossLayerTranscoder):
            own = self.dictionary.layers[self.layer]
            return own.encode(rows.to(own.W_enc.device))
        return self.dictionary.encode(rows.to(_device(self.dictionary)))


def readout(dictionary: Steerable, layer: int, latents: Sequence[int], device: torch.device) -> Readout:
    """Latents of one layer, each once, made ready to be read of rows on `device`.

    Of the dictionary as it is: where its tensors are written to, make another.
    """
    own = _latents(dictionary, layer)
    if own is None or isinstance(own.nonlinearity, TopK):
        return Readout(dictionary, layer, tuple(latents), None)
    which = torch.tensor(list(latents), device=own.W_enc.device)
    return Readout(dictionary, layer, tuple(latents), _selected(own, which, device))


def origin_of(dictionary: Steerable) -> Float[Tensor, " d"] | None:
    """What is taken off rows before they are encoded; None: nothing, or a kind that does not show it."""
    match dictionary:
        case SparseAutoencoder(b_dec=b_dec) | Crosscoder(b_dec=b_dec):
            return b_dec
        case NormalisedAutoencoder(own=own):
            return own.b_dec
        case _:
            return None


def encoder_of(dictionary: Steerable, layer: int, latent: int) -> tuple[Tensor, ...]:
    """The numbers by which an encoder reads one latent, but for TopK's other latents; none of a kind that does not show them."""
    own = _latents(dictionary, layer)
    parts = () if own is None else (own.W_enc, own.b_enc, own.threshold, own.b_mag, own.r_mag)
    found = (origin_of(dictionary), *(None if part is None else part[latent] for part in parts))
    return tuple(part for part in found if part is not None)


def width_read(dictionary: Steerable, layer: int) -> int | None:
    """Columns of the rows that a layer's encoder reads; None: of a kind that does not show its encoder."""
    own = _latents(dictionary, layer)
    return None if own is None else own.W_enc.shape[1]


def _latents(dictionary: Steerable, layer: int) -> Latents | None:
    match dictionary:
        case SparseAutoencoder() | NormalisedAutoencoder() | Transcoder() | Crosscoder():
            return dictionary.latents
        case CrossLayerTranscoder(layers=layers):
            return layers[layer]
        case _:
            return None


def _selected(own: Latents, which: Tensor, device: torch.device) -> Latents:
    def select(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[which].to(device, torch.float32)

    # BatchTopK's k is of a whole batch of all latents. What it leaves in a trained dictionary is the threshold, as JumpReLU's.
    law = JumpReLU() if isinstance(own.nonlinearity, BatchTopK) else own.nonlinearity
    parts = [select(tensor) for tensor in (own.W_enc, own.b_enc, own.W_dec, own.threshold, own.b_mag, own.r_mag)]
    return Latents(law, *parts)  # type: ignore[arg-type]  # the first three are never None


def _activations(few: Latents, centred: Tensor) -> Tensor:
    """As `Latents.encode`, dense."""
    if isinstance(few.nonlinearity, Gated):
        assert few.r_mag is not None
        assert few.b_mag is not None
        products = centred @ few.W_enc.T
        strength = products * few.r_mag.exp() + few.b_mag
        return torch.where(products + few.b_enc > 0, strength.clamp(min=0), 0.0)
    pre = torch.addmm(few.b_enc, centred, few.W_enc.T)
    match few.nonlinearity:
        case ReLU():
            return pre.clamp(min=0)
        case JumpReLU() | BatchTopK():
            assert few.threshold is not None
            return torch.where(pre > few.threshold, pre, 0.0)
        case TopK():
            raise AssertionError("TopK is never read by a few encoder rows")
        case _:
            assert_never(few.nonlinearity)


def _kept(own: Latents, k: int, centred: Tensor, latents: tuple[int, ...]) -> Tensor:
    """As TopK keeps: a latent that is positive and has fewer than k before it, larger ones and equal ones of lower number."""
    which = torch.tensor(latents, device=centred.device)
    found = []
    for part in torch.split(centred, max(1, _TILE_NUMBERS // own.n_latents)):
        pre = torch.addmm(own.b_enc, part, own.W_enc.T)
        if is_looped(pre):
            found.append(kept_of(pre, k, latents))
            continue
        mine = pre[:, which]
        counts = [_n_ahead(pre, mine[:, i : i + 1], latent) for i, latent in enumerate(latents)]
        n_ahead = counts[0] if len(counts) == 1 else torch.cat(counts, dim=1)
        found.append(torch.where((n_ahead < k) & (mine > 0), mine, 0.0))
    if len(found) == 1:
        return found[0]
    return torch.cat(found) if found else centred.new_zeros(0, len(latents))


def _n_ahead(pre: Tensor, mine: Tensor, latent: int) -> Tensor:
    """How many of each row stand before a latent whose pre-activations are `mine`, [row, 1].

    Compared and counted in float32: of truth values the sum takes thrice as long. Counts are exact to 2^24, and beyond it as far
    from every k.
    """
    lower, higher, own = pre[:, :latent].detach(), pre[:, latent + 1 :].detach(), mine.detach()
    ties, larger = (
        torch.ge(lower, own, out=torch.empty_like(lower)),
        torch.gt(higher, own, out=torch.empty_like(higher)),
    )
    return ties.sum(1, keepdim=True) + larger.sum(1, keepdim=True)


def _looped(own: Latents, latents: tuple[int, ...], origin: Tensor | None) -> LatentLoop:
    """What `_activations` and `_kept` do, for a loop. `own` is of these latents alone, of TopK all.

    One law in two forms: the formula of `FewLatents` would be six of torch's operators, where ReLU's own is two.
    """
    centre = np.zeros(own.W_enc.shape[1], np.float32) if origin is None else _numbers(origin)
    W_enc, b_enc = own.W_enc.detach().numpy(), _numbers(own.b_enc)
    zeros, ones = np.zeros_like(b_enc), np.ones_like(b_enc)
    match own.nonlinearity:
        case TopK(k=k):
            return TopLatents(W_enc, b_enc, centre, k, np.array(latents, np.int64), eight_bits_of(own.W_enc))
        case ReLU():
            coefficients, floor = (b_enc, zeros, ones, b_enc), 0.0
        case JumpReLU() | BatchTopK():
            assert own.threshold is not None
            coefficients, floor = (b_enc, _numbers(own.threshold), ones, b_enc), -math.inf
        case Gated():
            assert own.r_mag is not None
            assert own.b_mag is not None
            coefficients, floor = (b_enc, zeros, _numbers(own.r_mag.exp()), _numbers(own.b_mag)), 0.0
        case _:
            assert_never(own.nonlinearity)
    return FewLatents(W_enc, centre, np.stack(coefficients), np.float32(floor))


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _columns(codes: SparseCodes, latents: tuple[int, ...]) -> Tensor:
    place = torch.full((codes.n_latents,), -1, device=codes.latents.device)
    place[list(latents)] = torch.arange(len(latents), device=place.device)
    here = place[codes.latents]
    is_asked = here >= 0
    found = codes.values.new_zeros(codes.n_rows, len(latents))
    found[codes.rows[is_asked], here[is_asked]] = codes.values[is_asked]
    return found


def _device(dictionary: Steerable) -> torch.device:
    own = _latents(dictionary, 0)
    return dictionary.directions(torch.tensor([0])).device if own is None else own.W_enc.device  # type: ignore[union-attr]
