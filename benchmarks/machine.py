"""The machine that a result was measured on, in words."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, cores, architecture and Python."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor unknown"
    )
