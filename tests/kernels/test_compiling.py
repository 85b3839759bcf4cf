"""Somebody who waits for a compiler is told so: once, when it takes long, and not when it does not."""

import subprocess
import sys
import time

import pytest

pytest.importorskip("numba")

from mohole.kernels.compiling import Compiling

WORDS = "compiling kernels for this processor; once on this machine, it is kept for the next time\n"


def compile_for(listener: Compiling, seconds: float, inner: float = 0.0) -> None:
    listener.on_start(None)
    if inner:
        compile_for(listener, inner)
    time.sleep(seconds)
    listener.on_end(None)


def test_a_long_one_is_told_of_while_it_runs_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    listener = Compiling(0.05)
    listener.on_start(None)
    time.sleep(0.4)
    assert capsys.readouterr().err == WORDS
    listener.on_end(None)
    compile_for(listener, 0.2)
    assert capsys.readouterr().err == ""


def test_many_short_ones_are_told_of_too_and_those_inside_others_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    listener = Compiling(0.5)
    for _ in range(3):
        compile_for(listener, 0.05, inner=0.05)
    assert capsys.readouterr().err == ""
    for _ in range(5):
        compile_for(listener, 0.1)
    assert capsys.readouterr().err == WORDS


def test_numba_tells_when_it_compiles() -> None:
    code = (
        "import numba, time\n"
        "from mohole.kernels import compiling\n"
        "compiling.COMPILING._left = 0.0\n"
        "numba.njit(lambda x: x + 1)(3); time.sleep(0.2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == WORDS
