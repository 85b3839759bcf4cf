"""The sparse autoencoder that normalises each row by itself, such as OpenAI's of GPT-2: a dictionary for one hookpoint.

    z, (m, s) = row norm of x        f = latents of (z - b_dec)        x^ = (f W_dec + b_dec) s + m

Its weights and codes are in the row's own units, and stay so: s is another number in every row, so no weights in the model's
units compute the same. Rows go in and come out in the model's. That is why `decode` asks for the rows' units, and why this is no
`SparseAutoencoder`: what takes W_dec for model units must not be given one by chance.
"""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from mohole.config import Nonlinearity
from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.latents import Latents
from mohole.dictionary.laws import need_shape
from mohole.dictionary.row_norm import LayerNorm, RowNorm, RowUnits, normalise
from mohole.dictionary.sae import SparseAutoencoder


@dataclass(frozen=True)
class NormalisedAutoencoder:
    """A sparse autoencoder of rows in their own units, and how they come to those. Satisfies `Dictionary`."""

    own: SparseAutoencoder
    """What encodes and decodes in the rows' own units."""
    row_norm: RowNorm

    def __repr__(self) -> str:
        return f"NormalisedAutoencoder({self.own!r}, row_norm={self.row_norm!r})"

    def __post_init__(self) -> None:
        """Raises: ValueError: rows of one number, which have no standard deviation."""
        if isinstance(self.row_norm, LayerNorm) and self.d_model < 2:
            raise ValueError(f"row_norm: layer_norm of rows of {self.d_model} number; two are needed for a deviation")

    @property
    def hookpoint(self) -> str:
        return self.own.hookpoint

    @property
    def nonlinearity(self) -> Nonlinearity:
        return self.own.nonlinearity

    @property
    def latents(self) -> Latents:
        """Its encoder and decoder, in the rows' own units."""
        return self.own.latents

    @property
    def n_latents(self) -> int:
        return self.own.n_latents

    @property
    def d_model(self) -> int:
        return self.own.d_model

    def units_of(self, rows: Float[Tensor, "row d"]) -> RowUnits:
        """What `decode` needs to know of the rows that were encoded."""
        return normalise(rows, self.row_norm)[1]

    def scale_of(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row 1"]:
        """What one unit of a latent adds to each row, in lengths of its decoder row: the row's own scale."""
        return self.units_of(rows).scale

    def encode(self, rows: Float[Tensor, "row d"]) -> SparseCodes:
        """Latent activations in the rows' own units; absent means zero."""
        return self.own.encode(normalise(rows, self.row_norm)[0])

    def decode(self, codes: SparseCodes, units: RowUnits) -> Float[Tensor, "row d"]:
        """The reconstruction, in model units, of rows that have these units.

        Raises:
            ValueError: units of another number of rows.
        """
        need_shape("units.scale", units.scale, codes.n_rows, 1)
        return units.undo(self.own.decode(codes))

    def reconstruct(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """There and back, in model units."""
        own, units = normalise(rows, self.row_norm)
        return units.undo(self.own.reconstruct(own))

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Decoder rows of these latents: what one unit of each adds to a row whose own scale is 1; see `scale_of`."""
        return self.own.directions(latents)


Autoencoder = SparseAutoencoder | NormalisedAutoencoder
"""A dictionary of one hookpoint, of either kind."""


def at(dictionary: Autoencoder, hookpoint: str) -> Autoencoder:
    """The same dictionary, said to belong to another hookpoint."""
    if isinstance(dictionary, SparseAutoencoder):
        return replace(dictionary, hookpoint=hookpoint)
    return replace(dictionary, own=replace(dictionary.own, hookpoint=hookpoint))


def own_rows(dictionary: Autoencoder, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    """Rows as its encoder reads them: in model units, or in their own."""
    return rows if isinstance(dictionary, SparseAutoencoder) else normalise(rows, dictionary.row_norm)[0]
