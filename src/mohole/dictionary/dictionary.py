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
        """Latent activations; absent means zero."""
        ...

    def reconstruct(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """There and back, in model units. There is no `decode` here: codes alone may not be enough to come back from."""
        ...

    def scale_of(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row 1"]:
        """How far one unit of any latent moves each row along its direction: 1, or the row's own scale."""
        ...

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Decoder rows of these latents: what one unit of each adds to a row, times the row's `scale_of`."""
        ...
