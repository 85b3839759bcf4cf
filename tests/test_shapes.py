"""The tests' own net: a call with a wrong shape or type is an error, wherever in the package."""

import jaxtyping
import pytest
import torch

from mohole.kernels.plain import top_k
from mohole.store.cells import Cells


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="W_enc"):
        top_k(torch.zeros(3, 4), torch.zeros(6, 5), torch.zeros(6), 2)


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="bits"):
        Cells.everything("4")  # type: ignore[arg-type]
