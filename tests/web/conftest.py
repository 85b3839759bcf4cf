"""The built web app, a Chromium, and tabs of it that must stay silent. No tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.browser import find_chromium

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src/mohole/serve/static"
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
CHROMIUM = find_chromium()
NEEDS_APP = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; install one to test the app in it"),
    pytest.mark.skipif(not (STATIC / "index.html").is_file(), reason="the web app is not built; `make web` builds it"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    driving = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; install mohole[dev]")
    with driving.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Any]:
    """Of the module's server: no error in the console, nothing asked of another host."""
    context = chromium.new_context(base_url=address, viewport={"width": 1280, "height": 860})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda said: problems.append(said.text) if said.type == "error" and "Failed to load" not in said.text else None,
    )
    page.on("request", lambda asked: None if asked.url.startswith((address, "blob:")) else problems.append(asked.url))
    yield page
    context.close()
    assert problems == []


def faults(tab: Any) -> list[tuple[str, str]]:
    """What axe finds against WCAG A and AA and its best practices, each with the element."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; `make web` installs it")
    tab.evaluate(AXE.read_text())  # not a script element: the page's policy would refuse it
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [(fault["id"], node["html"][:200]) for fault in found["violations"] for node in fault["nodes"]]
