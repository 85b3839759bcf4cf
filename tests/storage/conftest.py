"""Storages of every kind to hold to the same laws: a folder, memory, and an S3 server on this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import BUCKET

from mohole.storage import Storage, open_storage

KINDS = ("local", "memory", "s3")
_numbers = count()


@pytest.fixture(scope="session")
def new_storage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Storage]:
    """Make an empty storage of a kind."""

    def make(kind: str) -> Storage:
        if kind == "local":
            return open_storage(tmp_path_factory.mktemp("storage"))
        if kind == "s3":
            request.getfixturevalue("s3_server")
            return open_storage(f"s3://{BUCKET}/{next(_numbers)}")
        return open_storage(f"memory://{next(_numbers)}")

    return make


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, new_storage: Callable[[str], Storage]) -> Storage:
    return new_storage(request.param)


@pytest.fixture(params=["local", "s3"])
def shared_storage(request: pytest.FixtureRequest, new_storage: Callable[[str], Storage]) -> Storage:
    """One that other processes see too."""
    return new_storage(request.param)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run Python code in another process; it is gone when the test ends."""
    processes = []

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"
