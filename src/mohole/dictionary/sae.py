"""The sparse autoencoder: a dictionary for one hookpoint.

    f = latents of (x - b_dec)        x^ = f W_dec + b_dec

All in the model's own units: rows go in as the model makes them, and one unit of f adds one decoder row. Those that mohole
trains with `decoder = "unit"` have length 1. Shapes: W_enc [latent, d], W_dec [latent, d].
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from mohole.config import Nonlinearity
from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.latents import OPTIONAL, Latents
from mohole.dictionary.laws import need_name, need_shape


@dataclass(frozen=True)
class SparseAutoencoder:
    """A trained sparse autoencoder. Satisfies `Dictionary`."""

    hookpoint: str
    nonlinearity: Nonlinearity
    W_enc: Float[Tensor, "latent d"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d"]
    b_dec: Float[Tensor, " d"]
    threshold: Float[Tensor, " latent"] | None = None
    b_mag: Float[Tensor, " latent"] | None = None
    r_mag: Float[Tensor, " latent"] | None = None

    def __repr__(self) -> str:
        sizes = f"n_latents={self.n_latents}, d_model={self.d_model}"
        return f"SparseAutoencoder(hookpoint={self.hookpoint!r}, {sizes}, nonlinearity={self.nonlinearity!r})"

    def __post_init__(self) -> None:
        """Raises: ValueError: tensors that do not fit the nonlinearity or each other, or a hookpoint that is no text."""
        need_name("hookpoint", self.hookpoint)
        own = self.latents
        need_shape("W_dec", own.W_dec, *own.W_enc.shape)
        need_shape("b_dec", self.b_dec, self.d_model)

    @property
    def latents(self) -> Latents:
        """Its encoder and decoder."""
        optional = {name: getattr(self, name) for name in OPTIONAL}
        return Latents(self.nonlinearity, self.W_enc, self.b_enc, self.W_dec, **optional)

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_model(self) -> int:
        return self.W_dec.shape[1]

    def encode(self, rows: Float[Tensor, "row d"]) -> SparseCodes:
        """Latent activations in model units; absent means zero."""
        return self.latents.encode(rows - self.b_dec)

    def decode(self, codes: SparseCodes) -> Float[Tensor, "row d"]:
        """The reconstruction, in model units."""
        return self.latents.add_to(self.b_dec.repeat(codes.n_rows, 1), codes)

    def reconstruct(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """There and back."""
        return self.decode(self.encode(rows))

    def scale_of(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row 1"]:
        """What one unit of a latent adds to each row, in lengths of its decoder row: 1, whatever the row."""
        return rows.new_ones(len(rows), 1)

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Decoder rows of these latents: what one unit of each adds."""
        return self.W_dec[latents]
