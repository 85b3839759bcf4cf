"""Guards that look at numbers: each is silent up to its bound and speaks beyond it, of the latents and shares it saw."""

from collections.abc import Mapping

import pytest

from mohole.evaluate.guards.numbers import unexplained
from mohole.evaluate.results import DarkMatter, DenseLatent
from mohole.metrics import Masks, Measure


def share(value: float | None) -> Mapping[str, Measure]:
    undefined = "" if value is not None else "the counted rows have no variance"
    measure = Measure(
        name="outlier_variance",
        value=value,
        unit="share of variance",
        low=None,
        high=None,
        n=100,
        n_of="rows",
        n_documents=9,
        masks=Masks(),
        baseline="",
        definition="",
        undefined=undefined,
    )
    return {"outlier_variance": measure}


def said(value: float | None, *cosines: float | None) -> dict[str, str]:
    dense = tuple(DenseLatent(latent, 0.5, cosine) for latent, cosine in enumerate(cosines))
    return {caution.name: caution.sentence for caution in unexplained(share(value), DarkMatter(100, (), dense))}


def test_few_rows_that_hold_most_of_the_variance_are_told() -> None:
    assert said(0.5) == {}
    assert said(None) == {}
    assert "holds 51% of the variance" in said(0.51)["few_rows"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_dense_latents_along_the_mean_are_told_either_way_up(sign: float) -> None:
    assert said(0.0, 0.8 * sign, None, 0.1) == {}
    found = said(0.0, 0.1, 0.81 * sign, None, 0.9 * sign)
    assert found["mean_leakage"].startswith("2 dense latents (1, 3) point along the mean row")
