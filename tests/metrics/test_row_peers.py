"""Where another library computes the same quantity rightly, it finds our number; where it differs, the known answer is ours.

Each runs in the interpreter that MOHOLE_PEERS_PYTHON names; how to make one is said in tests/dictionary/test_peers.py.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mohole.metrics import (
    CentredRows,
    DocumentFiring,
    Firing,
    MeanRow,
    Reconstruction,
    hungarian,
    l1_by_row,
    paired_cosine,
    row_norms,
)
from mohole.metrics.known_answers.coded import coded

ALL = np.ones((1, 32))
CONTEXT = 16
pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def given() -> dict[str, torch.Tensor]:
    """512 rows of 32 documents with a mean, codes, an output with an offset of its own, and two decoders alike but mixed."""
    random = torch.Generator().manual_seed(0)
    n, d, latents = 512, 16, 32
    codes = (torch.randn(n, latents, generator=random) - 1).clamp(min=0)
    decoder = torch.randn(latents, d, generator=random)
    rows = codes @ decoder + 3.0 + 0.3 * torch.randn(n, d, generator=random)
    return {
        "rows": rows,
        "codes": codes,
        "out": 0.9 * codes @ decoder + 3.5,
        "encoder": decoder + 0.5 * torch.randn(latents, d, generator=random),
        "decoder": decoder,
        "other": (decoder + 0.1 * torch.randn(latents, d, generator=random)).flip(0),
    }


@pytest.fixture(scope="module")
def sums(given: dict[str, torch.Tensor]) -> Reconstruction:
    return rebuilt(given["rows"], given["out"])


def rebuilt(rows: torch.Tensor, output: torch.Tensor) -> Reconstruction:
    sums = Reconstruction()
    sums.add(rows, output, np.arange(len(rows)) // CONTEXT)
    return sums


def ask(library: str, given: dict[str, torch.Tensor], place: Path) -> dict[str, Any]:
    python = os.environ.get("MOHOLE_PEERS_PYTHON")
    if not python:
        pytest.skip("MOHOLE_PEERS_PYTHON names no interpreter with the other libraries (see this file's head)")
    save_file(given, place / "given.safetensors")
    script = Path(__file__).resolve().parent / "peers" / "measure.py"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [python, str(script), library, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((place / f"{library}.json").read_text()))


def agree(found: dict[str, Any], ours: dict[str, Any]) -> None:
    for name, value in ours.items():
        assert found[name] == pytest.approx(np.asarray(value).tolist(), rel=1e-4, nan_ok=True), name


def test_saelens(given: dict[str, torch.Tensor], sums: Reconstruction, tmp_path: Path) -> None:
    found = ask("saelens", given, tmp_path)
    codes, documents = coded(given["codes"]), np.arange(512) // CONTEXT
    places, firing = DocumentFiring(32), Firing(32)
    places.add(codes, documents)
    firing.add(codes.latents, codes.values, 512)
    ours = {
        "explained_variance": 1 - sums.fvu(ALL)[0],
        "mse": sums.mse(ALL)[0],
        "cossim": sums.cosine(ALL)[0],
        "l2_ratio": sums.length_ratio(ALL)[0],
        "l0": firing.l0,
        "l1": l1_by_row(codes).mean(),
        "feature_density": firing.counts / firing.n_rows,
        "consistent_activation_heuristic": places.consistency,
        "encoder_norm": row_norms(given["encoder"]),
        "encoder_decoder_cosine_sim": paired_cosine(given["encoder"], given["decoder"]),
        "mcc": hungarian(given["decoder"], given["other"]).cosine.mean(),
    }
    agree(found, ours)
    # Of the legacy ratio the mean row is the batch's (here of 128 rows), ours that of all rows; biases are averaged by batch.
    mean = MeanRow(16)
    mean.add(given["rows"])
    centred = CentredRows(mean.value)
    centred.add(given["rows"], given["out"], documents)
    assert found["explained_variance_legacy"] == pytest.approx(1 - centred.fvu_by_row_legacy(ALL)[0], rel=0.02)
    assert found["relative_reconstruction_bias"] == pytest.approx(sums.relative_bias(ALL)[0], rel=0.01)
    assert found["mcc_flipped"] == pytest.approx(1.0)  # a dictionary upside down: |cos| finds all of it
    assert hungarian(given["decoder"], -given["decoder"]).cosine.mean() < 0.6


@pytest.mark.parametrize(("mean", "deviation", "agrees"), [(3.0, 1.0, True), (3000.0, 1.0, False), (0.0, 1e-6, False)])
def test_saelens_loses_variance_that_is_small(mean: float, deviation: float, agrees: bool, tmp_path: Path) -> None:
    """Half the deviation is kept, so 0.75 is explained. Squares of float32 less the mean lose it; 1e-10 is taken for nothing."""
    rows = torch.randn(512, 16, generator=torch.Generator().manual_seed(1)) * deviation + mean
    output = 0.5 * rows + 0.5 * rows.double().mean(0).float()
    fillers = {
        "codes": torch.ones(512, 4),
        "encoder": torch.eye(4, 16),
        "decoder": torch.eye(4, 16),
        "other": torch.eye(4, 16),
    }
    found = ask("saelens", {"rows": rows, "out": output, **fillers}, tmp_path)
    assert 1 - rebuilt(rows, output).fvu(ALL)[0] == pytest.approx(0.75, abs=1e-4)
    assert (found["explained_variance"] == pytest.approx(0.75, abs=1e-4)) is agrees, found["explained_variance"]


def test_dictionary_learning(given: dict[str, torch.Tensor], sums: Reconstruction, tmp_path: Path) -> None:
    found = ask("dictionary_learning", given, tmp_path)
    ours = {
        "cossim": sums.cosine(ALL)[0],
        "l2_ratio": sums.length_ratio(ALL)[0],
        "relative_reconstruction_bias": sums.relative_bias(ALL)[0],
        "l0": int((given["codes"] != 0).sum()) / 512,
        "l1_loss": l1_by_row(coded(given["codes"])).mean(),
    }
    agree(found["whole"], ours)
    # It does not see an offset: its number is ours of an output whose mean is right. And it depends on the batch.
    moved = given["out"] + (given["rows"] - given["out"]).mean(0)
    assert found["whole"]["frac_variance_explained"] == pytest.approx(
        1 - rebuilt(given["rows"], moved).fvu(ALL)[0], rel=1e-4
    )
    assert found["whole"]["frac_variance_explained"] - (1 - sums.fvu(ALL)[0]) > 0.005
    whole, batches = (found[name]["frac_variance_explained"] for name in ("whole", "batches of 8"))
    assert abs(whole - batches) > 1e-4


def test_sparsify(given: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = ask("sparsify", given, tmp_path)
    output = load_file(tmp_path / "sparsify.safetensors")["out"]
    ours = rebuilt(given["rows"], output).fvu(ALL)[0]
    assert found["fvu"] == pytest.approx(ours, rel=1e-4)
    assert found["fvu of batches of 8"] > 1.05 * ours  # each centred by its own mean
