"""The memory of a process and everything it has started, watched from outside."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

_SECONDS_BETWEEN_LOOKS = 0.05


def watched(command: list[str], timeout: float) -> tuple[str, dict[str, float]]:
    """Run a command; what it printed, and the largest sums over its processes that were seen, in MiB.

    `pss` shares each page among the processes that hold it, so it is what the machine gives; `rss` counts it for each.
    `servers` is the part of `pss` that belongs to Ray's own servers.

    Raises:
        RuntimeError: it failed, or took too long and was ended; the text is the end of what it said.
    """
    peak = {"pss": 0.0, "rss": 0.0, "servers": 0.0}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        deadline = time.monotonic() + timeout
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.terminate()
                process.wait()
            sums = _sums(process.pid)
            peak = {name: max(value, sums[name]) for name, value in peak.items()}
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        out.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"exit status {process.returncode}: {errors.read()[-2000:]}")
        return out.read(), {name: round(value) for name, value in peak.items()}


def cpu_seconds() -> float:
    """Of this process and everything that it has started and that still runs."""
    ticks = 0
    for pid in _family(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _sums(root: int) -> dict[str, float]:
    sums = {"pss": 0.0, "rss": 0.0, "servers": 0.0}
    for pid in _family(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            name = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:  # it has ended
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
        is_server = "site-packages/ray/" in name and "ray::" not in name
        sums["pss"] += sizes.get("Pss", 0.0)
        sums["rss"] += sizes.get("Rss", 0.0)
        sums["servers"] += sizes.get("Pss", 0.0) if is_server else 0.0
    return sums


def _family(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(after_name[1]), []).append(int(folder.name))
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found
