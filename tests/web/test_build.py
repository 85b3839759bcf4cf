"""Building the web app: without Node it says so and stops nothing, and what is built already is not built again."""

import os
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).parents[2] / "web" / "build.py"


def build(tmp_path, *arguments):
    """From a copy with nothing built, and no npm anywhere."""
    copy = tmp_path / "web" / "build.py"
    copy.parent.mkdir()
    copy.write_text(BUILD.read_text())
    for name in (
        "index.html",
        "package.json",
        "package-lock.json",
        "svelte.config.js",
        "tsconfig.json",
        "vite.config.ts",
    ):
        (copy.parent / name).write_text(name)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    environment = {"PATH": str(tmp_path / "empty")}
    return subprocess.run([python, copy, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_without_node_it_says_what_is_missing(tmp_path):
    failed = build(tmp_path)
    assert failed.returncode == 1
    assert "there is no npm; install Node" in failed.stderr


def test_where_it_may_be_missing_one_line_says_so(tmp_path):
    skipped = build(tmp_path, "--if-possible")
    assert skipped.returncode == 0
    assert skipped.stderr.count("\n") == 1
    assert "mohole serve has its API only" in skipped.stderr
