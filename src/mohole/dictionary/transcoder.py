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
from mohole.dictionary.laws import need_name, need_names, need_shape


@dataclass(frozen=True)
class Transcoder:
    """Reads `reads`, predicts `writes`."""

    reads: str
    writes: str
    latents: Latents
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None

    def __repr__(self) -> str:
        ends, has_skip = f"reads={self.reads!r}, writes={self.writes!r}", self.W_skip is not None
        return f"Transcoder({ends}, latents={self.latents!r}, {has_skip=})"

    def __post_init__(self) -> None:
        """Raises: ValueError: tensors of widths that do not fit, or a hookpoint that is no text."""
        need_name("reads", self.reads)
        need_name("writes", self.writes)
        d_in, d_out = self.latents.W_enc.shape[1], self.latents.W_dec.shape[1]
        need_shape("b_dec", self.b_dec, d_out)
        if self.W_skip is not None:
            need_shape("W_skip", self.W_skip, d_out, d_in)

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

    def __repr__(self) -> str:
        return f"CrossLayerTranscoder(reads={self.reads!r}, writes={self.writes!r}, layers={self.layers!r})"

    def __post_init__(self) -> None:
        """Raises: ValueError: hookpoints that are not distinct, one for each layer; layers of different nonlinearities, or
        whose tensors do not fit."""
        need_names("reads", self.reads)
        need_names("writes", self.writes)
        n_layers = len(self.layers)
        for what, names in (("reads", self.reads), ("writes", self.writes)):
            if len(names) != n_layers:
                raise ValueError(f"{what}: {len(names)} for {n_layers} layers; each has one")
        if self.b_dec.ndim != 2:
            raise ValueError(f"b_dec: shape {list(self.b_dec.shape)}, where [layers, columns] is needed")
        d_out = self.b_dec.shape[1]
        need_shape("b_dec", self.b_dec, n_layers, d_out)
        first = self.layers[0]
        for number, layer in enumerate(self.layers):
            if layer.nonlinearity != first.nonlinearity:
                raise ValueError(f"layer {number}: {layer.nonlinearity!r}, where layer 0 has {first.nonlinearity!r}")
            where = f"layer {number}: "
            need_shape(f"{where}W_enc", layer.W_enc, layer.n_latents, first.W_enc.shape[1])
            need_shape(f"{where}W_dec", layer.W_dec, layer.n_latents, (n_layers - number) * d_out)

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
