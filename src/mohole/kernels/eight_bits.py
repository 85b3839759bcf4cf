"""Encoder rows in eight bits each, and how far a product with them may lie from the exact one: for loops that wait for memory.

    |c . w - c . w~|  <=  |c| |w - w~|        (Cauchy-Schwarz; w~ is what was rounded: a code times its latent's unit)

Where that, and what sums may lose, does not decide a comparison, the encoder row itself does. So nothing that is decided is
rounded; a quarter of the memory is read, and of the rows themselves about one in two hundred.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int8
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

_LEAST_NUMBERS = 1 << 16
"""Smaller encoders are read from the caches as fast as codes are, and codes leave some in doubt: 49 thousand numbers (768 latents
of 64 columns) took 85 microseconds for 64 rows, their codes 140; of 131 thousand, both cost the same."""


@dataclass(frozen=True, eq=False)
class EightBits:
    """Encoder rows w~ = codes * units. Of none: an encoder that is not rounded."""

    codes: Int8[np.ndarray, "L D"]
    units: Float[np.ndarray, " L"]
    errors: Float[np.ndarray, " L"]
    """How far products with w and w~, both as float32 sums, may lie from each other, for each unit of the other's length."""


NOT_ROUNDED = EightBits(np.zeros((0, 0), np.int8), np.zeros(0, np.float32), np.zeros(0, np.float32))


def rounded(W_enc: Float[np.ndarray, "L D"]) -> EightBits:
    """Each row in units of a 127th of its largest number. A row that is not finite has an error that is not, either."""
    from mohole.kernels import cpu, top_loops  # numba takes 0.3 s to import

    n = len(W_enc)
    found = EightBits(np.empty(W_enc.shape, np.int8), np.empty(n, np.float32), np.empty(n, np.float32))
    cpu.over(n, top_loops.round_rows, W_enc, found.codes, found.units, found.errors)
    return found


def eight_bits_of(W_enc: Float[Tensor, "L D"]) -> EightBits:
    """`rounded`, made once for an encoder on the CPU and kept as long as the tensor lives and nobody writes to it.

    torch does not count what is written through a numpy array of the same memory, or to `W_enc.data`: it is not seen.
    `NOT_ROUNDED` for a small one, and for one that does not count how often it was written to, as those made under
    `torch.inference_mode`.
    """
    if W_enc.numel() < _LEAST_NUMBERS or W_enc.is_inference():
        return NOT_ROUNDED
    # Other numbers may be given the memory of those that were freed: an address alone does not say whose it is.
    memory = StorageWeakRef(W_enc.untyped_storage())  # type: ignore[no-untyped-call]
    state = W_enc._version, memory, W_enc.data_ptr(), W_enc.shape
    if W_enc not in _KEPT or _KEPT[W_enc][0] != state:
        _KEPT[W_enc] = state, rounded(W_enc.detach().numpy())
    return _KEPT[W_enc][1]


_KEPT: MutableMapping[Tensor, tuple[object, EightBits]] = WeakTensorKeyDictionary()
