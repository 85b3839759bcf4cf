"""The estimate is near what a training holds, and what cannot fit is refused with what would; the summary adds up."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.test_resume import make, trained

from mohole.config import JumpReLU, ReLU, TopK, Train
from mohole.config.train import Adam, CrossLayerOf, TranscoderOf
from mohole.device import available_bytes
from mohole.errors import ConfigError
from mohole.train import cost
from mohole.train.cost import Limit, Watch, check_memory, check_memory_together, forecast, training_bytes
from mohole.train.traffic import step_bytes
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

ONE, TWO = Sites(("a",), (64,)), Sites(("a", "b"), (64, 64))


@pytest.mark.parametrize(
    ("settings", "reads"),
    [
        ({"nonlinearity": TopK(k=4)}, ONE),
        ({"nonlinearity": JumpReLU(), "average": 0.9}, ONE),
        ({"nonlinearity": TopK(k=4), "optimiser": Adam(moments="bfloat16")}, ONE),
        ({"nonlinearity": TopK(k=4), "optimiser": Adam(moments="8bit")}, ONE),
        ({"nonlinearity": TopK(k=4), "learns": CrossLayerOf(reads=("a", "b"), writes=("a", "b"))}, TWO),
    ],
)
def test_the_estimate_counts_what_a_trainer_keeps(settings: dict[str, Any], reads: Sites) -> None:
    config = Train(n_latents=4096, batch_rows=64, steps=10, checkpoint_every=100, **settings)
    rows = torch.randn(200, reads.width, generator=torch.Generator().manual_seed(0))
    trainer = Trainer.start(config, rows, rows, reads, reads, seed=0)
    kept = sum(tensor.numel() * tensor.element_size() for tensor in trainer.state()[0].values())
    # At the end the dictionary stands beside them, in the model's units, and the mean of the weights that it is made of.
    weights = sum(tensor.numel() * tensor.element_size() for _, tensor in trainer.weights.named())
    at_end = kept + weights * (2 if config.average else 1)
    assert 0.97 * at_end < training_bytes(config, reads, reads).total < 1.3 * at_end
    with_checkpoints = config.model_copy(update={"checkpoint_every": 5})
    assert 0.97 * 2 * kept < training_bytes(with_checkpoints, reads, reads).total < 1.3 * 2 * kept


def test_a_dense_start_is_counted_with_its_gradients_and_with_all_its_codes_where_they_are_held() -> None:
    sparse, dense = (
        Train(n_latents=32768, nonlinearity=ReLU(), initial_l0=l0, batch_rows=8192, steps=10, checkpoint_every=100)
        for l0 in (60.0, 16384.0)
    )
    weights = 4 * 2 * 64 * 32768
    more = training_bytes(dense, ONE, ONE).total - training_bytes(sparse, ONE, ONE).total
    most_pairs = 12 * 4 * 0.07 * 32768 * 8192
    assert weights < more < weights + most_pairs
    assert 0.9 * most_pairs < more
    few = [training_bytes(each.model_copy(update={"batch_rows": 512}), ONE, ONE).total for each in (sparse, dense)]
    codes, most_pairs = 4 * 32768 * 512, most_pairs / 16
    assert weights + codes + 0.9 * most_pairs < few[1] - few[0] < weights + codes + most_pairs


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    settings = Train(n_latents=1 << 20, nonlinearity=TopK(k=32))
    needed = training_bytes(settings, ONE, ONE).total
    check_memory(settings, ONE, ONE, available=int(needed * 1.1))
    with pytest.raises(
        ConfigError, match=r"train.n_latents: 1048576 latents take \d+\.\d GiB to train, and .* GiB are free"
    ) as caught:
        check_memory(settings, ONE, ONE, available=needed // 2)
    fits = int(re.findall(r"about (\d+) latents", str(caught.value))[0])
    check_memory(settings.model_copy(update={"n_latents": fits}), ONE, ONE, available=needed // 2)
    assert fits > 0.9 * settings.n_latents / 2


def test_members_of_a_sweep_must_fit_together() -> None:
    members = {f"n{n}": Train(n_latents=n, nonlinearity=TopK(k=32)) for n in (100_000, 110_000, 120_000)}
    needed = [training_bytes(settings, ONE, ONE).total for settings in members.values()]
    check_memory_together(members, ONE, ONE, available=int(sum(needed) * 1.1))
    room = int((needed[0] + needed[1]) * 1.1)
    assert room > max(needed)  # each of them alone would fit
    for settings in members.values():
        check_memory(settings, ONE, ONE, available=room)
    with pytest.raises(ConfigError, match=r"sweep: 3 members take .* together, and .* are free; the first 2 would fit"):
        check_memory_together(members, ONE, ONE, available=room)


def test_the_memory_of_this_machine_is_known() -> None:
    found = available_bytes(torch.device("cpu"))
    assert found is None or 1 << 20 < found < 1 << 50


def test_the_summary_is_the_time_that_was_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of 3 s after a second's wait each, of 4 products' CPU time, and a second of measuring; 2 s of CPU each."""
    settings = Train(n_latents=1000, batch_rows=500, nonlinearity=TopK(k=4))
    flops = 2.0 * 500 * 1000 * 64
    clock = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(cost.time, "process_time", lambda: clock["cpu"])
    watch = Watch(settings, ONE, ONE, Limit(flops / 0.5))
    monkeypatch.setattr(cost, "step_bytes", lambda *given, in_tiles: {10: 3 * 10**9, 20: 5 * 10**9}[given[-1]])
    assert watch.summary() == "no step was left to do"
    for n_kept in (10, 20):
        clock["wall"] += 1.0
        watch.waited()
        clock["wall"] += 3.0
        clock["cpu"] += 2.0
        watch.stepped(n_kept)
        clock["wall"] += 1.0
        clock["cpu"] += 1.0
        watch.measured()
    assert watch.summary().startswith(
        "a step took 4.0 products of rows and encoder (0 of 0 GFLOP/s of a core, 25%) and moved at least 4 GB "
        "(2 GB/s), 20% of the time waiting for rows, 20% measuring, peak"
    )


def test_before_it_starts_a_training_says_what_it_takes_at_least() -> None:
    settings = Train(n_latents=1 << 16, batch_rows=1 << 12, nonlinearity=TopK(k=4))
    limit = Limit(2.0 * (1 << 28) * ONE.width * 5.0)  # five of its steps a second
    said = forecast("a", [(settings, 1500)], ONE, ONE, limit)
    gib = training_bytes(settings, ONE, ONE).total / (1 << 30)
    assert said.startswith(
        f"a: {gib:.2g} GiB and no less than 5.0 min, which 1,500 products of rows and encoder take at "
    )
    assert said.endswith("172 GFLOP/s of a core")
    assert "no less than 1.0 min" in forecast("a", [(settings, 300)], ONE, ONE, limit)  # gone on with
    assert forecast("a", [(settings, 9)], ONE, ONE, limit) == ""  # nobody waits for that
    both = forecast("b", [(settings, 300), (settings.model_copy(update={"n_latents": 1 << 15}), 600)], ONE, ONE, limit)
    assert "no less than 2.0 min, which 900 products" in both


def test_a_training_tells_its_forecast_and_not_when_it_is_short(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "QUIET_SECONDS", 0.0)
    trained(tmp_path / "told", make("topk"))
    told = [line for line in capfd.readouterr().err.splitlines() if "no less than" in line]
    assert len(told) == 1
    assert told[0].startswith("a: ")
    monkeypatch.undo()
    trained(tmp_path / "short", make("topk"))
    assert "no less than" not in capfd.readouterr().err


def test_what_a_step_moves_is_what_can_be_counted_by_hand() -> None:
    """5 latents of 3 and 2 columns, 7 rows, 4 kept pairs. In numbers, before they are multiplied by their 4 bytes."""
    reads, writes = Sites(("a",), (3,)), Sites(("b",), (2,))
    settings = Train(
        n_latents=5, batch_rows=7, nonlinearity=TopK(k=1), clip_norm=None, learns=TranscoderOf(reads="a", writes="b")
    )
    rows = 7 * 3 + 7 * 2 + 2 * 7 * 2  # read, targets, and the error there and back
    always = rows + 5 * 3 + 3 * 2 * 5 * (3 + 2)  # the encoder once; weights and two moments, there and back
    pairs = 4 * (2 + 2) + 4 * (3 + 2)  # decoded, and the slopes of codes; then both gradients
    found = partial(step_bytes, reads=reads, writes=writes)
    assert found(settings, n_kept=4, in_tiles=False) == 4 * (always + pairs)
    clipped = settings.model_copy(update={"clip_norm": 1.0})
    assert found(clipped, n_kept=4, in_tiles=False) == 4 * (always + pairs)  # the least: nothing is summed twice
    dense = always + 2 * 5 * 2 + 2 * 5 * (3 + 2)  # the decoder twice; gradients there and back
    assert found(settings, n_kept=4, in_tiles=True) == 4 * dense
    narrow = settings.model_copy(update={"optimiser": Adam(moments="8bit")})
    assert found(settings, n_kept=4, in_tiles=False) - found(narrow, n_kept=4, in_tiles=False) == 2 * 2 * 25 * 3


def test_the_limit_is_a_rate_of_this_machine() -> None:
    found = Limit.measured(Train(n_latents=512, batch_rows=256, nonlinearity=TopK(k=4)), ONE)
    assert 1e8 < found.flops_per_second < 1e13


def test_a_gpu_holds_what_is_trained_and_main_memory_what_is_copied() -> None:
    settings = Train(n_latents=65536, nonlinearity=TopK(k=4), checkpoint_every=10, steps=100)
    here = training_bytes(settings, ONE, ONE)
    assert here.device == pytest.approx(
        65536 * 2 * ONE.width * 12, rel=0.35
    )  # weights and two moments, and a step's own
    assert here.main == 65536 * 2 * ONE.width * 12
    away = settings.model_copy(update={"device": "cuda:3"})
    with pytest.raises(ConfigError, match=r"are free on cuda:3; about \d+ latents would fit"):
        check_memory(away, ONE, ONE, available=here.device // 2)
    check_memory(away, ONE, ONE, available=int(1.1 * max(here.device, here.main)))  # of each memory
    with pytest.raises(ConfigError, match=r"are free; about \d+ latents would fit"):
        check_memory(settings, ONE, ONE, available=int(1.1 * max(here.device, here.main)))


def test_a_sweep_names_a_device_that_is_not_there() -> None:
    members = {"a": Train(n_latents=64), "b": Train(n_latents=64, device="cuda:77")}
    with pytest.raises(ConfigError, match=r"train.device: 'cuda:77' cannot be used here"):
        check_memory_together(members, ONE, ONE)
