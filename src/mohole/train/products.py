"""What rows and encoder are multiplied as to find codes: the numbers as they are, or rounded to bfloat16."""

from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels import plain

Products = Literal["float32", "bfloat16"]


def multiplied(
    read: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], products: Products, kernels: ModuleType = plain
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "L D"]]:
    """Rows and encoder as `kernels` multiply them. `bfloat16`: each number rounded to the nearest of 8 bits.

    A product of two such numbers is exact in float32, so kernels that multiply 16-bit numbers and those that are given the same
    numbers in 32 bits find the same codes, up to the order of sums.
    """
    if products == "float32":
        return read, W_enc
    kind = torch.bfloat16 if kernels.MULTIPLIES_BFLOAT16 else read.dtype
    return read.bfloat16().to(kind), W_enc.bfloat16().to(kind)
