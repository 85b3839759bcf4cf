"""What every dictionary keeps to, whoever made it: tensors that fit each other, k, names, numbers. No files.

The kernels trust shapes: a bias one number short is memory read behind its end, a decoder too wide is memory written there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mohole.config import BatchTopK, Nonlinearity, TopK
from mohole.visible import visible

_LARGEST = float(torch.finfo(torch.float32).max)


def need_shape(name: str, tensor: Tensor, *shape: int) -> None:
    """Raises: ValueError: the tensor has another shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: shape {list(tensor.shape)}, where {list(shape)} is needed")


def need_k(nonlinearity: Nonlinearity, n_latents: int) -> None:
    """Raises: ValueError: more latents are kept than there are."""
    if isinstance(nonlinearity, TopK | BatchTopK) and nonlinearity.k > n_latents:
        raise ValueError(f"k: {nonlinearity.k} is more than its {n_latents} latents")


def need_names(what: str, names: Sequence[str]) -> None:
    """Raises: ValueError: no hookpoint, one that is named twice, or one that is no text."""
    if not names:
        raise ValueError(f"{what}: none; at least one is needed")
    for number, name in enumerate(names):
        need_name(what, name)
        if name in names[:number]:
            raise ValueError(f"{what}: {visible(name)[:80]} is named twice; each hookpoint has a part of its own")


def need_name(what: str, name: str) -> None:
    """Raises: ValueError: no text, or one that UTF-8, and so a file, cannot hold."""
    if not is_text(name):
        raise ValueError(f"{what}: {name!r:.80}; a text is needed")


def is_text(value: object) -> bool:
    """A text that UTF-8 can hold: without half a surrogate pair, which JSON and command lines can bring.

    >>> is_text("金门"), is_text("\\ud800"), is_text(5)
    (True, False, False)
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def fits_float32(tensor: Tensor) -> bool:
    """Is every number finite, and will it still be in float32? In one pass and without a copy; of nothing, true."""
    if tensor.numel() == 0:
        return True
    least, most = (float(end) for end in torch.aminmax(tensor.detach()))
    return least >= -_LARGEST and most <= _LARGEST  # NaN is passed on by aminmax, and keeps to neither bound
