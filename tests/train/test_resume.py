"""A training killed anywhere goes on to the same bytes: every kind of dictionary, every nonlinearity, several places."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mohole import artifact
from mohole.config import BatchTopK, Gated, JumpReLU, ReLU, TopK, Train
from mohole.config.train import Adam, CrosscoderOf, CrossLayerOf, Muon, Resample, Sae, Signum, TranscoderOf
from mohole.dictionary import load_dictionary
from mohole.errors import ArtifactError, NumericsError
from mohole.progress import Tracker
from mohole.record import read_record
from mohole.tensors import open_tensors
from mohole.train import train
from mohole.train.checkpoint import Checkpoints
from mohole.train.stopping import AfterThisStep
from mohole.version import __version__

STEPS = 13
SETTINGS: dict[str, Any] = {
    "n_latents": 40, "batch_rows": 32, "steps": STEPS, "warmup_steps": 3, "log_every": 2, "checkpoint_every": 3,
    "dead_after_rows": 100, "auxk": 4,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "topk": {"nonlinearity": TopK(k=3)},
    "topk, mean of weights": {"nonlinearity": TopK(k=3), "average": 0.9, "clip_norm": None},
    "batchtopk": {"nonlinearity": BatchTopK(k=3), "prefixes": (9, 20)},
    "relu": {"nonlinearity": ReLU(), "decoder": "free", "pre_act_weight": 0.01},
    "relu, in pairs": {"nonlinearity": ReLU(), "n_latents": 400, "initial_l0": 6.0},
    "jumprelu": {"nonlinearity": JumpReLU(), "pre_act_weight": 0.01},
    "gated": {"nonlinearity": Gated()},
    "16 bits": {"nonlinearity": TopK(k=3), "optimiser": Adam(moments="bfloat16")},
    "8 bits, in tiles": {"nonlinearity": ReLU(), "optimiser": Adam(moments="8bit")},
    "resampled": {
        "nonlinearity": JumpReLU(),
        "initial_l0": 0.5,
        "resample": Resample(every=4, over_steps=3, most=9),
        "average": 0.9,
        "auxk": 0,
        "dead_after_rows": 33,
    },
    "resampled, two layers": {
        "learns": CrossLayerOf(reads=("a", "b"), writes=("b", "a")),
        "nonlinearity": TopK(k=3),
        "resample": Resample(every=4, over_steps=3, most=9),
        "auxk": 0,
        "dead_after_rows": 33,
    },
    "signum": {"nonlinearity": TopK(k=3), "optimiser": Signum(), "lr": 1e-3},
    "muon": {"nonlinearity": TopK(k=3), "optimiser": Muon(), "lr": 1e-3},
    "transcoder": {"learns": TranscoderOf(reads="a", writes="b", skip=True), "nonlinearity": TopK(k=3)},
    "crosscoder": {"learns": CrosscoderOf(hookpoints=("a", "b")), "nonlinearity": JumpReLU(), "decoder": "free"},
    "cross-layer": {"learns": CrossLayerOf(reads=("a", "b"), writes=("b", "a")), "nonlinearity": BatchTopK(k=3)},
}


class PowerError(Exception):
    """It is gone."""


class Rows:
    """A stream that fails when it is asked for a step it should not reach."""

    def __init__(self, hookpoint: str, width: int, fails_at: int | None = None) -> None:
        self.hookpoint, self.d_model, self.n_rows = hookpoint, width, 300
        self._fails_at = fails_at
        draw = np.random.default_rng(width)
        directions = draw.normal(size=(50, width))
        chosen = draw.random((300, 50)).argpartition(3, axis=1)[:, :3]
        self._rows = torch.from_numpy((directions[chosen].sum(1) + 2.0).astype(np.float32))

    def rows(self, first: int, n_rows: int) -> torch.Tensor:
        if self._fails_at is not None and first >= self._fails_at * SETTINGS["batch_rows"]:
            raise PowerError
        return self._rows[torch.arange(first, first + n_rows) % self.n_rows]

    def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> torch.Tensor:
        return self.rows(step * n_rows, n_rows)


def trained(folder: Path, settings: Train, fails_at: int | None = None) -> dict[str, bytes]:
    streams: Any = {"a": Rows("a", 12, fails_at), "b": Rows("b", 10, fails_at)}
    if isinstance(settings.learns, Sae):
        streams = streams["a"]
    elif isinstance(settings.learns, CrossLayerOf):
        streams["b"] = Rows("b", 12, fails_at)
    inputs = artifact.Inputs(kind="dictionary", config=settings.model_dump(mode="json"), seed=5)
    with artifact.create(folder, inputs, resume=True) as draft:
        train(draft, streams, settings, seed=5)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def make(variant: str, **others: Any) -> Train:
    return Train(**(SETTINGS | VARIANTS[variant] | others))


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_and_gone_on_with_is_never_killed(variant: str, tmp_path: Path, no_shape_checks: None) -> None:
    whole = trained(tmp_path / "whole", make(variant))
    assert set(whole) >= {"dictionary.safetensors", "dictionary.json", "record.jsonl", "statistics.safetensors"}
    assert not any("checkpoint" in name for name in whole)
    assert "resample" not in VARIANTS[variant] or read_record(tmp_path / "whole" / "record.jsonl")[-1]["resampled"] >= 9
    for fails_at in (1, 3, 4, 8, STEPS - 1):
        with pytest.raises(PowerError):
            trained(tmp_path / str(fails_at), make(variant), fails_at)
        draft = tmp_path / f".{fails_at}.partial"
        assert (draft / "checkpoints").exists() == (fails_at >= 3)
        assert trained(tmp_path / str(fails_at), make(variant)) == whole, fails_at
    with pytest.raises(PowerError):
        trained(tmp_path / "twice", make(variant), 5)
    with pytest.raises(PowerError):
        trained(tmp_path / "twice", make(variant), 10)
    assert trained(tmp_path / "twice", make(variant)) == whole


class Interrupting(Rows):
    """A stream during whose reading, for one step, somebody presses Ctrl-C, so many times."""

    def __init__(self, at: int, times: int = 1) -> None:
        super().__init__("a", 12)
        self._at, self._times = at, times

    def rows(self, first: int, n_rows: int) -> torch.Tensor:
        if first == self._at * SETTINGS["batch_rows"] and n_rows == SETTINGS["batch_rows"]:
            for _ in range(self._times):
                signal.raise_signal(signal.SIGINT)
        return super().rows(first, n_rows)


def interrupted(folder: Path, settings: Train, at: int, times: int = 1) -> Path:
    """The checkpoints that are left."""
    inputs = artifact.Inputs(kind="dictionary", config=settings.model_dump(mode="json"), seed=5)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), artifact.create(folder, inputs, resume=True) as draft:
        train(draft, Interrupting(at, times), settings, seed=5)
    assert signal.getsignal(signal.SIGINT) is before
    return folder.with_name(f".{folder.name}.partial") / "checkpoints"


@pytest.mark.parametrize("variant", ["topk", "relu", "batchtopk"])
def test_an_interrupt_ends_the_step_and_leaves_a_checkpoint_of_it(
    variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_shape_checks: None
) -> None:
    settings = make(variant, checkpoint_every=100)
    whole = trained(tmp_path / "whole", settings)
    for at in (0, 4, STEPS - 1):
        left = interrupted(tmp_path / str(at), settings, at)
        assert [file.name for file in sorted(left.iterdir())] == [
            f"{at + 1:010d}.json", f"{at + 1:010d}.safetensors"
        ]  # fmt: skip
        said = f"train a: stopped after step {at + 1} of {STEPS}, with a checkpoint of it"
        assert said in capsys.readouterr().err
        assert trained(tmp_path / str(at), settings) == whole


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    settings = make("topk", checkpoint_every=100)
    assert not interrupted(tmp_path / "sae", settings, 4, times=2).exists()
    assert trained(tmp_path / "sae", settings) == trained(tmp_path / "whole", settings)


def test_a_stop_that_is_ignored_or_handled_by_nobody_stays_so() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with AfterThisStep() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_asked
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_where_checkpoints_are_made_changes_nothing(tmp_path: Path) -> None:
    found = [trained(tmp_path / str(n), make("jumprelu", checkpoint_every=n)) for n in (1, 5, 100)]
    for name in ("dictionary.safetensors", "record.jsonl", "statistics.safetensors"):
        assert found[0][name] == found[1][name] == found[2][name]


def broken(tmp_path: Path, fails_at: int = 11) -> Path:
    """A draft with checkpoints at steps 6 and 9."""
    with pytest.raises(PowerError):
        trained(tmp_path / "sae", make("topk"), fails_at)
    folder = tmp_path / ".sae.partial" / "checkpoints"
    assert sorted(file.name for file in folder.iterdir()) == [
        f"000000000{step}.{kind}" for step in (6, 9) for kind in ("json", "safetensors")
    ]
    return folder


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", make("topk"))
    folder = broken(tmp_path)
    newest = folder / "0000000009.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2 + 3] ^= 0x60  # a high bit in the middle of a matrix
    newest.write_bytes(damaged)
    assert trained(tmp_path / "sae", make("topk")) == whole


def edited(file: Path, change: Callable[[bytes], bytes]) -> None:
    before = file.read_bytes()
    file.write_bytes(change(before))
    assert file.read_bytes() != before


NUMBERS: dict[str, Callable[[bytes], bytes]] = {
    "an earlier step": lambda data: data.replace(b'"n_steps": 9', b'"n_steps": 8'),
    "a later step": lambda data: data.replace(b'"n_steps": 9', b'"n_steps": 11'),
    "more resampled": lambda data: data.replace(b'"n_resampled": ', b'"n_resampled": 9'),
    "no numbers": lambda data: json.dumps(json.loads(data) | {"numbers": None}).encode(),
    "fewer lines": lambda data: data.replace(b'"n_lines": 4', b'"n_lines": 3'),
    "another format": lambda data: data.replace(b'"format": ', b'"format": 7'),
    "another code": lambda data: data.replace(b'"code": "', b'"code": "7'),
    "not text": lambda data: b"\xff" + data,
    "deep": lambda data: b"[" * 100_000,
    "a list": lambda data: b"[]",
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("change", NUMBERS)
def test_a_checkpoint_with_damaged_numbers_is_passed_over_for_the_one_before(tmp_path: Path, change: str) -> None:
    settings = make("resampled")
    whole = trained(tmp_path / "whole", settings)
    with pytest.raises(PowerError):
        trained(tmp_path / "sae", settings, 11)
    edited(tmp_path / ".sae.partial" / "checkpoints" / "0000000009.json", NUMBERS[change])
    assert trained(tmp_path / "sae", settings) == whole


def test_a_checkpoint_of_another_version_is_refused_by_name_and_the_version_that_wrote_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", make("topk"))
    folder = broken(tmp_path)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("mohole.train.checkpoint.__version__", "99.0")
        with pytest.raises(
            ArtifactError,
            match=rf"0000000009\.json: written by mohole {__version__} .*this is 99\.0 .*go on with that version, or delete ",
        ):
            trained(tmp_path / "sae", make("topk"))
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert trained(tmp_path / "sae", make("topk")) == whole


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "first line lost": lambda data: data[data.index(b"\n") + 1 :],
    "last line before the checkpoint lost": lambda data: b"".join(data.splitlines(keepends=True)[:3]),
    "one digit": lambda data: data.replace(b'"fvu": ', b'"fvu": 1', 1),
    "not JSON": lambda data: b"\0" * 20 + b"\n" + data,
    "not UTF-8": lambda data: b"\xff\xfe\n" + data,
    "no step": lambda data: b"{}\n" + data,
    "no fvu": lambda data: b'{"step": 1}\n' + data,
    "two lines as one": lambda data: data.replace(b"\n", b" ", 1),
}


@pytest.mark.parametrize("change", RECORDS)
def test_a_record_that_is_not_as_it_was_at_the_checkpoint_is_named(tmp_path: Path, change: str) -> None:
    draft = broken(tmp_path).parent
    edited(draft / "record.jsonl", RECORDS[change])
    before = {file: file.read_bytes() for file in draft.rglob("*") if file.is_file()}
    with pytest.raises(
        ArtifactError,
        match=r"partial/record\.jsonl: the 4 lines up to the checkpoint are not as they were written; delete .* to start",
    ):
        trained(tmp_path / "sae", make("topk"))
    assert {file: file.read_bytes() for file in draft.rglob("*") if file.is_file()} == before


def test_a_record_that_is_gone_is_named(tmp_path: Path) -> None:
    draft = broken(tmp_path).parent
    (draft / "record.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"record\.jsonl: the 4 lines up to the checkpoint are not as they were"):
        trained(tmp_path / "sae", make("topk"))


@pytest.mark.parametrize("after", [b"", b'{"fv', b"\0\xff\n", b"{}\n"])
def test_what_a_record_holds_after_the_checkpoint_does_not_count(tmp_path: Path, after: bytes) -> None:
    whole = trained(tmp_path / "whole", make("topk"))
    record = broken(tmp_path).parent / "record.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    record.write_bytes(b"".join(lines[:4]) + after)
    assert trained(tmp_path / "sae", make("topk")) == whole


def test_a_record_is_whole_whenever_it_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, or out of disk, at any of its calls: the same command goes on to the same bytes."""
    whole = trained(tmp_path / "whole", make("topk"))

    def out_of_disk(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    def power_cut(*_: object) -> None:
        raise PowerError

    broken(tmp_path)
    for name, stop in (("write_bytes", out_of_disk), ("write_text", out_of_disk), ("replace", power_cut)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, stop)
            with pytest.raises((OSError, PowerError)):
                trained(tmp_path / "sae", make("topk"), 9)
    assert trained(tmp_path / "sae", make("topk")) == whole


def test_half_written_checkpoints_do_not_count(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", make("topk"))
    folder = broken(tmp_path)
    (folder / "0000000012.safetensors").write_bytes(b"half")
    (folder / "draft.json").write_text("{")
    (folder / "draft.safetensors").write_bytes(b"")
    assert trained(tmp_path / "sae", make("topk")) == whole


def test_only_damaged_checkpoints_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    folder = broken(tmp_path)
    for file, text in zip(folder.glob("*.json"), ('{"format": 99}', "null"), strict=True):
        file.write_text(text)
    with pytest.raises(
        ArtifactError, match=r"checkpoints: 2 checkpoints, all damaged or of another version; delete it to start over"
    ):
        trained(tmp_path / "sae", make("topk"))


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = broken(tmp_path)
    with pytest.raises(
        ArtifactError,
        match=r"of another training \(a state of another dictionary: .*W_enc.0.*\); delete it to start over",
    ):
        train(folder.parent, Rows("a", 12), make("topk", n_latents=41), seed=5)
    with pytest.raises(ArtifactError, match=r"another dictionary: .*log_threshold.0"):
        train(folder.parent, Rows("a", 12), make("jumprelu"), seed=5)


def test_a_checkpoint_that_cannot_be_written_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Checkpoints, *arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        trained(tmp_path / "sae", make("topk"))
    assert not (tmp_path / "sae").exists()


def test_statistics_are_those_of_the_last_tenth_of_the_rows(tmp_path: Path) -> None:
    trained(tmp_path / "sae", make("topk", steps=40, lr=1e-12))  # the weights stand still
    sae, rows = load_dictionary(tmp_path / "sae"), Rows("a", 12).rows(36 * 32, 4 * 32)
    codes = sae.encode(rows).dense()
    found = open_tensors(tmp_path / "sae" / "statistics.safetensors")
    np.testing.assert_allclose(found["density"], (codes > 0).float().mean(0), atol=1e-6)
    np.testing.assert_allclose(found["max"], codes.amax(0), rtol=1e-4, atol=1e-6)
    mean = codes.sum(0) / (codes > 0).sum(0).clamp_min(1)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [3, 11, 25, 30])
def test_the_last_tenth_of_the_steps_is_rounded_up(steps: int, tmp_path: Path) -> None:
    """Of 11 steps the last two, of 25 the last three: at least one, and whole ones."""
    trained(tmp_path / "sae", make("topk", steps=steps, lr=1e-12))  # the weights stand still
    n_last = {3: 1, 11: 2, 25: 3, 30: 3}[steps]
    codes = load_dictionary(tmp_path / "sae").encode(Rows("a", 12).rows((steps - n_last) * 32, n_last * 32)).dense()
    found = open_tensors(tmp_path / "sae" / "statistics.safetensors")
    np.testing.assert_allclose(found["density"], (codes > 0).float().mean(0), atol=1e-6)
    facts = json.loads((tmp_path / "sae" / "dictionary.json").read_text(encoding="utf-8"))
    assert facts["training"]["statistics_rows"] == n_last * 32


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits until the weights have been overwritten; what it writes is what they were."""
    written, overwritten = Checkpoints._write, threading.Event()

    def late(self: Checkpoints, *arguments: Any) -> None:
        assert overwritten.wait(30)
        written(self, *arguments)

    monkeypatch.setattr(Checkpoints, "_write", late)
    weights, numbers = {"W": torch.arange(6.0)}, {"n_steps": 3}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(3, weights, numbers)
    weights["W"].zero_()
    overwritten.set()
    checkpoints.wait()
    found = checkpoints.last()
    checkpoints.close()
    assert found is not None
    assert torch.equal(found[0]["W"], torch.arange(6.0))
    assert found[1] == numbers


def test_a_transcoder_reads_what_it_reads_and_writes_what_it_writes(tmp_path: Path) -> None:
    """The target is the sign of what is read: the other way round nothing could be learned of the length of the rows."""
    draw = np.random.default_rng(0)
    reads, writes = Rows("a", 12), Rows("b", 12)  # of one width, so that shapes cannot tell
    signs = torch.from_numpy(draw.choice([-1.0, 1.0], size=(300, 1)).astype(np.float32))
    reads._rows = torch.from_numpy(draw.normal(size=(300, 12)).astype(np.float32)) * 0.1
    reads._rows[:, :1] = signs * torch.arange(1.0, 301.0)[:, None] / 100  # the target is its sign: it cannot be undone
    writes._rows = signs.expand(300, 12).contiguous() * 5.0
    settings = make("transcoder", steps=80, lr=2e-2, learns=TranscoderOf(reads="a", writes="b"))
    with artifact.create(tmp_path / "t", artifact.Inputs(kind="dictionary", config={}, seed=5)) as draft:
        train(draft, {"a": reads, "b": writes}, settings, seed=5)
    found: Any = load_dictionary(tmp_path / "t")
    assert (found.reads, found.writes) == ("a", "b")
    output = found.decode(found.encode(reads._rows), reads._rows)
    error = (output - writes._rows).square().sum() / (writes._rows - writes._rows.mean(0)).square().sum()
    assert float(error) < 0.2
    assert read_record(tmp_path / "t" / "record.jsonl")[-1]["fvu"] < 0.3


def test_the_record_says_which_pass_over_the_rows_it_is(tmp_path: Path) -> None:
    trained(tmp_path / "sae", make("topk", steps=30, log_every=10))
    assert [line["epoch"] for line in read_record(tmp_path / "sae" / "record.jsonl")] == [
        320 // 300,
        640 // 300,
        960 // 300,
    ]


def test_a_training_that_stays_worse_than_the_mean_is_stopped_killed_or_not(tmp_path: Path) -> None:
    settings = make("topk", steps=60, lr=3.0, warmup_steps=0, log_every=1, checkpoint_every=5, clip_norm=None)
    with pytest.raises(NumericsError, match=r"above 1 for 20 lines of the record") as undisturbed:
        trained(tmp_path / "whole", settings)
    for fails_at in (12, 18):
        with pytest.raises(PowerError):
            trained(tmp_path / "killed", settings, fails_at)
    with pytest.raises(NumericsError) as caught:
        trained(tmp_path / "killed", settings)
    assert str(caught.value) == str(undisturbed.value)


@pytest.mark.parametrize(
    ("log_every", "steps", "stopped_at"),
    [(10, 1000, 200), (50, 1000, 250), (100, 1000, 300), (300, 1000, 600), (300, 520, 520)],
)
def test_a_training_is_stopped_by_steps_where_lines_are_few(
    log_every: int, steps: int, stopped_at: int, tmp_path: Path, no_shape_checks: None
) -> None:
    settings = make("topk", steps=steps, lr=3.0, warmup_steps=0, log_every=log_every, decay_share=0.0, clip_norm=None)
    with pytest.raises(
        NumericsError, match=rf"fvu .* at step {stopped_at}, above 1 for .*; try a lower train.lr than 3"
    ):
        trained(tmp_path / "sae", settings)


@pytest.mark.parametrize(
    ("log_every", "steps", "for_how_long"),
    [
        (100, 200, "2 lines of the record"),
        (300, 200, "the last line of the record"),
        (300, 499, "2 lines of the record"),
    ],
)
def test_a_training_that_ends_worse_than_the_mean_says_so(
    log_every: int,
    steps: int,
    for_how_long: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    no_shape_checks: None,
) -> None:
    settings = make("topk", steps=steps, lr=3.0, warmup_steps=0, log_every=log_every, decay_share=0.0, clip_norm=None)
    trained(tmp_path / "sae", settings)
    warning = capfd.readouterr().err.splitlines()[-1]
    fvu = read_record(tmp_path / "sae" / "record.jsonl")[-1]["fvu"]
    assert warning == (
        f"warning: a: fvu {fvu} at step {steps}, above 1 for {for_how_long}: the mean alone reconstructs better; "
        "try a lower train.lr than 3, or a lower train.sparsity.weight"
    )


def test_a_warm_up_or_a_recovery_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], no_shape_checks: None
) -> None:
    trained(tmp_path / "warm", make("topk", steps=300, lr=3.0, warmup_steps=300, log_every=10, clip_norm=None))
    trained(tmp_path / "good", make("topk", steps=300, log_every=10))
    assert "warning" not in capfd.readouterr().err


def test_the_terminal_says_that_rows_are_read_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    advance = Tracker.advance

    def noted(tracker: Tracker, count: int = 1, note: str = "") -> None:
        notes.append(note)
        advance(tracker, count, note)

    monkeypatch.setattr(Tracker, "advance", noted)
    trained(tmp_path / "twice", make("topk", steps=30, log_every=10))
    assert capfd.readouterr().err.splitlines() == ["a: the run reads its 300 training rows 3.2 times"]
    assert [note.rpartition(", ")[2] for note in notes if note] == ["epoch 1", "epoch 2", "epoch 3"]
    notes.clear()
    trained(tmp_path / "once", make("topk", steps=9))  # of 300 rows 288
    assert capfd.readouterr().err == ""
    assert not any("epoch" in note for note in notes)


@pytest.mark.parametrize("constant", ["a", "b"])
def test_a_constant_hookpoint_is_named(constant: str, tmp_path: Path) -> None:
    streams = {name: Rows(name, 12) for name in "ab"}
    streams[constant]._rows[:] = 2.0
    for learns in (TranscoderOf(reads="a", writes="b"), CrosscoderOf(hookpoints=("a", "b"))):
        with pytest.raises(NumericsError, match=rf"^{constant}: all 300 sampled rows are the same"):
            train(tmp_path, streams, make("topk", learns=learns), seed=5)


def test_statistics_of_a_cross_layer_transcoder_are_those_of_its_layers(tmp_path: Path) -> None:
    settings = make("cross-layer", nonlinearity=JumpReLU(), steps=33, lr=1e-12)
    trained(tmp_path / "clt", settings)
    clt: Any = load_dictionary(tmp_path / "clt")
    first, n_rows = 29 * 32, 4 * 32  # the last tenth of 33 steps, rounded up
    codes = clt.encode(torch.stack([Rows("a", 12).rows(first, n_rows), Rows("b", 12).rows(first, n_rows)]))
    dense = torch.cat([layer.dense() for layer in codes], 1)
    found = open_tensors(tmp_path / "clt" / "statistics.safetensors")
    # One row of each latent stands on its threshold.
    np.testing.assert_allclose(found["density"], (dense > 0).float().mean(0), atol=1.5 / n_rows)
    np.testing.assert_allclose(found["max"], dense.amax(0), rtol=1e-3, atol=1e-4)
