"""Stores of rows whose dictionary is known: sparse sums of unit directions around a centre."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mohole import artifact
from mohole.store import Store, StoreWriter

HOOKPOINT = "resid_post.1"


@dataclass(frozen=True)
class Planted:
    directions: np.ndarray
    rows: np.ndarray


def planted(n_rows: int, *, d: int = 24, n_directions: int = 48, active: int = 3, seed: int = 0) -> Planted:
    """Rows that are each a sum of `active` distinct directions with strengths in [1, 2), around a centre."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(n_directions, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    centre = random.normal(size=d)
    chosen = random.random((n_rows, n_directions)).argpartition(active, axis=1)[:, :active]
    strengths = random.uniform(1, 2, (n_rows, active))
    rows = np.einsum("bk,bkd->bd", strengths, directions[chosen]) + centre
    return Planted(directions, rows.astype(np.float32))


@pytest.fixture(name="planted", scope="session")
def planted_fixture() -> Callable[..., Planted]:
    return planted


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    def make(
        rows: np.ndarray,
        *,
        held_out: np.ndarray | None = None,
        tokens: np.ndarray | None = None,
        kind: str = "shuffled",
        name: str = "store",
    ) -> Store:
        n = len(rows)
        mask = np.zeros(n, dtype=bool) if held_out is None else held_out
        token = np.arange(n) if tokens is None else tokens
        with (
            artifact.create(tmp_path / name, artifact.Inputs(kind=kind, config={}, seed=0)) as draft,
            StoreWriter(draft, token, mask, {HOOKPOINT: rows.shape[1]}, "float32") as writer,
        ):
            writer.write(HOOKPOINT, 0, rows)
        return Store.open(tmp_path / name)

    return make
