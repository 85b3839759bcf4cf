"""Training as a whole: known dictionaries are found, the laws hold, bad numbers are named, nothing half-made is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mohole import artifact
from mohole.config import Gated, JumpReLU, Machine, ReLU, TopK, Train
from mohole.dictionary import SparseAutoencoder
from mohole.dictionary.files import open_sae
from mohole.errors import HookpointError, NumericsError, StageError
from mohole.job.rows import shuffle_store
from mohole.metrics import fvu
from mohole.record import read_record
from mohole.store import Store
from mohole.store.stream import Stream
from mohole.train import loop, objective, train, trainer
from mohole.train.objective import Batch, Objective
from mohole.train.start import autoencoder, decoder_directions
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites, Units, Weights

HOOKPOINT = "resid_post.1"
SHORT = {"n_latents": 40, "nonlinearity": TopK(k=3), "batch_rows": 64, "steps": 12, "warmup_steps": 2, "log_every": 5}

Planter = Callable[..., Any]
StoreMaker = Callable[..., Store]


def trained(folder: Path, rows: Store, *, seed: int = 7, **settings: Any) -> SparseAutoencoder:
    with artifact.create(folder, artifact.Inputs(kind="dictionary", config={}, seed=seed)) as draft:
        train(draft, Stream(rows, HOOKPOINT), Train(**(SHORT | settings)), seed=seed)
    return open_sae(folder)


def order_of(rows: Store) -> np.ndarray:
    """The key of each of its tokens."""
    return rows.facts.order.keys(rows.tokens, rows.documents)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


# Known answers


def test_a_planted_dictionary_is_found(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    truth = planted(20_000)
    held_out = np.arange(20_000) >= 18_000
    settings = {"n_latents": 64, "steps": 600, "batch_rows": 256, "lr": 5e-3, "warmup_steps": 20}
    sae = trained(tmp_path / "sae", make_store(truth.rows, held_out=held_out), **settings)
    cosines = torch.from_numpy(truth.directions).float() @ sae.W_dec.T
    assert cosines.max(dim=1).values.mean() > 0.9
    fresh = torch.from_numpy(truth.rows[held_out])
    codes = sae.encode(fresh)
    quality = float(fvu(fresh, sae.decode(codes)))
    principal = torch.linalg.svdvals(fresh - fresh.mean(0)).square()
    assert quality < 0.2 * float(principal[3:].sum() / principal.sum())  # the best three fixed directions
    assert codes.n_active.max() == 3
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
    record = read_record(tmp_path / "sae" / "record.jsonl")
    assert record[-1]["fvu"] == pytest.approx(quality, rel=0.25)
    assert record[-1]["fvu"] < record[0]["fvu"] / 3


@pytest.mark.parametrize("factor", [8.0, 10.0])
def test_rows_in_other_units_give_the_same_dictionary_in_those_units(
    planted: Planter, make_store: StoreMaker, tmp_path: Path, factor: float
) -> None:
    rows = planted(1000).rows
    plain = trained(tmp_path / "a", make_store(rows, name="plain"))
    scaled = trained(tmp_path / "b", make_store(rows * np.float32(factor), name="scaled"))
    some = torch.from_numpy(rows[:300])
    codes, scaled_codes = plain.encode(some).dense(), scaled.encode(some * factor).dense()
    if factor == 8.0:  # a power of two: nothing is rounded differently
        assert torch.equal(plain.W_dec, scaled.W_dec)
        assert torch.equal(codes * factor, scaled_codes)
    torch.testing.assert_close(scaled_codes, codes * factor, rtol=1e-3, atol=1e-3)
    lines = [read_record(tmp_path / name / "record.jsonl")[-1]["fvu"] for name in "ab"]
    assert lines[0] == pytest.approx(lines[1], rel=1e-4)


def test_moving_the_origin_moves_only_the_centre(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    rows = planted(1000).rows
    plain = trained(tmp_path / "a", make_store(rows, name="plain"))
    moved = trained(tmp_path / "b", make_store(rows + np.float32(3.0), name="moved"))
    torch.testing.assert_close(moved.W_dec, plain.W_dec, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moved.b_dec, plain.b_dec + 3.0, rtol=1e-3, atol=1e-3)


def test_a_saved_dictionary_is_the_trained_one_in_the_models_units(
    planted: Planter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "DENSE_SHARE", 1.0)  # codes are looked at: in pairs, however many
    rows = torch.from_numpy(planted(500).rows)
    sites = Sites((HOOKPOINT,), (rows.shape[1],))
    for factor, exact in ((4.0, True), (3.7, False)):
        for nonlinearity in (TopK(k=4), JumpReLU(), Gated(), ReLU()):
            settings = Train(n_latents=60, nonlinearity=nonlinearity, initial_l0=5.0, auxk=0)
            weights = autoencoder(rows, 60, nonlinearity, initial_l0=5.0, seed=1)
            weights.blocks[0].b_enc.add_(torch.linspace(-0.3, 0.3, 60))
            if weights.blocks[0].b_mag is not None:
                weights.blocks[0].b_mag.add_(torch.linspace(0.3, -0.2, 60))
            weights.b_dec.add_(0.1)
            scale = torch.full((rows.shape[1],), 1 / factor)
            own = Trainer(settings, sites, sites, weights, Units(scale, scale, torch.zeros_like(scale)))
            sae = own.dictionary()
            assert isinstance(sae, SparseAutoencoder)
            codes = sae.encode(rows * factor)
            batch = Batch(rows * factor * scale, rows * factor * scale)
            (active,) = own._objective.forward(weights, batch)
            dense = torch.zeros(500, 60)
            dense[active.pairs.rows, active.latents] = active.values
            if exact:
                assert torch.equal(codes.dense() / factor, dense)
            torch.testing.assert_close(codes.dense() / factor, dense, rtol=1e-4, atol=1e-4)
            output = dense @ weights.blocks[0].W_dec + weights.b_dec
            torch.testing.assert_close(sae.decode(codes), output * factor, rtol=1e-4, atol=1e-3)


def test_the_scale_makes_the_mean_squared_distance_the_width_at_every_site() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 20, generator=generator) * 5 + 100
    rows[:, 12:] *= 3
    sites = Sites(("a", "b"), (12, 8))
    units = Units.of(rows, rows[:, :12], sites, Sites(("a",), (12,)))
    assert units.read[0] == pytest.approx(1 / 5, rel=0.02)
    assert units.read[15] == pytest.approx(1 / 15, rel=0.02)
    assert torch.equal(units.read[:12], units.written)


# Laws


def test_the_first_latents_of_a_wider_dictionary_start_as_those_of_a_narrow_one(planted: Planter) -> None:
    sample = torch.from_numpy(planted(300).rows)
    narrow, wide = (autoencoder(sample, n, TopK(k=4), initial_l0=4.0, seed=3).blocks[0] for n in (50, 1500))
    assert torch.equal(narrow.W_dec, wide.W_dec[:50])
    ratio = wide.W_enc[:50] / narrow.W_enc
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))  # one magnitude for all
    assert torch.equal(decoder_directions(np.array([7, 1400]), 24, seed=3), wide.W_dec[[7, 1400]])
    other = autoencoder(sample, 50, TopK(k=4), initial_l0=4.0, seed=4).blocks[0]
    assert not torch.equal(other.W_dec, narrow.W_dec)


@pytest.mark.parametrize("nonlinearity", [TopK(k=8), ReLU(), JumpReLU(), Gated()])
def test_training_starts_sparse_and_with_the_magnitude_of_the_rows(
    planted: Planter, nonlinearity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "DENSE_SHARE", 1.0)  # codes are looked at: in pairs, however many
    sample = torch.from_numpy(planted(1000).rows)
    for n_latents in (60, 400):
        weights = autoencoder(sample, n_latents, nonlinearity, initial_l0=8.0, seed=3)
        settings = Train(n_latents=n_latents, nonlinearity=nonlinearity, initial_l0=8.0)
        (active,) = Objective(settings, Sites((HOOKPOINT,), (24,)), torch.device("cpu")).forward(
            weights, Batch(sample, sample)
        )
        assert int((active.values > 0).sum()) / 1000 == pytest.approx(8.0, rel=0.1)
        codes = torch.zeros(1000, n_latents)
        codes[active.pairs.rows, active.latents] = active.values
        length = float((codes @ weights.blocks[0].W_dec).norm() / (sample - weights.b_dec).norm())
        # Where a latent's value jumps at its threshold, rounding decides about the one row that stands on it.
        assert length == pytest.approx(1, rel=2e-2)


def test_training_twice_gives_the_same_bytes_with_one_thread_or_two(
    planted: Planter, make_store: StoreMaker, tmp_path: Path
) -> None:
    rows = make_store(planted(3000, d=64).rows)
    wide = {"n_latents": 700, "batch_rows": 512, "steps": 4, "dead_after_rows": 600}
    trained(tmp_path / "a", rows, **wide)
    trained(tmp_path / "b", rows, **wide)
    torch.set_num_threads(2)
    try:
        trained(tmp_path / "c", rows, **wide)
    finally:
        torch.set_num_threads(1)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b") == bytes_of(tmp_path / "c")
    trained(tmp_path / "d", rows, seed=8, **wide)
    assert bytes_of(tmp_path / "a")["dictionary.safetensors"] != bytes_of(tmp_path / "d")["dictionary.safetensors"]


def test_the_order_in_which_rows_were_harvested_does_not_matter(
    planted: Planter, make_store: StoreMaker, tmp_path: Path
) -> None:
    rows, order = planted(900).rows, np.random.default_rng(0).permutation(900)
    held_out = np.arange(900) % 5 == 0
    trained(tmp_path / "a", make_store(rows, held_out=held_out, name="in order"))
    mixed = make_store(
        rows[order], tokens=order, held_out=held_out[order], name="mixed", shard_rows=200, cell_bytes=700
    )
    trained(tmp_path / "b", mixed)
    shuffle_store(mixed, str(tmp_path / "shuffled"), Machine(processes=1), levels=1)
    trained(tmp_path / "c", Store.open(tmp_path / "shuffled"))
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b") == bytes_of(tmp_path / "c")


def test_held_out_rows_are_never_looked_at(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    rows = planted(1000).rows
    held_out = np.random.default_rng(1).random(1000) < 0.3
    trained(tmp_path / "a", make_store(rows, held_out=held_out, name="whole"))
    poisoned = np.where(held_out[:, None], np.float32("nan"), rows)
    trained(tmp_path / "b", make_store(poisoned, held_out=held_out, name="poisoned"))
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


# AuxK


def kill(weights: Weights) -> Weights:
    """Half of the latents read a hundred times too weakly ever to be kept."""
    weights.blocks[0].W_enc[::2] *= 0.01
    return weights


def test_auxk_brings_killed_latents_back_and_nothing_else_does(
    planted: Planter, make_store: StoreMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_store(planted(6000).rows)
    monkeypatch.setattr(trainer, "autoencoder", lambda *args, **kwargs: kill(autoencoder(*args, **kwargs)))
    settings = {"n_latents": 48, "steps": 250, "batch_rows": 128, "lr": 5e-3, "dead_after_rows": 1500, "log_every": 10}
    dead, quality = {}, {}
    for auxk in (0, 16):
        trained(tmp_path / str(auxk), rows, auxk=auxk, **settings)
        record = read_record(tmp_path / str(auxk) / "record.jsonl")
        dead[auxk], quality[auxk] = max(line["dead"] for line in record), record[-1]["fvu"]
        if auxk == 0:
            assert record[-1]["dead"] >= 24
            assert all(line["auxk_loss"] == 0 for line in record)
        else:
            assert record[-1]["dead"] <= 3
            assert any(line["auxk_loss"] > 0 for line in record)
    assert dead[16] >= 12  # they were dead before they were brought back
    assert quality[16] < 0.8 * quality[0]


# The record, faults


def test_the_record_says_where_training_stood(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    trained(tmp_path / "sae", make_store(planted(1000).rows))
    record = read_record(tmp_path / "sae" / "record.jsonl")
    assert [line["step"] for line in record] == [5, 10, 12]
    assert [line["rows"] for line in record] == [5 * 64, 10 * 64, 12 * 64]
    assert [line["epoch"] for line in record] == [0, 0, 0]
    assert set(record[0]) == {
        "step", "rows", "epoch", "loss", "mse_loss", "sparsity_loss", "auxk_loss", "pre_act_loss", "gate_loss", "fvu", "l0",
        "dead", "lr", "grad_norm", "encoder_norm", "decoder_norm",
    }  # fmt: skip
    assert all(0 < line["l0"] <= 3 for line in record)
    assert record[0]["lr"] == pytest.approx(Train().lr)
    for line in record:  # in training units the loss is the error's share of the variance
        assert line["mse_loss"] == pytest.approx(line["fvu"], rel=0.2)
        assert line["decoder_norm"] == 1.0
    facts = json.loads((tmp_path / "sae" / "dictionary.json").read_text())
    assert facts["training"]["sample_rows"] == 1000
    assert facts["nonlinearity"] == {"kind": "topk", "k": 3}


def test_a_batch_without_variance_has_no_fvu(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    trained(tmp_path / "sae", make_store(planted(100).rows), batch_rows=1)
    assert [line["fvu"] for line in read_record(tmp_path / "sae" / "record.jsonl")] == [None, None, None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_row_is_named_with_its_token_and_nothing_is_left(
    planted: Planter, make_store: StoreMaker, tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAMPLE_ROWS", 50)
    rows = planted(1000).rows
    tokens = np.arange(1000) + 50_000
    place = int(np.argsort(order_of(make_store(rows, tokens=tokens, name="good")))[333])  # in batch 5 of 64 rows
    rows[place, 4] = bad
    with pytest.raises(
        NumericsError, match=rf"^{HOOKPOINT}: .*token {50_000 + place} of .*, row 333 of the stream; .*float32"
    ) as caught:
        trained(tmp_path / "sae", make_store(rows, tokens=tokens))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*sae*/*"))
    assert not (tmp_path / "sae").exists()


def test_a_bad_row_in_the_sample_is_named_too(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    rows = planted(100).rows
    rows[99, 0] = np.nan
    with pytest.raises(NumericsError, match=r"token 99 of"):
        trained(tmp_path / "sae", make_store(rows))


def test_a_divergence_names_the_step_and_the_rate(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    with pytest.raises(
        NumericsError, match=rf"^{HOOKPOINT}: .* at step \d+, learning rate 1e\+30; try a lower train.lr"
    ):
        trained(tmp_path / "sae", make_store(planted(300).rows), lr=1e30, warmup_steps=0)
    assert not (tmp_path / "sae").exists()


def test_rows_that_cannot_be_trained_on_are_refused(planted: Planter, make_store: StoreMaker, tmp_path: Path) -> None:
    rows = planted(50).rows
    shuffle_store(make_store(rows, name="plain"), str(tmp_path / "text"), Machine(processes=1), order_kind="text")
    with pytest.raises(StageError, match="order of the text"):
        trained(tmp_path / "sae", Store.open(tmp_path / "text"))
    with pytest.raises(StageError, match="0 rows that are not held out"):
        trained(tmp_path / "sae", make_store(rows, held_out=np.ones(50, dtype=bool), name="all held out"))
    with pytest.raises(NumericsError, match="all 50 sampled rows are the same"):
        trained(tmp_path / "sae", make_store(np.ones((50, 4), dtype=np.float32), name="constant"))
    with pytest.raises(HookpointError, match=f"resid_post.9: not in .*; it has {HOOKPOINT}"):
        Stream(make_store(rows), "resid_post.9")
