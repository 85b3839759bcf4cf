"""Transcoders: dictionaries that read one hookpoint and explain another, such as what goes into an MLP and what comes out.

    f = latents of x        y^ = f W_dec + b_dec [+ x W_skip^T]        (Dunefsky et al. 2024, arXiv 2406.11944)

With W_skip, a skip transcoder (Paulo et al. 2025, arXiv 2501.18823). A cross-layer transcoder is a row of them: latents of layer
l read hookpoint l, and write to hookpoint l and all that follow (Ameisen et al. 2025, Circuit Tracing). Model units throughout.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.latents import Latents


@dataclass(frozen=True)
class Transcoder:
    """Reads `reads`, predicts `writes`."""

    reads: str
    writes: str
    latents: Latents
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None

    @property
    def n_latents(self) -> int:
        return self.latents.n_latents

    def encode(self, rows: Float[Tensor, "row d_in"]) -> SparseCodes:
        """Latent activations of what it reads; absent means zero."""
        return self.latents.encode(rows)

    def decode(self, codes: SparseCodes, rows: Float[Tensor, "row d_in"] | None = None) -> Float[Tensor, "row d_out"]:
        """What it predicts at `writes`. A skip transcoder needs the rows it read, too.

        Raises:
            ValueError: it has a skip, and there are no rows.
        """
        out = self.b_dec.repeat(codes.n_rows, 1)
        if self.W_skip is not None:
            if rows is None:
                raise ValueError("a skip transcoder's prediction needs the rows it read: decode(codes, rows)")
            out += rows @ self.W_skip.T
        return self.latents.add_to(out, codes)

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d_out"]:
        """Decoder rows of these latents: what one unit of each adds at `writes`."""
        return self.latents.W_dec[latents]


@dataclass(frozen=True)
class CrossLayerTranscoder:
    """Latents of layer l read reads[l] and write to writes[l], writes[l + 1], ...; their decoder rows stand side by side."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    layers: tuple[Latents, ...]
    b_dec: Float[Tensor, "layer d_out"]

    @property
    def n_latents(self) -> int:
        """Of all layers together."""
        return sum(layer.n_latents for layer in self.layers)

    def encode(self, rows: Float[Tensor, "layer row d_in"]) -> tuple[SparseCodes, ...]:
        """Latent activations of each layer."""
        return tuple(layer.encode(own) for layer, own in zip(self.layers, rows, strict=True))

    def decode(self, codes: tuple[SparseCodes, ...]) -> Float[Tensor, "layer row d_out"]:
        """What is predicted at each of `writes`, by its own layer's latents and those of the layers before."""
        n_layers, d_out = self.b_dec.shape
        out = self.b_dec[:, None].repeat(1, codes[0].n_rows, 1)
        for number, (layer, own) in enumerate(zip(self.layers, codes, strict=True)):
            wide = layer.add_to(out.new_zeros(own.n_rows, (n_layers - number) * d_out), own)
            out[number:] += wide.view(own.n_rows, n_layers - number, d_out).transpose(0, 1)
        return out
