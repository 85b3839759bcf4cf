"""Features by direction, against every cosine there is."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ConfigError
from mohole.search import directions
from mohole.search.directions import by_vector


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 70), st.integers(0, 99))
def test_the_nearest_are_found_whatever_the_blocks(n: int, width: int, limit: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randint(
        -2, 3, (n, width), generator=generator
    ).float()  # small whole numbers: many ties, some rows of zeros
    vector = torch.randint(1, 4, (width,), generator=generator).float()
    lengths = decoder.norm(dim=1)
    cosines = (decoder @ (vector / vector.norm()) / torch.where(lengths > 0, lengths, 1)).tolist()
    expected = sorted(range(n), key=lambda i: (-cosines[i], i))[:limit]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directions, "_BLOCK_NUMBERS", 7 * width)
        hits = by_vector(decoder, vector, limit)
    assert [hit.score for hit in hits] == pytest.approx([cosines[i] for i in expected], abs=1e-6)
    for hit in hits:
        assert hit.score == pytest.approx(cosines[hit.latent], abs=1e-6)
    equal = [(a.latent, b.latent) for a, b in pairwise(hits) if a.score == b.score]
    assert all(a < b for a, b in equal)
    assert len({hit.latent for hit in hits}) == len(hits) == min(limit, n)


def test_length_does_not_matter_and_a_row_finds_itself() -> None:
    decoder = torch.randn(50, 8, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 51)[:, None]
    first = by_vector(decoder.bfloat16(), 1000 * decoder[17], 2)[0]
    assert first.latent == 17
    assert 0.999 < first.score <= 1


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.zeros(8), "not all 0"),
        (torch.full((8,), torch.nan), "finite"),
        (torch.ones(7), "7 numbers, where this dictionary's directions have 8"),
    ],
)
def test_what_is_no_direction_is_refused(vector: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        by_vector(torch.ones(3, 8), vector, 2)
