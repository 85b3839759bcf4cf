"""What active latents cost, and the slope of that: one formula for kept pairs and for whole tiles."""

from dataclasses import dataclass
from typing import assert_never

from jaxtyping import Float
from torch import Tensor

from mohole.config import L0, L1, Tanh
from mohole.config.train import Sparsity


@dataclass(frozen=True)
class Priced:
    """The price of some activations, weight left out."""

    total: Float[Tensor, "..."]
    """Of each."""
    d_values: Float[Tensor, "..."] | float | None
    """Slope in the activation; a number where it is the same for all. None: being active costs one, whatever the value."""
    d_lengths: Float[Tensor, "..."] | None
    """Slope in the length of the decoder row."""


def priced(penalty: Sparsity, values: Float[Tensor, "..."], lengths: Float[Tensor, "..."] | None) -> Priced:
    """The penalty of activations, zeros where nothing is active.

    Args:
        lengths: of each entry's decoder row. None: all are one.
    """
    match penalty:
        case L1():
            if lengths is None:
                return Priced(values, 1.0, values)
            return Priced(values * lengths, lengths, values)
        case L0():
            return Priced((values > 0).to(values.dtype), None, None)
        case Tanh(scale=scale):
            total = (scale * values * (1.0 if lengths is None else lengths)).tanh()
            slope = scale * (1.0 - total.square())
            return Priced(total, slope if lengths is None else slope * lengths, slope * values)
        case _:
            assert_never(penalty)
