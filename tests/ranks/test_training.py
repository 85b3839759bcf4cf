"""A dictionary whose latents and rows are spread over ranks is the one that a single rank learns, by the same trainer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from tests.ranks.processes import Found, Processes
from tests.train.courses import CASES, ONE, TILES, course

from mohole.config import Train
from mohole.parallel import ALONE, Mesh
from mohole.train import objective
from mohole.train.trainer import Trainer


def single(mesh: Mesh) -> dict[str, Any]:
    """Every case in float32."""
    return {name: course(mesh, name) for name in CASES}


def double(mesh: Mesh) -> dict[str, Any]:
    """Every case in float64, where the order of sums does not matter; those with thresholds also in tiles."""
    found = {name: course(mesh, name, dtype=torch.float64) for name in CASES}
    return found | {f"{name}, tiles": course(mesh, name, dtype=torch.float64, tiles=True) for name in TILES}


@pytest.fixture(scope="module")
def alone() -> Iterator[dict[Any, Any]]:
    """Of both, what one rank learns. Shapes are checked by other tests: here they would take most of the time."""
    share = objective.DENSE_SHARE
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield {work: work(Mesh()) for work in (single, double)}
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
        objective.DENSE_SHARE = share


@pytest.fixture(scope="module")
def in_rows(ranks: Processes) -> Found:
    return ranks.on_mesh(single, 1, 2)


@pytest.fixture(scope="module")
def in_both(ranks: Processes) -> Found:
    return ranks.on_mesh(double, 2, 2)


@pytest.mark.parametrize("name", CASES)
def test_ranks_that_share_rows_learn_the_same_bits(name: str, alone: dict[Any, Any], in_rows: Found) -> None:
    expected = alone[single][name]
    for courses in in_rows.values():
        found = courses[name]
        # Reported losses are sums of each rank's sum: their last bit is the order's. What is learned is the same to the bit.
        assert np.allclose(found["losses"], expected["losses"], rtol=1e-14, atol=0)
        assert all(torch.equal(found["tensors"][each], tensor) for each, tensor in expected["tensors"].items())
        assert torch.equal(found["n_active"], expected["n_active"])
        assert torch.equal(found["largest"], expected["largest"])


@pytest.mark.parametrize("name", [*CASES, *(f"{name}, tiles" for name in TILES)])
def test_ranks_that_share_rows_and_latents_learn_the_same(name: str, alone: dict[Any, Any], in_both: Found) -> None:
    expected = alone[double][name]
    for courses in in_both.values():
        found = courses[name]
        torch.testing.assert_close(
            torch.tensor(found["losses"]), torch.tensor(expected["losses"]), rtol=1e-7, atol=1e-9
        )
        for line, other in zip(found["lines"], expected["lines"], strict=True):
            assert line == pytest.approx(other, rel=1e-5, abs=1e-9)
        assert found["tensors"].keys() == expected["tensors"].keys()
        for each, tensor in expected["tensors"].items():
            torch.testing.assert_close(found["tensors"][each], tensor, rtol=1e-6, atol=1e-8, msg=each)


def test_every_rank_has_the_same_dictionary(in_both: Found) -> None:
    first, *others = in_both.values()
    for other in others:
        for name in first:
            for each, tensor in first[name]["tensors"].items():
                assert torch.equal(tensor, other[name]["tensors"][each]), f"{name}: {each}"


def test_the_cases_are_what_they_say(alone: dict[Any, Any]) -> None:
    lines = {name: course["lines"] for name, course in alone[double].items()}
    assert lines["topk, AuxK"][-1]["auxk_loss"] > 0
    assert lines["topk, AuxK"][-1]["dead"] > 3
    assert lines["topk, AuxK"][-1]["grad_norm"] > 0.3  # clipped
    assert lines["jumprelu, pull"][-1]["pre_act_loss"] != 0
    assert lines["relu, l1, free"][-1]["sparsity_loss"] > 0
    assert lines["gated"][-1]["gate_loss"] > 0
    assert lines["resampled"][-1]["resampled"] >= 12


def test_rows_that_cannot_be_shared_are_refused() -> None:
    settings = Train(n_latents=20, batch_rows=32, steps=3)
    rows = torch.randn(64, 12)
    three = replace(ALONE, size=3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="32 rows cannot be shared by 3 ranks"):
        Trainer.start(settings, rows, rows, ONE, ONE, seed=0, mesh=Mesh(data=three))
