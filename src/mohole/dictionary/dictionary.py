"""What other stages need of a dictionary of one hookpoint. The law of all of them."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from mohole.dictionary.codes import SparseCodes


@runtime_checkable
class Dictionary(Protocol):
    """Turns rows into a few active latents and back. Rows do not affect each other: a batch may be cut anywhere."""

    @property
    def hookpoint(self) -> str: ...

    @property
    def n_latents(self) -> int: ...

    @property
    def d_model(self) -> int: ...

    def encode(self, rows: Float[Tensor, "row d"]) -> SparseCodes:
        """Latent activations in model units; absent means zero."""
        ...

    def decode(self, codes: SparseCodes) -> Float[Tensor, "row d"]:
        """The reconstruction, in model units."""
        ...

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Decoder rows of these latents: what one unit of each adds to a row."""
        ...
