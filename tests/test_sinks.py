"""What TensorBoard and W&B read back is what was recorded; without their packages the error says what to do."""

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mohole.errors import ConfigError
from mohole.sinks import open_sink


def test_tensorboard_reads_every_point(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sink = open_sink("tensorboard", tmp_path / "events")
    for step, fvu in ((10, 0.5), (20, None), (30, 0.25)):
        sink.write(step, {"fvu": fvu, "dead": step + 1})
    sink.close()
    events = accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    points = {
        name: [(point.step, point.tensor_proto.float_val[0]) for point in events.Tensors(name)]
        for name in ("fvu", "dead")
    }
    assert points == {"fvu": [(10, 0.5), (30, 0.25)], "dead": [(10, 11.0), (20, 21.0), (30, 31.0)]}


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real package, in an environment in which nobody has said anything about it."""
    found = pytest.importorskip("wandb", reason="the package wandb is not installed: pip install 'mohole[wandb]'")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return found


def blocks(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format, after seven bytes of their own."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Every run file below a folder, in the order of their making: its id, project, name, config and history."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(folder.rglob("*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        facts: dict[str, Any] = {"history": []}
        for block in blocks(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(block)
            if record.WhichOneof("record_type") == "run":
                facts |= {"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name}
                facts["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                facts["history"].append({name: json.loads(text) for name, text in items.items() if name[0] != "_"})
        found.append(facts)
    return found


@pytest.mark.filterwarnings("ignore")  # of the package's own
def test_wandb_keeps_every_point_offline_and_one_run_through_a_kill(wandb: Any, tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "wandb" / "resid_post.1"
    lines = [(10, 0.5), (20, None), (30, 0.25)]
    for goes_on, part in ((False, lines[:2]), (True, lines[1:])):  # killed after its line 20, which comes again
        sink = open_sink("wandb", folder, config={"n_latents": 64}, goes_on=goes_on)
        for step, fvu in part:
            sink.write(step, {"step": step, "fvu": fvu, "fvu/resid_post.1": 0.125})
        assert sink._run.settings.mode == "offline"  # type: ignore[attr-defined]
        assert wandb.run is None  # a notebook's own run is another matter
        sink.close()
    first, second = read_runs(folder)
    assert first["id"] == second["id"]
    assert (first["project"], first["name"], first["config"]["n_latents"]) == ("mohole", "resid_post.1", 64)
    assert first["history"] == [
        {"step": 10, "fvu": 0.5, "fvu/resid_post.1": 0.125},
        {"step": 20, "fvu/resid_post.1": 0.125},
    ]
    assert [line["step"] for line in second["history"]] == [20, 30]
    # Made again from the start it is another run.
    open_sink("wandb", folder).close()
    assert len({run["id"] for run in read_runs(folder)}) == 2


@pytest.mark.filterwarnings("ignore")
def test_the_users_own_environment_decides_about_wandb(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    open_sink("wandb", tmp_path / "run" / "wandb" / "a").close()
    assert not list(tmp_path.rglob("*.wandb"))
    monkeypatch.setenv("WANDB_MODE", "online")
    asked: dict[str, Any] = {}

    def nobody_there(**settings: Any) -> None:
        asked.update(settings)
        raise wandb.errors.CommError("no answer")

    monkeypatch.setattr(wandb, "init", nobody_there)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with pytest.raises(ConfigError, match=r"WANDB_MODE=online: no answer; WANDB_MODE=offline keeps the run here"):
        open_sink("wandb", tmp_path / "run" / "wandb" / "a")
    assert (asked["mode"], asked["resume"], asked["project"]) == ("online", "allow", "mine")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    monkeypatch.setattr(wandb, "init", lambda **settings: asked.update(settings))
    open_sink("wandb", tmp_path / "run" / "wandb" / "a")
    assert (asked["mode"], asked["resume"]) == ("offline", None)
    assert os.environ.pop("WANDB_ERROR_REPORTING") == "false"


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_what_to_install(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboard.summary"}.get(kind, kind), None)
    with pytest.raises(
        ConfigError, match=rf"machine.watch: {kind} is not installed; pip install 'mohole\[{kind}\]', or leave it out"
    ):
        open_sink(kind, tmp_path)
    assert not list(tmp_path.iterdir())
