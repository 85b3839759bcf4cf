"""What is special to a bucket: servers that refuse, conflict, or are not there; URLs that mean nothing."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import BUCKET

from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.storage import Storage, open_storage


@pytest.fixture
def bucket(new_storage: Callable[[str], Storage]) -> Storage:
    return new_storage("s3")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/folder", r"no storage of kind 'ftp'; write a path, file://, s3://, gs:// or memory://"),
        ("s3://", "names no bucket; write s3://BUCKET/FOLDER"),
    ],
)
def test_a_url_that_cannot_be_meant(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_storage(url)


def test_a_missing_package_is_named(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    code = """
import sys
sys.modules["s3fs"] = None  # as if it were not installed
from mohole.errors import ConfigError
from mohole.storage import open_storage
try:
    open_storage("s3://bucket/x")
except ConfigError as error:
    print(error)
"""
    assert start(code).communicate()[0].startswith("s3://bucket/x: needs the package s3fs; pip install s3fs")


def test_a_missing_bucket_is_named(s3_server: str) -> None:
    storage = open_storage("s3://no-such-bucket/folder")
    for use in (lambda: storage.put("object", b""), lambda: storage.read("object")):
        with pytest.raises(ArtifactError, match=r"^s3://no-such-bucket/folder: no such bucket; create it"):
            use()
    with pytest.raises(ArtifactError, match="no such bucket"), storage.writer("object", 3) as writer:
        writer.write(b"123")


def test_a_server_that_does_not_answer_is_one_line(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = open_storage(f"s3://{BUCKET}/elsewhere")
    with pytest.raises(
        StageError, match=rf"^s3://{BUCKET}/elsewhere: cannot be used \(Could not connect .*127.0.0.1:9"
    ):
        storage.read("object")
    s3fs.S3FileSystem.clear_instance_cache()


def test_no_credentials_are_one_line(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        StageError, match=r"cannot be used \(Unable to locate credentials\); check network, endpoint and"
    ):
        open_storage(f"s3://{BUCKET}/x").read("object")
    s3fs.S3FileSystem.clear_instance_cache()


class AnswerError(Exception):
    """As botocore raises it."""

    def __init__(self, code: str) -> None:
        self.response = {"Error": {"Code": code, "Message": code}}


def refuse(code: str, kind: type[OSError] = OSError) -> OSError:
    error = kind(5, code)
    error.__cause__ = AnswerError(code)
    return error


def answers(bucket: Storage, monkeypatch: pytest.MonkeyPatch, *errors: OSError) -> list[str]:
    """Let the server answer the next PUTs with these errors; the list fills with the paths asked for."""
    files, asked = bucket._files, []  # type: ignore[attr-defined]
    real = files.pipe_file

    def pipe_file(path: str, *arguments: object, **options: object) -> object:
        asked.append(path)
        if len(asked) <= len(errors):
            raise errors[len(asked) - 1]
        return real(path, *arguments, **options)

    monkeypatch.setattr(files, "pipe_file", pipe_file)
    return asked


def test_a_conflict_with_another_writer_is_tried_again(bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(bucket, monkeypatch, refuse("ConditionalRequestConflict"), refuse("ConditionalRequestConflict"))
    assert bucket.put_once("object", b"x")
    assert len(asked) == 3


def test_a_refused_condition_means_that_another_was_first(bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(bucket, monkeypatch, refuse("PreconditionFailed"), refuse("412"), FileExistsError())
    assert [bucket.put_once("object", b"x") for _ in range(3)] == [False, False, False]


def test_what_is_not_permitted_is_named(bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(bucket, monkeypatch, refuse("AccessDenied", PermissionError), refuse("AccessDenied", PermissionError))
    for put in (bucket.put, bucket.put_once):
        with pytest.raises(
            ArtifactError, match=r"/object: permission denied \(.*AccessDenied\); check the credentials"
        ):
            put("object", b"")


def test_an_upload_given_up_is_aborted_on_the_server(bucket: Storage) -> None:
    files = bucket._files  # type: ignore[attr-defined]
    key = f"{bucket.url.removeprefix(f's3://{BUCKET}/')}/object"

    def n_unfinished() -> int:
        return sum(upload["Key"] == key for upload in files.list_multipart_uploads(BUCKET))

    with pytest.raises(KeyError):  # noqa: PT012, SIM117
        with bucket.writer("object", 12 << 20) as writer:
            writer.write(bytes(11 << 20))
            assert n_unfinished() == 1
            raise KeyError
    assert n_unfinished() == 0
