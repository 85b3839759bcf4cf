"""A worker that hangs is not waited for: its task runs a second time, and the store is the same."""

import time
from pathlib import Path

import pytest
from tests.faults import slow
from tests.faults.conftest import digests, leftovers, small_machine

from mohole.config import Machine
from mohole.execute import own_cores
from mohole.job import rows
from mohole.store import Store
from mohole.store import shuffle as shuffle_module


@pytest.mark.skipif(own_cores() < 2, reason="one core has one worker, and nobody to run a second copy")
@pytest.mark.parametrize("chosen", ["pass-0/resid_post.0/000001-000000", "sorted/mlp_out.1/000000-000000"])
def test_a_task_that_hangs_is_run_a_second_time(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    small_machine(monkeypatch)
    rows.shuffle_store(source, str(tmp_path / "expected"), Machine(executor="inline"), levels=1)
    marks = tmp_path / "marks"
    marks.mkdir()
    for name, value in slow.environment(chosen, marks).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(shuffle_module, "run_merge", slow.run_merge)
    begin = time.monotonic()
    rows.shuffle_store(source, str(tmp_path / "out"), Machine(executor="process", processes=2), levels=1)
    assert time.monotonic() - begin < slow.SECONDS
    assert len(list(marks.iterdir())) == 2
    made = Store.open(tmp_path / "out")
    assert digests(made) == digests(Store.open(tmp_path / "expected"))
    assert leftovers(made.storage) == []
