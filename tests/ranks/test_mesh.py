"""What ranks do together: sums, joined tensors, and the codes that are kept when latents or rows are spread."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.ranks.processes import Found, Processes

from mohole.kernels import plain
from mohole.kernels.pairs import Pairs
from mohole.parallel import Mesh, joined, total_of
from mohole.train.spread import pairs_of_all, strongest_of_batch, strongest_of_rows

SHAPES = [(1, 1), (3, 1), (2, 2)]
N_LATENTS, N_ROWS, K = 37, 24, 5


def rows_and_weights(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Small whole numbers tie all the time; one latent of each row in float64 never does; most readings are negative."""
    generator = torch.Generator().manual_seed(1)
    if kind == "ties":
        rows = torch.randint(-1, 2, (N_ROWS, 4), generator=generator).float()
        return rows, torch.randint(-1, 2, (N_LATENTS, 4), generator=generator).float()
    dtype = torch.float64 if kind == "double" else torch.float32
    rows = torch.randn(N_ROWS, 6, generator=generator, dtype=dtype)
    W_enc = torch.randn(N_LATENTS, 6, generator=generator, dtype=dtype)
    if kind == "few":
        rows, W_enc = rows.abs(), -W_enc.abs()
        W_enc[7::10] *= -1
    return rows, W_enc


KINDS = ["ties", "double", "single", "few"]


def look(mesh: Mesh) -> dict[str, Any]:
    """Everything one rank finds."""
    place = 10 * mesh.latent.rank + mesh.data.rank
    found: dict[str, Any] = {
        "total": mesh.total(torch.tensor([1.0, float(place)])),
        "sizes": (mesh.latent.size, mesh.data.size),
        "number": total_of(0.5 + place, mesh.latent, mesh.data),
        # A rank has as many rows as its number: the first one has none.
        "joined": mesh.joined(torch.full((place, 2), place)),
        "along 1": joined(mesh.data, torch.full((3, 1 + mesh.data.rank), mesh.data.rank), 1),
        "own": list(mesh.own_latents(N_LATENTS)),
    }
    for kind in KINDS:
        rows, W_enc = rows_and_weights(kind)
        own = mesh.own_latents(N_LATENTS)
        mine = len(rows) // mesh.data.size
        rows, W_enc = rows[mine * mesh.data.rank :][:mine], W_enc[own.start : own.stop]
        b_enc, n = torch.zeros_like(W_enc[:, 0]), K * N_ROWS
        by_row = strongest_of_rows(plain.top_k(rows, W_enc, b_enc, K), K, mesh.latent)
        by_batch = strongest_of_batch(plain.batch_top(rows, W_enc, b_enc, n), n, mesh)
        found[kind] = [(pairs_of_all(pairs, mesh.data), own.start) for pairs in (by_row, by_batch)]
    return found


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def seen(request: pytest.FixtureRequest, ranks: Processes) -> Found:
    return ranks.on_mesh(look, *request.param)


def test_sums_and_joined_tensors_are_those_of_all_ranks(seen: Found) -> None:
    places = [10 * latent + data for data, latent in sorted((data, latent) for latent, data in seen)]
    n_latent, n_data = max(seen)[0] + 1, max(data for _, data in seen) + 1
    for (_, data), found in seen.items():
        assert found["sizes"] == (n_latent, n_data)
        assert found["total"].tolist() == [len(places), sum(places)]
        assert found["number"] == 0.5 * len(places) + sum(places)
        assert found["joined"].tolist() == [[place] * 2 for place in places for _ in range(place)]
        assert found["along 1"].tolist() == [[rank for rank in range(n_data) for _ in range(1 + rank)]] * 3
        own = sorted(latent for (_, other), each in seen.items() if other == data for latent in each["own"])
        assert own == list(range(N_LATENTS))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 1], ids=["by row", "by batch"])
def test_the_codes_kept_are_those_that_one_rank_keeps(seen: Found, kind: str, number: int) -> None:
    rows, W_enc = rows_and_weights(kind)
    b_enc = torch.zeros_like(W_enc[:, 0])
    keep = plain.top_k(rows, W_enc, b_enc, K) if number == 0 else plain.batch_top(rows, W_enc, b_enc, K * N_ROWS)
    expected = list(zip(keep.rows.tolist(), keep.latents.tolist(), strict=True))
    assert len(expected) < K * N_ROWS if kind == "few" else len(expected) > 0.8 * K * N_ROWS
    for rank in range(max(data for _, data in seen) + 1):
        found = []
        for (_, data), each in seen.items():
            if data == rank:
                pairs, first = each[kind][number]
                assert isinstance(pairs, Pairs)
                found += list(zip(pairs.rows.tolist(), (pairs.latents + first).tolist(), strict=True))
        assert sorted(found) == expected


def test_nobody_else_talks_to_other_ranks() -> None:
    source = Path(plain.__file__).parents[1]
    talking = [file for file in source.rglob("*.py") if "torch.distributed" in file.read_text(encoding="utf-8")]
    assert {file.parent.name for file in talking} == {"parallel"}
