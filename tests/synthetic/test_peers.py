"""The same world as SAELens makes it: firing rates, co-firing and lengths of rows agree. Needs SAELens (MOHOLE_PEERS_PYTHON)."""

import json
import os
import subprocess

import numpy as np
import pytest

from mohole.config import Synthetic
from mohole.synthetic.world import SyntheticWorld

N, D, ROWS = 400, 64, 40_000

_THEIRS = f"""
import json, torch
from sae_lens.synthetic import *
torch.manual_seed(0)
cfg = SyntheticModelConfig(num_features={N}, hidden_dim={D}, firing_probability=ZipfianFiringProbabilityConfig(
    exponent=0.5, max_prob=0.3, min_prob=0.01), hierarchy=HierarchyConfig(total_root_nodes=16, branching_factor=4, max_depth=2,
    mutually_exclusive_portion=1.0, compensate_probabilities=True, scale_children_by_parent=True),
    correlation=LowRankCorrelationConfig(rank=10, correlation_scale=0.1),
    mean_firing_magnitudes=LinearMagnitudeConfig(start=5.0, end=4.0),
    std_firing_magnitudes=FoldedNormalMagnitudeConfig(mean=0.5, std=0.5), bias=0.5, seed=1)
rows, acts = SyntheticModel(cfg).sample_with_features({ROWS})
acts = acts.to_dense() if acts.is_sparse else acts
print(json.dumps({{"rate": (acts > 0).float().mean(0).tolist(), "l0": (acts > 0).sum(1).float().var().item(),
    "mass": acts.sum(0).tolist(), "length": rows.norm(dim=1).mean().item(), "spread": rows.norm(dim=1).std().item()}}))
"""


@pytest.mark.peers
def test_firings_are_those_of_saelens() -> None:
    python = os.environ.get("MOHOLE_PEERS_PYTHON")
    if not python:
        pytest.skip("MOHOLE_PEERS_PYTHON does not name an interpreter with SAELens")
    done = subprocess.run([python, "-W", "ignore", "-c", _THEIRS], capture_output=True, text=True, check=False)
    if "No module named" in done.stderr:
        pytest.skip("SAELens has no synthetic rows there")
    theirs = json.loads(done.stdout.splitlines()[-1])
    settings = Synthetic(
        n_features=N,
        d_model=D,
        highest_chance=0.3,
        lowest_chance=0.01,
        roots=16,
        branching=4,
        depth=2,
        correlation_rank=10,
    )
    world = SyntheticWorld(settings, seed=1)
    firings = world.firings(np.arange(ROWS))
    rate, mass = (np.bincount(firings.features, weights=of, minlength=N) for of in (None, firings.magnitudes))
    rate = rate / ROWS
    n_firing = np.diff(firings.row_starts)
    for level in (slice(0, 16), slice(16, 80), slice(80, 336), slice(336, N)):
        assert rate[level].sum() == pytest.approx(sum(theirs["rate"][level]), rel=0.03)
        assert mass[level].sum() == pytest.approx(sum(theirs["mass"][level]), rel=0.06)
    assert np.corrcoef(rate, theirs["rate"])[0, 1] > 0.99
    assert n_firing.var() == pytest.approx(theirs["l0"], rel=0.15)  # which factors features share is drawn
    length = world.rows(firings).norm(dim=1)
    assert float(length.mean()) == pytest.approx(theirs["length"], rel=0.05)
    assert float(length.std()) == pytest.approx(theirs["spread"], rel=0.15)
