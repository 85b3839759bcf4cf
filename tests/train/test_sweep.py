"""A sweep trains many dictionaries from one pass over the rows, and each is what it would be alone."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mohole import artifact
from mohole.config import BatchTopK, JumpReLU, Recipe, TopK, Train, members, parse
from mohole.config.train import CrossLayerOf, TranscoderOf
from mohole.dictionary.files import read
from mohole.errors import ArtifactError, ConfigError, NumericsError
from mohole.metrics import fvu
from mohole.record import read_record
from mohole.train import train
from mohole.train.sweep import sweep
from mohole.train.table import SweepTable

STEPS = 7
SETTINGS: dict[str, Any] = {
    "n_latents": 24, "batch_rows": 32, "steps": STEPS, "warmup_steps": 2, "log_every": 2, "checkpoint_every": 2,
    "dead_after_rows": 60, "auxk": 4, "nonlinearity": TopK(k=3),
}  # fmt: skip


class PowerError(Exception):
    """It is gone."""


class Rows:
    """A stream that counts what is read of it, and fails at a rank."""

    def __init__(self, hookpoint: str = "a", n_rows: int = 600, fails_at: int | None = None) -> None:
        self.hookpoint, self.d_model, self.n_rows, self.fails_at = hookpoint, 12, n_rows, fails_at
        self.reads: list[tuple[int, int]] = []
        draw = np.random.default_rng(len(hookpoint))
        directions = draw.normal(size=(50, 12))
        chosen = draw.random((n_rows, 50)).argpartition(3, axis=1)[:, :3]
        self._rows = torch.from_numpy((directions[chosen].sum(1) + 2.0).astype(np.float32))

    def rows(self, first: int, n_rows: int) -> torch.Tensor:
        self.reads.append((first, n_rows))
        if self.fails_at is not None and first >= self.fails_at * SETTINGS["batch_rows"]:
            raise PowerError
        return self._rows[torch.arange(first, first + n_rows) % self.n_rows]

    def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> torch.Tensor:
        return self.rows(step * n_rows, n_rows)


def make(**others: Any) -> Train:
    return Train(**(SETTINGS | others))


MEMBERS = {
    "narrow": make(),
    "wide": make(n_latents=40, lr=2e-3),
    "jump": make(nonlinearity=JumpReLU(), auxk=0),
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def swept(folder: Path, stream: Any, chosen: Mapping[str, Train] = MEMBERS) -> dict[str, bytes]:
    config = {name: settings.model_dump(mode="json") for name, settings in chosen.items()}
    with artifact.create(folder, artifact.Inputs(kind="sweep", config=config, seed=5), resume=True) as draft:
        sweep(draft, stream, chosen, seed=5)
    return files(folder)


def test_every_member_is_what_it_is_alone(tmp_path: Path) -> None:
    found = swept(tmp_path / "all", Rows())
    for name, settings in MEMBERS.items():
        (tmp_path / name).mkdir()
        train(tmp_path / name, Rows(), settings, seed=5)
        alone = files(tmp_path / name)
        assert len(alone) == 4
        own = {key.removeprefix(f"{name}/"): data for key, data in found.items() if key.startswith(f"{name}/")}
        assert own.pop("result.json")
        assert own == alone
    fewer = swept(tmp_path / "fewer", Rows(), {"wide": MEMBERS["wide"]})
    assert all(data == found[name] for name, data in fewer.items() if name.startswith("wide/"))


def test_every_batch_is_read_once(tmp_path: Path) -> None:
    stream = Rows(n_rows=8300)
    swept(tmp_path / "all", stream)
    steps = [(step * 32, 32) for step in range(STEPS)]
    assert stream.reads == [(0, 8192), *steps, (8192, 108)]  # measured on what is left, not in batches of 32


def test_rows_that_are_read_again_are_told_of_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    members = {name: make(steps=30, log_every=30) for name in ("one", "two")}
    swept(tmp_path / "sweep", Rows(), members)
    n_times = 30 * members["one"].batch_rows / 600
    said = [line for line in capfd.readouterr().err.splitlines() if "training rows" in line]
    assert said == [f"a: the run reads its 600 training rows {n_times:.3g} times"]


def test_what_all_members_take_and_what_each_took_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mohole.train.cost.QUIET_SECONDS", 0.0)
    swept(tmp_path / "sweep", Rows())
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if "no less than" in line] == [
        line for line in said if f"which {3 * STEPS} products" in line
    ]
    assert [line.partition(": last batch")[0] for line in said if "; a step took " in line] == list(MEMBERS)


def test_killed_and_gone_on_with_is_never_killed(tmp_path: Path) -> None:
    whole = swept(tmp_path / "whole", Rows())
    for fails_at in (1, 4, 6):
        with pytest.raises(PowerError):
            swept(tmp_path / "killed", Rows(fails_at=fails_at))
    draft = tmp_path / ".killed.partial"
    assert sorted(file.stem for file in (draft / "jump" / "checkpoints").glob("*.json")) == ["0000000004", "0000000006"]
    # Members that were killed at different steps, one at the first, and one that was finished.
    shutil.rmtree(draft / "wide")
    for file in (draft / "jump" / "checkpoints").glob("0000000006.*"):
        file.unlink()
    shutil.copytree(tmp_path / "whole" / "narrow", draft / "narrow", dirs_exist_ok=True)
    shutil.rmtree(draft / "narrow" / "checkpoints")
    assert swept(tmp_path / "killed", Rows()) == whole
    assert not any("checkpoint" in name or "draft" in name for name in whole)


def half_swept(folder: Path) -> Path:
    """A sweep that was killed when its first member was finished. Returns its draft."""
    swept(folder / "whole", Rows())
    with pytest.raises(PowerError):
        swept(folder / "killed", Rows(fails_at=4))
    draft = folder / ".killed.partial"
    shutil.rmtree(draft / "narrow")
    shutil.copytree(folder / "whole" / "narrow", draft / "narrow")
    return draft


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "fvu": ("result.json", lambda data: data.replace(b'"fvu": 0', b'"fvu": 1')),
    "empty": ("result.json", lambda data: b"{}"),
    "not JSON": ("result.json", lambda data: b"\xff"),
    "deep": ("result.json", lambda data: b"[" * 100_000),
    "weights": ("dictionary.safetensors", lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]),
    "record": ("record.jsonl", lambda data: data[: data.rindex(b'"')]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_member_that_is_damaged_is_named(tmp_path: Path, damage: str) -> None:
    draft = half_swept(tmp_path)
    name, change = DAMAGES[damage]
    file = draft / "narrow" / name
    before = file.read_bytes()
    file.write_bytes(change(before))
    assert file.read_bytes() != before
    with pytest.raises(ArtifactError, match=rf"narrow/{name}: .*; delete .*narrow to train this member again"):
        swept(tmp_path / "killed", Rows())
    file.unlink()
    if name != "result.json":  # without that, it is not finished
        with pytest.raises(ArtifactError, match=rf"narrow/{name}: missing"):
            swept(tmp_path / "killed", Rows())
    shutil.rmtree(draft / "narrow")
    assert swept(tmp_path / "killed", Rows()) == files(tmp_path / "whole")


def test_the_table_is_of_rows_that_nothing_was_learned_from(tmp_path: Path) -> None:
    stream = Rows(n_rows=8300)
    swept(tmp_path / "all", stream)
    table = SweepTable.read(tmp_path / "all" / "table.json")
    assert (table.measured_on.rows, table.measured_on.first, table.measured_on.n_rows) == ("unseen", 8192, 108)
    assert [entry.name for entry in table.members] == list(MEMBERS)
    for entry in table.members:
        dictionary: Any = read(tmp_path / "all" / entry.name)
        rows = stream.rows(8192, 108)
        codes = dictionary.encode(rows)
        assert entry.fvu == pytest.approx(float(fvu(rows, dictionary.decode(codes))), rel=1e-5)
        assert entry.l0 == pytest.approx(float(codes.n_active.float().mean()), rel=1e-5)
        assert entry.silent_share == pytest.approx(float((codes.dense() == 0).all(0).float().mean()), abs=1e-5)
        assert entry.rows == STEPS * 32
    narrow = table.members[0]
    assert (narrow.k, narrow.penalty, table.members[2].penalty) == (3, None, "l0")
    record = read_record(tmp_path / "all" / "narrow" / "record.jsonl")
    assert narrow.dead_share == pytest.approx(record[-1]["dead"] / 24, rel=1e-5)
    l0 = np.mean([line["l0"] for line in record])
    assert narrow.flops == pytest.approx(2 * STEPS * 32 * 12 * (24 + 4 * l0), rel=1e-5)


def test_where_every_row_was_trained_on_the_table_is_of_the_last_steps(tmp_path: Path) -> None:
    swept(tmp_path / "all", Rows(n_rows=200), {"narrow": MEMBERS["narrow"]})
    table = SweepTable.read(tmp_path / "all" / "table.json")
    record = read_record(tmp_path / "all" / "narrow" / "record.jsonl")
    assert (table.measured_on.rows, table.measured_on.n_rows) == ("trained", STEPS * 32)
    assert table.members[0].fvu == pytest.approx(np.mean([line["fvu"] for line in record]), rel=1e-5)


def test_kinds_of_several_hookpoints(tmp_path: Path) -> None:
    streams = {"a": Rows("a"), "bb": Rows("bb")}
    for learns in (
        TranscoderOf(reads="a", writes="bb", skip=True),
        CrossLayerOf(reads=("a", "bb"), writes=("bb", "a")),
    ):
        chosen = {f"k{k}": make(learns=learns, nonlinearity=BatchTopK(k=k)) for k in (2, 4)}
        swept(tmp_path / learns.kind, streams, chosen)
        table = SweepTable.read(tmp_path / learns.kind / "table.json")
        assert all(entry.fvu and 0 < entry.fvu < 3 and entry.flops for entry in table.members)
        assert table.learns == learns.kind


def test_a_member_that_diverges_is_a_line_of_the_table(tmp_path: Path) -> None:
    chosen = {"narrow": MEMBERS["narrow"], "wild": make(lr=1e30)}
    found = swept(tmp_path / "all", Rows(), chosen)
    alone = swept(tmp_path / "alone", Rows(), {"narrow": MEMBERS["narrow"]})
    assert all(data == found[name] for name, data in alone.items() if name.startswith("narrow/"))
    wild = SweepTable.read(tmp_path / "all" / "table.json").members[1]
    assert wild.fvu is None
    assert "try a lower train.lr" in str(wild.failure)
    assert "failed" in found["frontier.html"].decode()
    with pytest.raises(NumericsError, match="every member of the sweep has failed; wild: a: "):
        swept(tmp_path / "wild", Rows(), {"wild": chosen["wild"]})


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = swept(tmp_path / "all", Rows())["frontier.html"].decode()
    assert page.count("<figure>") == 2
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http://", "https://", "<script", "nan"))


def test_members_that_need_other_batches_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep: b has train.steps 9, and a 7; members read the same batches"):
        sweep(tmp_path, Rows(), {"a": make(), "b": make(steps=9)}, seed=0)
    with pytest.raises(ConfigError, match=r"sweep: no members; list sweep.n_latents"):
        sweep(tmp_path, Rows(), {}, seed=0)


def test_a_recipe_lists_members_as_a_grid_and_as_tables() -> None:
    own = [
        {"name": "relu", "nonlinearity": {"kind": "relu"}},
        {"name": "k32", "nonlinearity": {"k": 32}, "n_latents": 64},
    ]
    recipe = parse({"run": "x", "train": {"dictionary": own}, "sweep": {"n_latents": [64, 128], "k": [4, 8]}})
    found = members(recipe)
    assert list(found) == ["n64-k4", "n64-k8", "n128-k4", "n128-k8", "relu", "k32"]
    assert (found["n128-k4"].n_latents, found["n128-k4"].nonlinearity) == (128, TopK(k=4))
    assert (found["k32"].n_latents, found["k32"].nonlinearity, found["relu"].n_latents) == (64, TopK(k=32), 1024)
    weights = parse({"run": "x", "train": {"nonlinearity": {"kind": "relu"}}, "sweep": {"sparsity_weight": [1.0, 2.0]}})
    assert [each.penalty() and each.penalty().weight for each in members(weights).values()] == [1.0, 2.0]  # type: ignore[union-attr]
    assert members(Recipe(run="x")) == {}
    assert "dictionary" not in recipe.model_dump()["train"]  # members are no part of what one training is made from


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"sweep": {"k": [0]}}, "sweep.k.0: 0 is too small; the smallest is 1"),
        ({"sweep": {"lrs": [1.0]}}, "sweep.lrs: no such key in Sweep; did you mean sweep.lr?"),
        ({"sweep": {"k": [4, 4]}}, "sweep.k: 4 is listed twice"),
        ({"sweep": {"k": [4096]}}, "sweep, k4096: train.nonlinearity.k: 4096 is more than n_latents"),
        ({"sweep": {"sparsity_weight": [1.0]}}, "sweep.sparsity_weight: topk has no sparsity_weight; list sweep.k"),
        (
            {"train": {"nonlinearity": {"kind": "relu"}}, "sweep": {"k": [4]}},
            "sweep.k: relu has no k; list sweep.sparsity",
        ),
        ({"train": {"dictionary": [{"n_latents": 4}]}}, "train.dictionary.0.name: None is no name for a member"),
        ({"train": {"dictionary": [{"name": "../a"}]}}, "train.dictionary.0.name: '../a' is no name"),
        (
            {"train": {"dictionary": [{"name": "a", "stepz": 4}]}},
            "sweep, a: train.stepz: no such key in Train; did you mean",
        ),
        ({"train": {"dictionary": [{"name": "a"}, {"name": "a"}]}}, "train.dictionary: 'a' is there twice"),
        ({"train": {"dictionary": [{"name": "a"}, {"name": "b", "batch_rows": 8}]}}, "sweep: b has train.batch_rows 8"),
    ],
)
def test_members_that_cannot_be_meant_are_named(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"run": "x"} | tables)
    assert message in str(caught.value)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    swept(tmp_path / "all", Rows(), {"narrow": MEMBERS["narrow"]})
    file = tmp_path / "all" / "table.json"
    raw = json.loads(file.read_text())
    raw["members"][0]["speed"] = 3
    file.write_text(json.dumps(raw))
    with pytest.raises(ArtifactError, match=r"table.json: not a sweep's table of this version .*speed.*; sweep again"):
        SweepTable.read(file)
