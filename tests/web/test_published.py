"""A published folder in a real browser, on a plain static host: as good as the server; what a bad host or copy lacks is named."""

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from tests.publish.conftest import BY_HAND, RUN, run
from tests.publish.reader import HEADER
from tests.report.run_folder import BRIDGE, DEAD, HOOKPOINTS
from tests.web.conftest import NEEDS_APP, faults

from mohole.publish import publish
from mohole.serve import answers
from mohole.serve.bodies import json_bytes
from mohole.serve.queries import FeaturesAsk
from mohole.serve.runs import open_runs

expect = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; install mohole[dev]").expect
pytestmark = NEEDS_APP
HERE = f"#/{RUN}/{HOOKPOINTS[0]}"
PLACE = f"data/{RUN}/{HOOKPOINTS[0]}"
MANY = 34_000_000

__all__ = ["run"]  # the fixture


class Host(http.server.BaseHTTPRequestHandler):
    """A static host. `ranged` says which files it sends parts of."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its head

    def __init__(self, folder: Path, ranged: Callable[[str], bool], sent: list[tuple[str, int]], *rest: Any) -> None:
        self.folder, self.ranged, self.sent = folder, ranged, sent
        super().__init__(*rest)

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path)[1:] or "index.html"
        file = self.folder / name
        if not file.is_file():
            self.send_error(404)
            return
        size, wanted = file.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted and self.ranged(name) else (0, size)
        is_part = bool(wanted and self.ranged(name))
        if is_part and first >= size:
            self.send_error(416)
            return
        self.send_response(206 if is_part else 200)
        types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        self.send_header("Content-Type", types.get(file.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(last - first))
        if is_part:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{size}")
        self.end_headers()
        with file.open("rb") as source:
            source.seek(first)
            while first < last and (part := source.read(min(1 << 16, last - first))):
                try:
                    self.wfile.write(part)
                except ConnectionError:  # the reader has seen enough
                    self.close_connection = True
                    return
                first += len(part)
                self.sent.append((name, len(part)))

    def log_message(self, *_: object) -> None: ...


@contextmanager
def hosting(
    folder: Path, ranged: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Its address, and what it has sent: file and bytes."""
    sent: list[tuple[str, int]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Host, folder, ranged, sent))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def site(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish([run], tmp_path_factory.mktemp("published") / "site").path


@pytest.fixture(scope="module")
def host(site: Path) -> Iterator[str]:
    with hosting(site) as (address, _):
        yield address


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab that must stay silent: no script fails, nothing is asked of another host, no address is missing."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("http://127.0.0.1", "blob:")) else problems.append(asked.url),
    )
    page.on("response", lambda got: problems.append(got.url) if got.status == 404 else None)
    yield page
    context.close()
    assert problems == []


def test_what_a_person_exports_is_what_the_server_answers(tab: Any, host: str, run: Path) -> None:
    served = open_runs([run])
    place = served.hookpoint(RUN, HOOKPOINTS[0])
    for latent in (0, BRIDGE, BY_HAND[0], DEAD, 33):
        tab.goto(f"{host}/{HERE}/{latent}")
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Export JSON").click()
        exported = json.loads(download.value.path().read_text())
        assert exported == json.loads(json_bytes(answers.feature_facts(place, latent))), latent
        assert tab.title() != "owned", "text from the corpus was run"
    served.close()


def test_lists_are_sorted_filtered_and_searched_as_the_server_does(tab: Any, host: str, run: Path) -> None:
    served = open_runs([run])
    place = served.hookpoint(RUN, HOOKPOINTS[0])
    asks: tuple[dict[str, Any], ...] = (
        {},
        {"which": "all", "sort": "latent"},
        {"which": "all", "sort": "latent", "descending": True},
        {"sort": "label", "descending": True},
        {"sort": "label", "q": "STRASSE"},
        {"sort": "density", "descending": True, "status": "good"},
        {"sort": "maximum", "least_f1": 0.8, "most_density": 0.1},
        {"which": "dead"},
        {"which": "all", "family": 0},
        {"q": "ra"},  # unscored ones, and then the one by hand
        {"q": "12", "sort": "latent"},
        {"sort": "f1", "status": "person"},
    )
    for ask in asks:
        usual = {"sort": "f1", "descending": ask.get("sort") not in ("latent", "label")}  # the page's own order
        wanted = answers.feature_page(place, FeaturesAsk(**(usual | ask), limit=12))
        query = "&".join(f"{name}={str(value).lower() if value is True else value}" for name, value in ask.items())
        tab.goto(f"{host}/{HERE}/features?{query}")
        expect(tab.locator(".found")).to_have_text(re.compile(rf"^{wanted['total']} "))
        shown = tab.locator(".rows .row:nth-child(-n+12) .latent")
        expect(shown).to_have_text([str(line["latent"]) for line in wanted["features"]])
    served.close()


def test_every_page_is_there_and_what_takes_a_server_is_said(tab: Any, host: str, tmp_path: Path) -> None:
    pages = {
        "runs": ("#/", "the texts of each example"),
        "run": (f"#/{RUN}", "Where everything came from"),
        "feature": (f"{HERE}/{BRIDGE}", "takes no notes and reads no texts of yours"),
        "atlas": (f"{HERE}/atlas?q=bridge", "2 found"),
        "xray": (f"{HERE}/xray", "no model that could read yours"),
        "lost": (f"{HERE}/40", "there are 0 to 39"),
    }
    for name, (where, said) in pages.items():
        tab.goto("about:blank")
        tab.goto(f"{host}/{where}")
        expect(tab.locator("main")).to_contain_text(re.compile(said))
        expect(tab.locator(".waiting")).to_have_count(0)
        tab.screenshot(path=tmp_path / f"{name}.png", full_page=name != "atlas")
        assert name not in ("runs", "feature", "xray") or faults(tab) == []  # the others are as they are served
    tab.goto(f"{host}/{HERE}/{BRIDGE}")
    example = tab.locator(".example").first
    expect(tab.get_by_role("button", name="Show more")).to_have_count(0)
    expect(tab.locator(".notes textarea")).to_have_count(0)
    example.locator(".strength").click()
    expect(tab.locator(".linked")).to_contain_text("The linked place")


def test_a_host_without_ranges_is_named_before_anything_is_read(tab: Any, site: Path, tmp_path: Path) -> None:
    with hosting(site, ranged=lambda _: False) as (address, sent):
        for page in ("#/", f"{HERE}/3", f"{HERE}/atlas"):
            tab.goto("about:blank")
            tab.goto(f"{address}/{page}")
            expect(tab.locator("main")).to_contain_text("does not answer range requests")
            expect(tab.locator("main")).to_contain_text("mohole serve FOLDER")
        tab.screenshot(path=tmp_path / "no-ranges.png")
        assert {name for name, _ in sent if name.endswith(".bin")} == set()


def test_a_large_file_is_never_fetched_whole(tab: Any, site: Path, tmp_path: Path) -> None:
    """A host that stops sending parts, behind a cache say: 4 GB would come, and a few packets do."""
    copy = shutil.copytree(site, tmp_path / "copy")
    with (copy / PLACE / "header.bin").open("r+b") as file:
        file.truncate(4 << 30)
    with hosting(copy, ranged=lambda name: not name.endswith(".bin")) as (address, sent):
        tab.goto(f"{address}/{HERE}/3")
        expect(tab.locator("main")).to_contain_text("sends whole files where a part is asked for")
        assert sum(n for name, n in sent if name.endswith(".bin")) < 64 << 20


def test_a_copy_that_is_not_whole_is_named(tab: Any, site: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "copy")
    features, lines = copy / PLACE / "features/000000.bin", copy / PLACE / "lines.bin"
    whole = features.read_bytes()
    features.write_bytes(whole[:200])
    lines.write_bytes(b"\x00" * lines.stat().st_size)
    with hosting(copy) as (address, _):
        tab.goto(f"{address}/{HERE}/3")
        expect(tab.locator("main")).to_contain_text("features/000000.bin: 200 bytes came where")
        tab.goto(f"{address}/{HERE}/35")
        expect(tab.locator("main")).to_contain_text("the copy is not whole")
        tab.goto(f"{address}/{HERE}/features")
        expect(tab.locator("main")).to_contain_text("lines.bin, block 0: damaged")
        features.write_bytes(whole)
        tab.goto(f"{address}/{HERE}/3")
        expect(tab.locator("main")).to_contain_text("Strongest")


def test_the_last_of_34_million_features_is_two_small_requests_away(tab: Any, site: Path, tmp_path: Path) -> None:
    """A header of 1.6 GB, all holes but the last entry."""
    copy = shutil.copytree(site, tmp_path / "copy")
    last = MANY - 1
    entries = np.frombuffer((copy / PLACE / "header.bin").read_bytes(), HEADER).copy()
    entry = entries[last % 32 : last % 32 + 1]
    entry["family"] = -1
    with (copy / PLACE / "header.bin").open("r+b") as file:
        file.seek(last * HEADER.itemsize)
        file.write(entry.tobytes())
    shutil.copy(copy / PLACE / "features/000000.bin", copy / PLACE / f"features/{last // 4096:06}.bin")
    index = json.loads((copy / "published.json").read_text())
    index["runs"][0]["hookpoints"][0] |= {"n_latents": MANY, "n_families": 0}
    (copy / "published.json").write_text(json.dumps(index))
    with hosting(copy) as (address, sent):
        tab.goto(f"{address}/{HERE}/{last}")
        expect(tab.locator("main")).to_contain_text("Strongest")
        asked = [(name, n) for name, n in sent if name.startswith("data/")]
        assert [name for name, _ in asked] == [f"{PLACE}/header.bin", f"{PLACE}/features/008300.bin"]
        assert sum(n for _, n in asked) == HEADER.itemsize + int(entry["n_bytes"][0])
        tab.goto(f"{address}/{HERE}/features")
        expect(tab.locator("main")).to_contain_text("34,000,000 latents, too many to sort, search or map in a browser")
        expect(tab.locator("main")).to_contain_text("Order the list by latent")
