"""Where a latent of any kind of dictionary is read, and what one unit of it adds where."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.dictionary import Crosscoder, CrossLayerTranscoder, Transcoder
from mohole.dictionary.readout import Steerable, name_of
from mohole.errors import ConfigError
from mohole.model.hookpoints import parse_hookpoint


@dataclass(frozen=True)
class Place:
    """Where one latent is read, and what one unit of it adds where."""

    reads: tuple[str, ...]
    """Rows of these, side by side, are what its encoder takes."""
    layer: int
    """Of a cross-layer transcoder; 0 of all others."""
    latent: int
    """Its number in that layer."""
    writes: tuple[tuple[str, Float[Tensor, " d"]], ...]


def place_of(dictionary: Steerable, latent: int) -> Place:
    """Where a latent is read and written.

    A crosscoder's latents are known only where the last of its hookpoints has run. Writing earlier would be writing into the
    past, and writing at all of them would count what the stream carries on twice: so they are written at the last alone.
    A cross-layer transcoder's are counted through all layers, layer 0's first.

    Raises:
        ConfigError: it has no latent of this number.
    """
    if not 0 <= latent < dictionary.n_latents:
        raise ConfigError(
            f"latent {latent}: the dictionary at {name_of(dictionary)} has latents 0 to {dictionary.n_latents - 1}"
        )
    match dictionary:
        case Transcoder(reads=reads, writes=writes, latents=latents):
            return Place((reads,), 0, latent, ((writes, latents.W_dec[latent]),))
        case Crosscoder(hookpoints=hookpoints, widths=widths, latents=latents):
            parts = dict(zip(hookpoints, torch.split(latents.W_dec[latent], list(widths)), strict=True))
            last = max(hookpoints, key=lambda name: parse_hookpoint(name).execution)
            return Place(hookpoints, 0, latent, ((last, parts[last]),))
        case CrossLayerTranscoder(reads=many, writes=targets, layers=layers):
            number = 0
            while latent >= layers[number].n_latents:
                latent, number = latent - layers[number].n_latents, number + 1
            parts_of = layers[number].W_dec[latent].view(len(targets) - number, -1)
            return Place((many[number],), number, latent, tuple(zip(targets[number:], parts_of, strict=True)))
        case _:
            (direction,) = dictionary.directions(torch.tensor([latent]))
            return Place((dictionary.hookpoint,), 0, latent, ((dictionary.hookpoint, direction),))
