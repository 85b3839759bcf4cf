"""Firings are counted exactly: planted dead, rare, dense and negative latents, any partition, more than 2^24 of them."""

import numpy as np
import torch

from mohole.metrics import Firing


def counted(dense: torch.Tensor) -> Firing:
    firing = Firing(dense.shape[1])
    rows, latents = dense.nonzero(as_tuple=True)
    firing.add(latents, dense[rows, latents], len(dense))
    return firing


def codes() -> torch.Tensor:
    dense = torch.zeros(1000, 5)
    dense[:, 0] = 1.0
    dense[::2, 1] = 0.5
    dense[7, 2] = -3.0  # AbsTopK and the like fire below zero
    return dense


def test_planted_densities_are_counted_exactly() -> None:
    firing = counted(codes())
    assert firing.counts.tolist() == [1000, 500, 1, 0, 0]
    assert firing.n_dead == 2
    assert firing.n_denser_than(0.1) == 2
    assert firing.l0 == 1.501


def test_stored_zeros_are_no_firings() -> None:
    firing = Firing(2)
    firing.add(torch.tensor([0, 1]), torch.tensor([0.0, 1.0]), 1)
    assert firing.counts.tolist() == [0, 1]


def test_the_histogram_holds_every_latent_once() -> None:
    histogram = counted(codes()).histogram()
    assert histogram.zero == 2
    assert histogram.n_rows == 1000
    assert sum(histogram.counts) + histogram.zero == 5
    assert histogram.edges[0] == -3.0
    assert histogram.edges[-1] == 0.0
    assert histogram.counts[0] == 1  # density 1e-3, on the lowest edge
    assert histogram.counts[-1] == 1  # density 1, on the closed end
    assert histogram.counts[-2] == 1  # density 0.5: log10 is -0.301, between -0.5 and -0.25


def test_shards_add_up() -> None:
    dense = codes()
    whole = counted(dense)
    for n_shards in (1, 2, 8):
        merged = Firing(5)
        for shard in dense.tensor_split(n_shards):
            merged.merge(counted(shard))
        assert np.array_equal(merged.counts, whole.counts)
        assert merged.n_rows == whole.n_rows


def test_counts_go_on_beyond_what_float32_can_hold() -> None:
    firing = counted(torch.ones(3, 1))
    firing.counts += 2**24
    firing.merge(counted(torch.ones(1, 1)))
    assert firing.counts[0] == 2**24 + 4
