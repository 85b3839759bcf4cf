"""Cores are never oversubscribed, and a changed environment is given back."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.execute import environment, share_cores


@given(n_tasks=st.integers(1, 20), processes=st.integers(0, 9), threads=st.integers(0, 9), cores=st.integers(1, 16))
def test_cores_are_never_oversubscribed(n_tasks: int, processes: int, threads: int, cores: int) -> None:
    shared = share_cores(n_tasks, processes=processes, threads=threads, cores=cores)
    assert 1 <= shared.processes * shared.threads <= cores
    assert shared.processes <= n_tasks


def test_an_environment_lasts_as_long_as_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOHOLE_OLD", "before")
    monkeypatch.delenv("MOHOLE_NEW", raising=False)
    with environment({"MOHOLE_OLD": "inside", "MOHOLE_NEW": "inside"}):
        assert (os.environ["MOHOLE_OLD"], os.environ["MOHOLE_NEW"]) == ("inside", "inside")
    assert os.environ["MOHOLE_OLD"] == "before"
    assert "MOHOLE_NEW" not in os.environ
