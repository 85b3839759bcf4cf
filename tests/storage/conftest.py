"""Storages of every kind to hold to the same laws: a folder, memory, and an S3 server on this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mohole.storage import Storage, open_storage

KINDS = ("local", "memory", "s3")
BUCKET = "mohole-tests"
_numbers = count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server with one empty bucket; the environment points every s3:// URL to it."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server]")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    settings = {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        # The least that S3 takes as a part: this server is slow, and what it is for is having several.
        patch.setattr("mohole.storage.remote._PART_BYTES", 5 << 20)
        patch.setattr("mohole.storage.remote._RANGE_BYTES", 1 << 20)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield address
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


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
