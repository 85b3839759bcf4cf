"""What TensorBoard reads back is what was recorded; without its package the error says what to do."""

import sys
from pathlib import Path

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


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(
        ConfigError, match=r"machine.watch: tensorboard is not installed; pip install 'mohole\[tensorboard\]'"
    ):
        open_sink("tensorboard", tmp_path)
