"""Our formulas beside sae-bench's on the same arrays, where it is right: unit decoder rows, no bias, no small denominators.

It runs in the interpreter that MOHOLE_PEERS_PYTHON names; its large dependencies are not needed for the formulas:

    python -m venv peers && peers/bin/pip install torch numpy einops tqdm && peers/bin/pip install --no-deps sae-bench
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from mohole.metrics.absorption import absorption
from mohole.metrics.concept_removal import attribution, scr, tpp

SCRIPT = Path(__file__).resolve().parent / "peers" / "with_sae_bench.py"
pytestmark = pytest.mark.peers


def sae_bench(what: str, folder: Path, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    """What sae-bench makes of these arrays."""
    python = os.environ.get("MOHOLE_PEERS_PYTHON")
    if not python:
        pytest.skip("MOHOLE_PEERS_PYTHON names no interpreter with sae-bench (see this file's head)")
    if subprocess.run([python, "-c", "import sae_bench"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no sae-bench (see this file's head)")
    np.savez(folder / "arrays.npz", **arrays)
    command = [python, str(SCRIPT), what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(folder / "found.npz"))


def world() -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    decoder = random.normal(size=(40, 8))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    codes = np.maximum(random.normal(size=(300, 40)) - 1.2, 0) * 3
    return random, decoder, codes


def test_absorption_is_theirs_for_unit_rows_without_a_bias(tmp_path: Path) -> None:
    random, decoder, codes = world()
    direction, main = decoder[0] + 0.3 * random.normal(size=8), np.array([0])
    decoder[1] = decoder[0] + 0.5 * decoder[1]
    decoder[1] /= np.linalg.norm(decoder[1])
    codes[::3, 1] = 4.0
    rows = codes @ decoder + 0.1 * random.normal(size=(300, 8))
    theirs = sae_bench("absorption", tmp_path, rows=rows, codes=codes, decoder=decoder, direction=direction, main=main)
    ours = absorption(rows, csr_array(codes), decoder, np.zeros(8), direction, main, least_projection=0.2)
    assert 0.05 < ours.full.mean() < 0.9
    np.testing.assert_array_equal(ours.full[ours.defined], theirs["full"][ours.defined])
    np.testing.assert_allclose(ours.share[ours.defined], theirs["share"][ours.defined], atol=1e-5)


def test_scr_and_tpp_are_theirs(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    before, after, three = random.uniform(0.8, 1, 5), random.uniform(0.5, 0.9, (5, 5)), np.array([0.6, 0.8, 0.9])
    theirs = sae_bench("scr_and_tpp", tmp_path, before=before, after=after, scr=three)
    assert float(tpp(before, after)) == pytest.approx(float(theirs["tpp"]), abs=1e-9)
    assert scr(*three[:, None])[0] == pytest.approx(float(theirs["scr"]), abs=1e-9)


def test_attribution_is_theirs_in_size(tmp_path: Path) -> None:
    random, decoder, codes = world()
    decoder *= random.uniform(0.1, 5, size=(40, 1))
    positive, direction = codes[:, 3] + codes[:, 5] > 1, random.normal(size=8)
    theirs = sae_bench("attribution", tmp_path, codes=codes, decoder=decoder, positive=positive, direction=direction)
    np.testing.assert_allclose(
        np.abs(attribution(csr_array(codes), positive, decoder, direction)), theirs["effects"], rtol=1e-4, atol=1e-5
    )
