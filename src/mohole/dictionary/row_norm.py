"""What some dictionaries do to each row by itself before they encode it, and undo after they decode. Formulas only, no weights.

No constant is in it, so it cannot be folded into weights, and nothing can be decoded without knowing the row: what a row's own
unit is stands in `RowUnits`, which `NormalisedAutoencoder.decode` asks for. A dictionary without any of this is another class.
"""

import math
from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LayerNorm:
    """Each row less its own mean, over its own standard deviation. Codes do not change when a row is scaled or shifted.

        m = mean of x    s = sqrt(sum (x - m)^2 / (d - 1))    z = (x - m) / (s + eps)    x^ = z^ s + m

    eps is added to s on the way in and is left out on the way back, as both sources have it; so even a perfect z^ comes back too
    short, by the share eps / (s + eps) of s. A row of d equal numbers has s = 0: its z is 0, its x^ the row itself whatever the
    codes, and no latent can move it.
    Source: openai/sparse_autoencoder, model.py (LN); SAELens 6.54, saes/sae.py (layer_norm). Both take torch.std's d - 1.
    """

    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Raises: ValueError: an eps that is not above zero, without which a row of equal numbers is divided by zero."""
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps: {self.eps!r}; a number above 0 is needed")


@dataclass(frozen=True)
class LengthNorm:
    """Each row over its own length, times sqrt(d). Codes do not change when a row is scaled.

        s = |x| / sqrt(d)    z = x / s    x^ = z^ s

    The zero row has s = 0. Its z is taken to be 0, so its x^ is the row itself and no latent can move it; the sources divide by
    zero there and give NaN.
    Source: SAELens 6.54, saes/sae.py (constant_norm_rescale); llamascopium, models/sparse_dictionary.py (token-wise).
    """


RowNorm = LayerNorm | LengthNorm


@dataclass(frozen=True)
class RowUnits:
    """Where each row's own zero lies, and how long its own unit is: one unit of a latent adds `scale` times its decoder row."""

    origin: Float[Tensor, "row 1"]
    """In model units, the same for every column."""
    scale: Float[Tensor, "row 1"]
    """Model units in one of the row's own."""

    def undo(self, own: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """From the rows' own units to the model's."""
        return own * self.scale + self.origin


def normalise(rows: Float[Tensor, "row d"], by: RowNorm) -> tuple[Float[Tensor, "row d"], RowUnits]:
    """(the rows in their own units, those units). Sums are made in float64 and rounded once: a row is the same in any batch."""
    exact = rows.double()
    match by:
        case LayerNorm(eps=eps):
            origin = exact.mean(dim=1, keepdim=True)
            own = exact - origin
            scale = own.square().sum(dim=1, keepdim=True).div(rows.shape[1] - 1).sqrt()
            own = own / (scale + eps)
        case LengthNorm():
            scale = exact.norm(dim=1, keepdim=True) / math.sqrt(rows.shape[1])
            origin = torch.zeros_like(scale)
            own = exact / torch.where(scale > 0, scale, 1.0)
        case _:
            assert_never(by)
    return own.to(rows.dtype), RowUnits(origin.to(rows.dtype), scale.to(rows.dtype))
