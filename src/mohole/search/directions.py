"""Features by direction: the decoder rows nearest to a vector. Exact, whatever the dictionary's size, in bounded memory."""

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.errors import ConfigError
from mohole.search.hits import Hit, check_limit

_BLOCK_NUMBERS = 1 << 24
"""Numbers of the decoder that are worked on at once: 64 MiB."""


@torch.no_grad()
def by_vector(decoder: Float[Tensor, "latent d"], vector: Float[Tensor, " own"], limit: int) -> list[Hit]:
    """The latents whose decoder rows have the largest cosine with `vector`, negative ones too; ties by latent.

    A row of length 0 has cosine 0. Every row is looked at: nothing is approximate but float32.

    Raises:
        ConfigError: `limit` below 1, a vector of another width, of length 0, or with a NaN or infinity in it.
    """
    check_limit(limit)
    if vector.shape != decoder.shape[1:]:
        raise ConfigError(
            f"vector: {len(vector)} numbers, where this dictionary's directions have {decoder.shape[1]}; "
            "take one of the same model and hookpoint"
        )
    query = vector.to(decoder.device, torch.float32)
    length = float(query.norm())
    if not torch.isfinite(query).all() or length == 0:
        raise ConfigError(f"vector: of length {length}; a direction needs finite numbers, not all 0")
    block = max(1, _BLOCK_NUMBERS // max(decoder.shape[1], 1))
    values, latents = query.new_zeros(0), torch.zeros(0, dtype=torch.int64)
    for start in range(0, len(decoder), block):
        rows = decoder[start : start + block].float()
        lengths = rows.norm(dim=1)
        cosines = (rows @ (query / length) / torch.where(lengths > 0, lengths, 1.0)).clamp(-1, 1)
        values = torch.cat([values, cosines])
        latents = torch.cat([latents, torch.arange(start, start + len(rows))])
        order = values.argsort(descending=True, stable=True)[:limit]  # stable: those found before have lower numbers
        values, latents = values[order], latents[order.cpu()]
    found = zip(latents.tolist(), values.tolist(), strict=True)
    return [Hit(latent, cosine, f"cosine {cosine:.3f}") for latent, cosine in found]
