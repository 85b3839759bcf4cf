"""What a stranger may not do: large bodies, other hosts, paths that lead out, more texts at once than there is a queue for."""

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.report.run_folder import BRIDGE
from tests.serve.conftest import TOKEN, WRITER, plain_xray, serving

from mohole.serve import connections, finders, shapes
from mohole.serve.app import make_app
from mohole.serve.errors import MOST_BODY_BYTES
from mohole.serve.guards import LOOPBACK


@pytest.mark.parametrize("path", ["features/3/notes", "xray"])
def test_a_large_body_is_refused_whether_it_says_its_size_or_not(client: httpx.Client, at: str, path: str) -> None:
    large = b'{"text": "' + b"x" * MOST_BODY_BYTES + b'"}'
    headers = WRITER | {"Content-Type": "application/json"}
    told = client.post(f"{at}/{path}", content=large, headers=headers)
    pieces = (large[i : i + 4096] for i in range(0, len(large), 4096))
    streamed = client.post(f"{at}/{path}", content=pieces, headers=headers)
    for answer in (told, streamed):
        assert answer.status_code == 413
        assert shapes.Error.model_validate(answer.json()).error
        assert "content-security-policy" in answer.headers
    assert client.get(f"{at}/features/3/notes").json() == []


def test_a_size_that_is_a_lie_is_no_way_around(client: httpx.Client, at: str) -> None:
    """Past what it said it would send, a request's bytes are the next request's."""
    host, port = str(client.base_url.host), client.base_url.port
    with socket.create_connection((host, port), timeout=10) as raw:
        head = f"POST {at}/xray HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999999999999\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(4096).startswith(
            (b"HTTP/1.1 413", b"HTTP/1.1 400")
        )  # the latter: uvicorn itself, with httptools


def test_every_answer_has_the_headers_that_keep_a_page_in_its_place(client: httpx.Client, at: str) -> None:
    for path in ("/api/v1/runs", f"{at}/features/3", "/api/v1/nothing", f"{at}/features?limt=1", "/"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_on_loopback_only_its_own_names_are_answered(serve, pristine_run: Path) -> None:
    local: httpx.Client = serve(pristine_run, hosts=LOOPBACK)
    for host in ("127.0.0.1", "localhost:8765", "[::1]:8765", "LOCALHOST"):
        assert local.get("/api/v1/runs", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil", ""):
        answer = local.get("/api/v1/runs", headers={"Host": host})
        assert answer.status_code == 400, host
        assert shapes.Error.model_validate(answer.json())


@pytest.fixture(scope="module")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app")
    (root / "secret.html").write_text("secret")
    folder = root / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>the app" + " " * 3000)
    (folder / "assets" / "a-1234.js").write_text("let a = 1")
    (folder / "out.html").symlink_to(root / "secret.html")
    return folder


@pytest.fixture(scope="module")
def site(serve, pristine_run: Path, app_folder: Path) -> httpx.Client:
    found: httpx.Client = serve(pristine_run, static=app_folder)
    return found


def test_the_app_is_served_and_addresses_without_their_hash_lead_to_it(site: httpx.Client) -> None:
    for path in ("/small-run", "/small-run/a.b/x%20y", "/small-run/resid_post.0/417"):
        answer = site.get(path)
        assert answer.status_code == 307
        assert str(site.base_url.join(path).join(answer.headers["location"])) == f"{site.base_url}/#{path}"
    for path in ("/", "/index.html"):
        answer = site.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
        assert "the app" in answer.text
        assert answer.headers["cache-control"] == "no-cache"
    again = site.get("/", headers={"If-None-Match": site.get("/").headers["etag"]})
    assert again.status_code == 304
    script = site.get("/assets/a-1234.js")
    assert (script.text, script.headers["content-type"]) == ("let a = 1", "text/javascript; charset=utf-8")
    assert "immutable" in script.headers["cache-control"]
    for missing in ("/assets/b-1234.js", "/favicon.svg", "/api/v1/nothing", "/api/nothing", "/api"):
        assert site.get(missing).status_code == 404, missing
        assert shapes.Error.model_validate(site.get(missing).json())


TRAVERSALS = (
    "/../secret.html", "/..%2fsecret.html", "/%2e%2e/secret.html", "/%2e%2e%2fsecret.html", "/assets/../../secret.html",
    "/assets/..%5c..%5csecret.html", "//secret.html", "/%00/../secret.html", "/....//secret.html", "/out.html",
    "/static/../../secret.html", "/%252e%252e%252fsecret.html",
)  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_the_app(site: httpx.Client, path: str) -> None:
    """Sent raw: a client library would tidy it."""
    with socket.create_connection((str(site.base_url.host), site.base_url.port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while block := raw.recv(65536):
            answer += block
    assert b"secret" not in answer.replace(b"secret.html", b"")
    assert answer.split(b" ")[1] in (b"307", b"404", b"400")
    if b"\r\nlocation: " in answer:
        assert answer.partition(b"\r\nlocation: ")[2].startswith((b"./#/", b"../")), "another host"


@pytest.mark.parametrize(
    "name", ["..", "../small-run", "%2e%2e", "..%2f..%2fcorpus", "%00", "small-run%00", "é" * 50, "x" * 5000]
)
def test_names_are_looked_up_and_are_never_paths(client: httpx.Client, at: str, name: str) -> None:
    for path in (f"/api/v1/runs/{name}", f"/api/v1/runs/small-run/{name}/features", f"/api/feature/{name}/x/1"):
        answer = client.get(path)
        if answer.status_code == 200:  # a client takes .. away before it asks
            assert answer.url.path in ("/api/v1/runs", "/api/v1/runs/small-run")
        else:
            assert answer.status_code in (404, 422)
            assert "corpus.json" not in answer.text


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """A model that does not begin until it is let."""
    event, at_once = threading.Event(), []

    def slow(*arguments: object, **options: object) -> object:
        at_once.append(1)
        assert len(at_once) == 1, "two texts at a time"
        event.wait(20)
        at_once.pop()
        return plain_xray(*arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finders, "xray", slow)
        yield event
        event.set()


def test_texts_wait_in_a_short_queue_and_readers_do_not_wait(client: httpx.Client, at: str, gate) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(client.post, f"{at}/xray", json={"text": f"text {i}"}) for i in range(12)]
        done, waiting = concurrent.futures.wait(asked, timeout=20, return_when=concurrent.futures.FIRST_COMPLETED)
        while len(done) < 4:
            more, waiting = concurrent.futures.wait(waiting, timeout=20, return_when=concurrent.futures.FIRST_COMPLETED)
            assert more
            done |= more
        for refused in done:
            answer = refused.result()
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert shapes.Error.model_validate(answer.json())
        assert client.get(f"{at}/features/3").status_code == 200
        gate.set()
        assert [each.result().status_code for each in waiting] == [200] * 8
    assert client.post(f"{at}/xray", json={"text": "again"}).status_code == 200


def test_a_model_that_is_not_here_is_said_so(pristine_run: Path, at: str) -> None:
    app = make_app([pristine_run], TOKEN)
    with serving(app) as address:
        assert not httpx.get(f"{address}/api/v1/runs").json()["runs"][0]["can_xray"]
        token = httpx.get(f"{address}{at}/features/{BRIDGE}").json()["top"][0]["token"]
        asked = (
            httpx.post(f"{address}{at}/xray", json={"text": "x"}),
            httpx.get(f"{address}{at}/features/{BRIDGE}/effect?token={token}"),
        )
        for answer in asked:
            assert answer.status_code == 503
            assert "--model" in answer.json()["next_step"]
            assert "is not on this machine" in shapes.Error.model_validate(answer.json()).error


def test_a_fault_of_ours_tells_nothing_of_the_inside(pristine_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> object:
        raise RuntimeError("inside")

    monkeypatch.setattr("mohole.serve.answers.runs", broken)
    monkeypatch.setattr("uvicorn.protocols.http.h11_impl.RequestResponseCycle.run_asgi", _quietly)
    with serving(make_app([pristine_run])) as address:
        answer = httpx.get(f"{address}/api/v1/runs")
    assert answer.status_code == 500
    assert "inside" not in shapes.Error.model_validate(answer.json()).error


async def _quietly(self, app) -> None:
    """As uvicorn runs an app, but its traceback is not printed."""
    with contextlib.suppress(RuntimeError):
        await app(self.scope, self.receive, self.send)


def test_thousands_of_connections_that_ask_for_nothing_are_closed_and_nobody_waits(
    pristine_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1.0)
    with contextlib.ExitStack() as stack, serving(make_app([pristine_run]), http=connections.Patient) as address:
        host, port = address.removeprefix("http://").split(":")
        idle = [stack.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(1500)]
        idle[0].sendall(b"GET /api/v1/runs HTTP/1.1\r\nHo")
        assert httpx.get(f"{address}/health", timeout=10).status_code == 200
        closed = [each.recv(1) for each in idle]
        assert closed == [b""] * 1500
        client = stack.enter_context(httpx.Client(base_url=address, timeout=10))
        for _ in range(3):  # one that asks is not closed between
            assert client.get("/health").status_code == 200
            time.sleep(0.4)
