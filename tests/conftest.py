"""What tests share: one thread, hypothesis without deadlines, real data beside the checkout, the command line, an S3 server."""

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is a wrong test

import hypothesis
import jaxtyping
import torch
from tests import checks

from mohole.kernels import HAS_NUMBA, compiling_programs

if not torch.cuda.is_available():
    # Without a device Triton's programs run in its interpreter. It asks once, when it is imported: so here, before anyone does.
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)
EXAMPLES = int(os.environ.get("MOHOLE_TEST_EXAMPLES", "25"))
"""Of each property; the same ones every time. More are for a night, not for every change."""
hypothesis.settings.register_profile("mohole", max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("mohole")

REPOSITORY = Path(__file__).resolve().parent.parent

# Shapes and types of every call are checked, but for what handles text word by word and has no shapes: there the checks took
# five times as long as the work, and a third of all tests' time.
_WORD_BY_WORD = {f"mohole.planted.{name}" for name in ("kinds", "page", "sentences", "stream", "world")}
_WORD_BY_WORD |= {"mohole.interpret.phrasing", "mohole.interpret.text"}


def _checked_modules() -> list[str]:
    """Modules of the package, not the packages: a package's name stands for all that is in it."""
    source = REPOSITORY / "src"
    files = (file.relative_to(source).with_suffix("") for file in (source / "mohole").rglob("*.py"))
    return sorted({".".join(file.parts) for file in files if file.name != "__init__"} - _WORD_BY_WORD)


checks.install(_checked_modules())

BUCKET = "mohole-tests"
"""The one bucket of `s3_server`."""


@pytest.fixture(scope="session", autouse=True)
def no_line_while_kernels_compile() -> None:
    """What a test finds on standard error does not depend on whether its kernels were compiled before."""
    if HAS_NUMBA:
        from mohole.kernels import compiling_loops

        compiling_loops.COMPILING.hush()
    compiling_programs.COMPILING.hush()


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk() -> Iterator[None]:
    """What a killed process leaves does not depend on it: that asks for a power cut. It took half of the time of the tests that
    write thousands of small files. Tests of what is synced put their own in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real models and texts beside the checkout, or the one named by MOHOLE_SHARED."""
    place = Path(os.environ.get("MOHOLE_SHARED", REPOSITORY.parent / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"real models and texts are not there ({place}/data); set MOHOLE_SHARED to a folder that has them")
    return place


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Asked for a size, no file of this process grows beyond it: what a full disk does, but to one process and without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def exit_status(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process."""
    from mohole.cli import main

    monkeypatch.setattr(sys, "argv", ["mohole", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server with one empty bucket; the environment points every s3:// URL to it.

    One for all tests of a process: its state is the process's, so that a second server would find the first one's bucket.
    """
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
        patch.setattr("mohole.storage.remote.PART_BYTES", 5 << 20)
        patch.setattr("mohole.storage.remote.RANGE_BYTES", 1 << 20)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield address
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """For long loops over what other tests check in short ones: the checks would take four fifths of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
