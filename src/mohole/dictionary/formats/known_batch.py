"""`known_batch.safetensors`: rows and what the dictionary makes of them. Written beside weights, checked when they are loaded.

A wrong unit, a transposed matrix or a damaged weight changes every row. So a quarter of the rows may differ (a pre-activation
that lies on its threshold falls to either side on another machine), and no more.
"""

from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.foreign import read_weights
from mohole.dictionary.laws import fits_float32
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.errors import ArtifactError
from mohole.tensors import write_tensors

FILE = "known_batch.safetensors"
_ROWS = 16
_MOST_OFF = 0.25
_TOLERANCE = 1e-3
"""Of a row's length. Other kernels and another order of sums differ by 1e-6."""


def write_known_batch(dictionary: AnyDictionary, folder: Path) -> None:
    """Rows that make latents active, and their reconstruction."""
    rows = _rows(dictionary)
    tensors = {"rows": rows, "reconstruction": reconstruction(dictionary, rows)}
    write_tensors(folder / FILE, {name: tensor.contiguous().numpy() for name, tensor in tensors.items()})


def check_known_batch(dictionary: AnyDictionary, folder: Path) -> bool:
    """Is there a known batch, and does the dictionary make of it what is written there?

    Raises:
        ArtifactError: it does not.
    """
    if not (folder / FILE).is_file():
        return False
    known = read_weights(folder / FILE)
    is_layered = isinstance(dictionary, CrossLayerTranscoder)
    rows = known.take("rows", "L B D" if is_layered else "B D").float()
    wanted = known.take("reconstruction", "L B E" if is_layered else "B E").float()
    expected = _shape(dictionary)
    if rows.shape[-1] != expected[0] or wanted.shape[-1] != expected[1] or (is_layered and len(rows) != expected[2]):
        raise ArtifactError(
            f"{folder / FILE}: rows of {rows.shape[-1]} columns, for a dictionary of {expected[0]}; another's file"
        )
    if (share := _share_off(reconstruction(dictionary, rows), wanted)) > _MOST_OFF:
        raise ArtifactError(
            f"{folder}: {share:.0%} of the rows in {FILE} come out differently than written there: the weights or their "
            "units have changed; fetch the folder again, or delete that file if the change was meant"
        )
    return True


def check_written(dictionary: AnyDictionary, again: AnyDictionary, place: Path) -> None:
    """Does what has been read back from `place` compute what was written there?

    Raises:
        ArtifactError: it does not.
    """
    rows = _rows(dictionary)
    wanted = reconstruction(dictionary, rows)
    if not fits_float32(wanted):
        raise ArtifactError(
            f"{place}: some rows come out as NaN or infinity: its weights hold such, or are too large for float32; nothing "
            "is kept: scale them down, or ask who made it"
        )
    if (share := _share_off(reconstruction(again, rows), wanted)) > _MOST_OFF:
        raise ArtifactError(
            f"{place}: {share:.0%} of some rows come out differently once it is read again, which is a fault of mohole's; "
            "nothing is kept: report it with the dictionary"
        )


def _share_off(found: Tensor, wanted: Tensor) -> float:
    is_same = (found - wanted).norm(dim=-1) <= _TOLERANCE * wanted.norm(dim=-1).clamp(min=1e-6)
    return 1.0 - float(is_same.float().mean())  # so asked, NaN is never the same


def reconstruction(dictionary: AnyDictionary, rows: Tensor) -> Tensor:
    """What comes out for rows that go in, of every kind of dictionary."""
    match dictionary:
        case SparseAutoencoder() | Crosscoder() | CrossLayerTranscoder():
            return dictionary.decode(dictionary.encode(rows))  # type: ignore[arg-type]  # each kind decodes its own codes
        case NormalisedAutoencoder():
            return dictionary.reconstruct(rows)
        case Transcoder():
            return dictionary.decode(dictionary.encode(rows), rows)
        case _:
            assert_never(dictionary)


def _rows(dictionary: AnyDictionary) -> Tensor:
    if isinstance(dictionary, CrossLayerTranscoder):
        return torch.stack([_towards(layer.W_enc, layer.b_enc) for layer in dictionary.layers])
    if isinstance(dictionary, NormalisedAutoencoder):
        return _moved_and_scaled(_rows(dictionary.own))
    own = dictionary.latents
    rows = _towards(own.W_enc, own.b_enc)
    return rows if isinstance(dictionary, Transcoder) else rows + dictionary.b_dec


def _towards(W_enc: Tensor, b_enc: Tensor) -> Tensor:
    """Random rows, each long enough along one latent's encoder row that it is well active."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_ROWS, W_enc.shape[1], generator=generator)
    chosen = torch.randint(len(W_enc), (_ROWS,), generator=generator)
    directions, squares = W_enc[chosen], W_enc[chosen].square().sum(1, keepdim=True).clamp(min=1e-6)
    size = 4.0 * (W_enc.norm(dim=1).median() + b_enc.abs().median() + 1e-3)
    rows: Tensor = directions / squares * size + noise * size / (W_enc.shape[1] * squares).sqrt()
    return rows


def _moved_and_scaled(rows: Tensor) -> Tensor:
    """Each row by another scale, from 1/8 to 8, and shifted by half of its size: what is to be undone shows in each."""
    scales = torch.logspace(-3.0, 3.0, len(rows), base=2.0)[:, None]
    return scales * (rows + 0.5 * rows.square().mean(dim=1, keepdim=True).sqrt())


def _shape(dictionary: AnyDictionary) -> tuple[int, int, int]:
    """Columns read, columns written, layers."""
    if isinstance(dictionary, CrossLayerTranscoder):
        return dictionary.layers[0].W_enc.shape[1], dictionary.b_dec.shape[1], len(dictionary.layers)
    own = dictionary.latents
    return own.W_enc.shape[1], own.W_dec.shape[1], 1
