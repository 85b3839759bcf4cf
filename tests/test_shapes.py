"""The tests' own net: a call with a wrong shape or type is an error, wherever in the package."""

from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from tests.checks import check
from torch import Tensor

from mohole.kernels.plain import top_k
from mohole.store.cells import Cells


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="W_enc"):
        top_k(torch.zeros(3, 4), torch.zeros(6, 5), torch.zeros(6), 2)


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="bits"):
        Cells.everything("4")  # type: ignore[arg-type]


def test_data_that_cannot_be_is_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="first"):
        Cells(bits=2, first=None, count=1)  # type: ignore[arg-type]

    @check
    @dataclass(frozen=True)
    class Pair:
        one: Float[Tensor, " row"]
        other: "Float[Tensor, ' row']"

    assert len(Pair(torch.ones(3), torch.ones(3)).one) == 3
    with pytest.raises(jaxtyping.TypeCheckError, match="other"):
        Pair(torch.ones(3), torch.ones(4))


def test_a_name_is_one_length_in_a_call_with_its_answer_and_another_in_the_next() -> None:
    @check
    def cut(row: Float[Tensor, " row"], to: int) -> Float[Tensor, " row"]:
        if to > len(row):
            return cut(torch.zeros(to), to)[: len(row)]
        return row[:to]

    assert [len(cut(torch.ones(n), n)) for n in (2, 3)] == [2, 3]
    assert len(cut(torch.ones(2), 5)) == 2
    with pytest.raises(jaxtyping.TypeCheckError, match="return"):
        cut(torch.ones(3), 2)
    assert len(cut(torch.ones(4), 4)) == 4


def test_properties_and_the_methods_of_classes_are_checked() -> None:
    class Wrong:
        @check
        @property
        def width(self) -> int:
            return "4"  # type: ignore[return-value]

        @check
        @classmethod
        def of(cls, width: int) -> None: ...

        @check
        @staticmethod
        def measure(width: int | None = None) -> None: ...

    for call in (lambda: Wrong().width, lambda: Wrong.of("4"), lambda: Wrong.measure("4")):  # type: ignore[arg-type]
        with pytest.raises(jaxtyping.TypeCheckError):
            call()
    Wrong.measure()
