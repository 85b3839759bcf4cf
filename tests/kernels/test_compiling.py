"""Somebody who waits for a compiler is told so: once, when it takes long, and not when it does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mohole.kernels.compiling import Compiling

WORDS = "compiling\n"


def compile_for(compiling: Compiling, seconds: float, inner: float = 0.0) -> None:
    with compiling:
        if inner:
            compile_for(compiling, inner)
        time.sleep(seconds)


def test_a_long_one_is_told_of_while_it_runs_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    compiling = Compiling("compiling", 0.05)
    with compiling:
        time.sleep(0.4)
        assert capsys.readouterr().err == WORDS
    compile_for(compiling, 0.2)
    assert capsys.readouterr().err == ""


def test_many_short_ones_are_told_of_too_and_those_inside_others_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    compiling = Compiling("compiling", 0.5)
    for _ in range(3):
        compile_for(compiling, 0.05, inner=0.05)
    assert capsys.readouterr().err == ""
    for _ in range(5):
        compile_for(compiling, 0.1)
    assert capsys.readouterr().err == WORDS


def test_one_that_fails_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    compiling = Compiling("compiling", 0.1)
    with pytest.raises(MemoryError), compiling:
        raise MemoryError
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_numba_tells_when_it_compiles() -> None:
    pytest.importorskip("numba")
    code = (
        "import numba, time\n"
        "from mohole.kernels import compiling_loops\n"
        "compiling_loops.COMPILING._left = 0.0\n"
        "numba.njit(lambda x: x + 1)(3); time.sleep(0.2)\n"
    )
    assert said_by(code) == "compiling kernels for this processor; once on this machine, it is kept for the next time\n"


A_DEVICE = """
import time, torch
from types import SimpleNamespace
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from mohole.kernels import compiling_programs, gpu_sums, gpu_sum_programs as programs
target = GPUTarget("cuda", 90, 32)
driver.set_active(SimpleNamespace(
    get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
))
compiling_programs.COMPILING._left = float({left})
kind, whole = torch.float32, torch.int32
programs.decode_rows.warmup(
    whole, whole, kind, kind, kind, 7, 64, SUM=programs.SINGLE, BLOCK_E=64, PAIRS=2, num_warps=4, enable_fp_fusion=True,
    grid=(1,),
)
time.sleep(0.2)
"""
"""Compiled for a device that is not there: as it would be, up to where it would be started."""


def test_triton_tells_when_it_compiles_and_not_when_it_does_not_take_long(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    own = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    told = "compiling kernels for this GPU; once for these sizes, it is kept for the next time\n"
    assert said_by(A_DEVICE.format(left=0.0), **own) == told
    assert said_by(A_DEVICE.format(left=60.0), **own) == ""


def said_by(code: str, **environment: str) -> str:
    """What a fresh process that runs it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
