"""A small run with labels by hand, and a stand-in for the built app, which needs Node."""

from pathlib import Path

import pytest
from tests.report.run_folder import make_run

from mohole.serve.runs import open_runs

RUN, BY_HAND = "small", (5, "\ufeffStraße by hand\u202e")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only. One label is a person's."""
    run = make_run(tmp_path_factory.mktemp("publish") / RUN, n_documents=24)
    served = open_runs([run])
    place = served.hookpoint(RUN, "resid_post.0")
    place.run.people.put_label(place.dictionary, place.name, *BY_HAND)
    served.close()
    return run


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    (folder / "assets").mkdir()
    (folder / "assets/app.js").write_text("let app;\n" * 400)
    (folder / ".sources").write_text("of those who build it")
    page = '<!doctype html>\n<html>\n  <head>\n    <meta charset="utf-8" />\n    <title>mohole</title>\n  </head>\n</html>\n'
    (folder / "index.html").write_text(page)
    return folder
