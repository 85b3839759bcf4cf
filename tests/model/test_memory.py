"""Freed memory is used again without a page fault, in a process that runs a model."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from mohole.model.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (48, 20, 48):
        np.full(megabytes << 20, 1, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{call}
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
@pytest.mark.parametrize(("call", "keeps"), [("keep_freed_memory()", True), ("", False)])
def test_large_arrays_come_from_memory_that_was_used_before(call: str, keeps: bool) -> None:
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0"}  # else a fault brings 2 MB
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(call=call)], capture_output=True, text=True, check=True, env=environment
    )
    assert (int(done.stdout) < 1000) == keeps
