"""Growth with size, from evaluations alone: the law that was put in is found, with the interval of paired resamplings."""

from dataclasses import replace

import numpy as np
import pytest

from mohole.metrics import Masks, Measure
from mohole.report.growth import Size, growth_of

ANY = Measure(
    name="fvu", value=0.5, unit="share of variance", low=None, high=None, n=10, n_of="rows", n_documents=5,
    masks=Masks(), baseline="", definition="",
)  # fmt: skip


def sizes(*n_latents: int) -> list[Size]:
    """FVU = 0.1 + 2 n^-1/2, and as much more or less in all of them as a resampling of documents says."""
    shift = 1 + 0.02 * np.random.default_rng(0).normal(size=200)
    fvus = [0.1 + 2.0 * n**-0.5 for n in n_latents]
    measures = [replace(ANY, value=fvu, replicates=fvu * shift) for fvu in fvus]
    return [Size(f"d{n}", n, ANY, fvu, None) for n, fvu in zip(n_latents, measures, strict=True)]


def test_the_floor_is_found_whatever_the_order_and_moves_with_the_documents() -> None:
    growth = growth_of(sizes(4096, 256, 65536, 1024))
    assert growth is not None
    assert [size.n_latents for size in growth.sizes] == [256, 1024, 4096, 65536]
    floor, exponent, dark = growth.law
    assert floor.value == pytest.approx(0.1, abs=0.003)
    assert exponent.value == pytest.approx(0.5, rel=0.03)
    assert dark.value == pytest.approx(floor.value / growth.sizes[-1].fvu.value)
    assert floor.low == pytest.approx(0.1 * 0.96, abs=0.004)
    assert floor.high == pytest.approx(0.1 * 1.04, abs=0.004)
    assert dark.high - dark.low < 0.01, "what scales all of them scales no share"
    assert growth.steps == (), "no weights, nothing said of them"


def test_three_sizes_have_no_law_and_one_size_does_not_grow() -> None:
    three = growth_of(sizes(256, 1024, 4096))
    assert three is not None
    assert all(measure.value is None and "3 numbers of latents" in measure.undefined for measure in three.law)
    assert growth_of([*sizes(256), *sizes(256)]) is None
