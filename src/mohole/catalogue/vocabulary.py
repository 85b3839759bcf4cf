"""What a latent's direction says about the next token: vocabulary entries it promotes and suppresses, by the logit lens."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.dictionary import Dictionary

_BATCH_LATENTS = 256
_OFF_STREAM = (
    "mlp_in.",
    "z.",
)  # rows here are what the MLP or the output projection reads, not what is added to the stream


@runtime_checkable
class Unembedding(Protocol):
    """What the catalogue needs of a model."""

    def unembed(self, rows: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """Vocabulary logits of residual-stream rows: final norm and unembedding."""
        ...


def lens(model: Unembedding, directions: Float[Tensor, "latent d"]) -> Float[Tensor, "latent vocab"]:
    """Logits of a stream that is nothing but this direction, less those of an empty stream.

        lens(d) = unembed(sqrt(D) d / |d|) - unembed(0)

    The direct effect only: layers in between are left out. In logits; the final norm fixes the scale, so neither the latent's
    activation nor the size of the stream enters, and a model without a final norm is read at root mean square 1. Nor does the
    direction's own length, which a dictionary with free decoder rows may put anywhere: the norm's epsilon would feel a short one.
    """
    width = directions.shape[1]
    empty = model.unembed(torch.zeros(1, width)).float()
    units = torch.nn.functional.normalize(directions.float(), dim=1, eps=torch.finfo(torch.float32).tiny)
    return model.unembed(units * width**0.5).float() - empty


@torch.no_grad()
def promoted_and_suppressed(
    model: Unembedding, dictionary: Dictionary, seen: NDArray[np.int64], n: int, *, first: int, last: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The n most promoted, then the n most suppressed entries of latents [first, last): ids and logits, [latent, 2n].

    Strongest first.

    Only entries in `seen` (the corpus's own tokens) take part: unused entries and byte fallbacks have arbitrary directions and
    otherwise head the lists. Logits are centred on the mean over `seen`, since a softmax ignores what all entries share.
    Places that cannot be filled have id -1: a small vocabulary, or a hookpoint outside the stream (`mlp_in`, `z`).
    """
    ids = np.full((last - first, 2 * n), -1, dtype=np.int32)
    logits = np.zeros((last - first, 2 * n), dtype=np.float32)
    filled = min(n, len(seen) // 2)
    if filled == 0 or dictionary.hookpoint.startswith(_OFF_STREAM):
        return ids, logits
    listed = torch.from_numpy(seen)
    for start in range(0, last - first, _BATCH_LATENTS):
        latents = torch.arange(first + start, min(first + start + _BATCH_LATENTS, last))
        effect = lens(model, dictionary.directions(latents)).cpu()[:, listed]
        effect = effect - effect.mean(1, keepdim=True)
        for column, largest in ((0, True), (n, False)):
            values, places = effect.topk(filled, dim=1, largest=largest)
            ids[start : start + len(latents), column : column + filled] = listed[places].numpy()
            logits[start : start + len(latents), column : column + filled] = values.numpy()
    return ids, logits
