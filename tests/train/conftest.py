"""Stores of rows whose dictionary is known: sparse sums of unit directions around a centre."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mohole.store import Documents, Store, write_store

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
        name: str = "store",
        **settings: Any,
    ) -> Store:
        """Every token is a document of its own; those without a row are held out."""
        token = np.arange(len(rows)) if tokens is None else tokens
        mask = np.ones(token.max() + 1, dtype=bool)
        mask[token] = False if held_out is None else held_out
        documents = Documents(np.arange(len(mask) + 1), mask)
        write_store(tmp_path / name, {HOOKPOINT: rows}, documents, tokens=token, dtype="float32", **settings)
        return Store.open(tmp_path / name)

    return make
