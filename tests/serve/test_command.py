"""`mohole serve`: a server of its own process, its token, its end, and what it refuses to begin with."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.conftest import exit_status


@contextmanager
def command(*arguments: object, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The running command and the address it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mohole", "serve", *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        address = re.match(r"(http://127\.0\.0\.1:\d+) serves ", said)
        assert address, said
        yield address[1], process
    finally:
        process.kill()
        process.communicate()


def test_it_serves_takes_the_token_and_ends_well(pristine_run: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-a-file\n")
    label = "/api/v1/runs/small-run/resid_post.0/features/3/label"
    with command(pristine_run, "--token-file", tmp_path / "token") as (address, process):
        assert httpx.get(f"{address}/api/v1/runs").json()["can_write"]
        assert httpx.get(f"{address}/api/v1/runs", headers={"Host": "evil.example"}).status_code == 400
        headers = {"Authorization": "Bearer of-a-file"}
        assert httpx.delete(address + label, headers=headers).status_code == 404
        assert httpx.delete(address + label, headers={"Authorization": "Bearer of-a"}).status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_several_processes_are_one_server_and_end_together(run: Path) -> None:
    path = "/api/v1/runs/small-run/resid_post.0/features/3"
    with command(run, "--workers", "2", MOHOLE_TOKEN="known") as (address, process):
        for text in ("one", "two"):  # whoever is asked: each connection may go to either
            said = httpx.put(f"{address}{path}/label", json={"text": text}, headers={"Authorization": "Bearer known"})
            assert said.status_code == 200
            assert {httpx.get(address + path).json()["label"]["text"] for _ in range(8)} == {text}
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert re.search(r"error: a process of this server ended \(-9\)", process.stderr.read())
        with pytest.raises(httpx.ConnectError):
            httpx.get(address + path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_all_processes_do(told: signal.Signals) -> None:
    code = """
import os, time
from mohole.cli.workers import run_forked

def work(own):
    os.write(1, b"ready\\n")
    time.sleep(60)

run_forked(2, work)
print("ended")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        process.send_signal(told)
        said += process.communicate(timeout=20)[0].splitlines(keepends=True)  # its end: nobody else holds the pipe
        assert said == ["ready\n", "ready\n", "ended\n"]
        assert process.returncode == 0


def test_the_token_may_come_from_the_environment(pristine_run: Path) -> None:
    with command(pristine_run, MOHOLE_TOKEN="of-the-environment") as (address, process):
        assert httpx.get(f"{address}/api/v1/runs").json()["can_write"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_what_cannot_be_served_is_one_line(
    pristine_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "two").write_text("two words")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = (
            ((pristine_run, "--port", port), rf"--port {port}: .*; --port 0 takes a free one"),
            ((tmp_path / "no", "--port", 0), "no: no such folder"),
            ((pristine_run / "corpus", "--port", 0), "an artifact, not a run"),
            ((pristine_run, "--port", 0, "--token-file", tmp_path / "empty"), "empty: no token in it"),
            ((pristine_run, "--port", 0, "--token-file", tmp_path / "two"), "two: no token in it"),
            ((pristine_run, "--port", 0, "--token-file", tmp_path / "none"), "none: no such file"),
            ((pristine_run, "--port", 0, "--host", "no.such.host.invalid"), "--host no.such.host.invalid"),
        )
        for arguments, words in cases:
            assert exit_status(monkeypatch, "serve", *arguments) == 1
            said = capsys.readouterr().err
            assert re.fullmatch(rf"error: .*{words}.*\n", said), said


def test_the_command_line_stays_light() -> None:
    """--help of this verb, too, loads neither the web framework nor torch."""
    code = """
import sys

sys.argv = ["mohole", "serve", "--help"]
from mohole.cli import main

try:
    main()
finally:
    print([name for name in ("torch", "fastapi", "uvicorn") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_it_can_be_talked_to_with_a_key_and_says_so_when_it_ends(talking_run: Path, tmp_path: Path) -> None:
    """A process of its own, with the model as it finds it."""
    import openai

    (tmp_path / "keys").write_text("# who\nright-key\n")
    options = ("--model", "planted", "--api-key-file", tmp_path / "keys", "--log", tmp_path / "log")
    with command(talking_run, *options) as (address, process):
        asked = {"model": "demo", "prompt": "The", "max_tokens": 110, "seed": 4}
        assert httpx.post(f"{address}/v1/completions", json=asked).status_code == 401
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="right-key", max_retries=0)
        stream = iter(client.completions.create(**asked, stream=True))
        next(stream)
        process.send_signal(signal.SIGINT)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] in (
            "length",
            "stop",
        )  # who is being answered is waited for
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert [line["status"] for line in map(json.loads, (tmp_path / "log").read_text().splitlines())] == [401, 200]


@pytest.mark.parametrize(
    ("keys", "words"), [("", "no key in it"), ("short", "at least 8"), ("right-key\nwith space", "one word")]
)
def test_keys_that_are_none_are_refused(
    run: Path,
    tmp_path: Path,
    keys: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "keys").write_text(keys)
    assert exit_status(monkeypatch, "serve", run, "--api-key-file", tmp_path / "keys") != 0
    assert words in capsys.readouterr().err
