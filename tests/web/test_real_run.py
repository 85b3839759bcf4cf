"""The app over a real server, a real run and the built-in model: what a person does in the first five minutes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.tiny import recipe
from tests.serve.test_command import command
from tests.web.conftest import NEEDS_APP

from mohole import Catalogue, Labels, job

expect = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; install mohole[dev]").expect
pytestmark = NEEDS_APP
PLACE = "resid_post.0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 documents of the built-in world, 128 latents; not evaluated, which costs more than all else."""
    run = tmp_path_factory.mktemp("real") / "tiny"
    train = {"n_latents": 128, "steps": 100, "batch_rows": 256}
    wanted = recipe(run, corpus={"kind": "planted", "n_documents": 100}, train=train)
    for verb in ("harvest", "train", "catalogue", "label"):
        job.run_verb(wanted, verb, say=lambda _: None)
    return run


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with command(run, MOHOLE_TOKEN="of-the-test") as (found, _):
        yield found


def test_a_feature_is_found_read_tried_and_given_a_name(run: Path, address: str, chromium: Any, tmp_path: Path) -> None:
    catalogue, labels = Catalogue.open(run / PLACE / "catalogue"), Labels.open(run / PLACE / "labels")
    latent = int(catalogue.counts.argmax())
    feature = catalogue.feature(latent)
    page = chromium.new_page(base_url=address, viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)

    page.goto("/")
    expect(page.locator("main")).to_contain_text(PLACE)
    page.goto(f"/#/tiny/{PLACE}/features")
    alive = int((catalogue.counts > 0).sum())
    expect(page.locator("main")).to_contain_text(f"{alive} features")

    page.goto(f"/#/tiny/{PLACE}/{latent}")
    expect(page.locator("h1")).to_contain_text(labels.label(latent).text[:8])
    expect(page.locator("main")).to_contain_text(f"{feature.count:,} tokens")
    expect(page.locator("main")).to_contain_text(f"{feature.maximum:.2f}")
    expect(page.locator("main")).to_contain_text("Neighbours")
    expect(page.locator(".elsewhere")).to_contain_text("No other dictionary of this width is served")
    page.get_by_role("button", name="Take the feature away here").first.click()
    expect(page.locator(".effect")).to_contain_text("nats; after a random push as far")
    page.screenshot(path=tmp_path / "feature.png")

    page.goto(f"/#/tiny/{PLACE}/xray?text=The Golden Gate Bridge is red.")
    expect(page.locator("main")).to_contain_text("In the whole text")
    expect(page.locator("main")).to_contain_text("tokens. Choose one")
    page.screenshot(path=tmp_path / "xray.png")

    page.goto(f"/#/tiny/{PLACE}/atlas")
    expect(page.locator("main")).to_contain_text("128 features")
    assert problems == []
