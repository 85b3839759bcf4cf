"""A published folder says what the server says, holds no more of the corpus, and is there whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.conftest import exit_status
from tests.publish.conftest import BY_HAND, RUN
from tests.publish.reader import Place
from tests.report.run_folder import DEAD, HOOKPOINTS, HOSTILE, remake

from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.publish import Published, publish, tables
from mohole.serve import answers, maps
from mohole.serve.bodies import json_bytes
from mohole.serve.published import make_published_app
from mohole.serve.queries import FeaturesAsk
from mohole.serve.runs import OpenHookpoint, Served, open_runs


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[Served]:
    served = open_runs([run])
    yield served
    served.close()


@pytest.fixture(scope="module")
def made(run: Path, app: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish([run], tmp_path_factory.mktemp("made") / "site", static=app)


def answered(place: OpenHookpoint, latent: int) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(json_bytes(answers.feature_facts(place, latent)))
    return facts


def cut(example: dict[str, Any], reach: int) -> dict[str, Any]:
    """What is left of an example with so much text on either side."""
    n, at = len(example["tokens"]), example["at"]
    first, last = max(0, at - reach), min(n, at + reach + 1)
    inside = slice(first, last)
    return example | {
        "at": at - first,
        "tokens": example["tokens"][inside],
        "activations": example["activations"][inside],
        "begins_document": example["begins_document"] and first == 0,
        "ends_document": example["ends_document"] and last == n,
    }


@pytest.mark.parametrize("hookpoint", HOOKPOINTS)
def test_every_feature_is_what_the_server_answers(made: Published, served: Served, hookpoint: str) -> None:
    published, place = Place(made.path, RUN, hookpoint), served.hookpoint(RUN, hookpoint)
    for latent in range(place.catalogue.n_latents):
        assert published.feature(latent) == answered(place, latent), latent


def test_with_less_text_the_rest_is_the_same(served: Served, run: Path, app: Path, tmp_path: Path) -> None:
    made = publish([run], tmp_path / "site", context_tokens=3, static=app)
    published, place = Place(made.path, RUN, HOOKPOINTS[0]), served.hookpoint(RUN, HOOKPOINTS[0])
    for latent in range(place.catalogue.n_latents):
        wanted = answered(place, latent)
        wanted["top"] = [cut(example, 3) for example in wanted["top"]]
        for interval in wanted["intervals"]:
            interval["examples"] = [cut(example, 3) for example in interval["examples"]]
        assert published.feature(latent) == wanted, latent


def test_no_text_is_published_that_no_example_shows(made: Published) -> None:
    for hookpoint in HOOKPOINTS:
        place = Place(made.path, RUN, hookpoint)
        for latent in range(0, len(place.header), 32):
            block = place.block(latent)
            texts = block["text_piece"].astype(int) + 256 * block["text_piece_256"].astype(int)
            shown = {*texts.tolist(), *block["vocabulary_piece"][block["vocabulary_piece"] >= 0].tolist()}
            assert shown == set(range(len(block["piece_length"])))
    there = {file.name for file in made.path.rglob("*") if file.is_file()}
    assert not {"corpus.safetensors", "codes", "people.sqlite", ".sources"} & there


def test_lists_and_the_map_are_what_the_server_answers(made: Published, served: Served) -> None:
    published, place = Place(made.path, RUN, HOOKPOINTS[0]), served.hookpoint(RUN, HOOKPOINTS[0])
    listed = answers.feature_page(place, FeaturesAsk(which="all", limit=200))["features"]
    assert [published.line(latent) for latent in range(len(listed))] == listed
    assert published.line(BY_HAND[0])["status"] == "person"
    by_label = answers.feature_page(place, FeaturesAsk(which="all", sort="label", limit=200))["features"]
    assert np.argsort(published.column("columns", "label_rank")).tolist() == [line["latent"] for line in by_label]
    for name in ("count", "maximum", "family"):
        np.testing.assert_array_equal(published.column("columns", name), published.header[name])
    x, y = (np.frombuffer(column, "<f4") for column in maps.map_points(place)[:2])
    np.testing.assert_array_equal(published.column("places", "x"), x)
    np.testing.assert_array_equal(published.column("places", "y"), y)


def test_the_page_is_told_and_hostile_text_stays_text(made: Published, run: Path) -> None:
    page = (made.path / "index.html").read_text()
    assert page.count('<meta name="mohole-published" content="./published.json" />') == 1
    assert "default-src 'self'" in page
    assert "</script>" not in page.replace("<script", "")
    place = Place(made.path, RUN, HOOKPOINTS[0])
    assert place.feature(0)["label"]["text"] == HOSTILE
    assert place.feature(DEAD)["top"] == []
    index = json.loads((made.path / "published.json").read_text())
    assert [each["can_xray"] for each in index["runs"]] == [False]


def test_the_size_that_is_told_is_that_of_the_files(made: Published) -> None:
    files = [file for file in (made.path / "data").rglob("*") if file.is_file() and file.name != "run.json"]
    assert made.n_features == 2 * 40
    assert made.bytes_per_feature == sum(file.stat().st_size for file in files) / 80


def test_twice_is_once_and_other_settings_are_told(
    made: Published, run: Path, app: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in made.path.rglob("*")}
    again = publish([run], made.path, static=app)
    assert not again.is_new
    assert again.bytes_per_feature == made.bytes_per_feature
    with pytest.raises(ArtifactError, match=r"context_tokens: None there, 3 asked for.*--replace"):
        publish([run], made.path, context_tokens=3, static=app)
    assert {file: file.stat().st_mtime_ns for file in made.path.rglob("*")} == before


def test_the_same_runs_are_the_same_bytes(made: Published, run: Path, app: Path, tmp_path: Path) -> None:
    again = publish([run], tmp_path / "again", static=app)
    names = sorted(file.relative_to(made.path) for file in made.path.rglob("*") if file.is_file())
    assert [(made.path / name).read_bytes() for name in names] == [(again.path / name).read_bytes() for name in names]


def test_several_runs_lie_in_one_folder(run: Path, app: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    made = publish([run, other], tmp_path / "site", static=app)
    assert (made.runs, made.n_features) == ((RUN, "other"), 160)
    assert Place(made.path, "other", HOOKPOINTS[1]).feature(3) == Place(made.path, RUN, HOOKPOINTS[1]).feature(3)


def test_a_damaged_publication_is_named_and_can_be_replaced(run: Path, app: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    publish([run], site, static=app)
    header = site / "data" / RUN / HOOKPOINTS[0] / "header.bin"
    header.write_bytes(header.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match=r"header\.bin: checksum is wrong"):
        publish([run], site, static=app)
    with pytest.raises(ArtifactError, match=r"header\.bin: its bytes are not those that were published"):
        make_published_app(site)
    header.unlink()
    with pytest.raises(ArtifactError, match=r"header\.bin: no bytes"):
        make_published_app(site)
    assert publish([run], site, replace=True, static=app).is_new
    assert not publish([run], site, static=app).is_new


def test_what_is_there_already_is_left_alone(run: Path, app: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for out in (mine, mine / "thesis.txt", run / "corpus", link):
        for replace in (False, True):
            with pytest.raises(ConfigError, match="holds something else"):
                publish([run], out, static=app, replace=replace)
    with pytest.raises(ConfigError, match="inside the run"):
        publish([run], run / "site", static=app)
    assert (mine / "thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    assert publish([run], tmp_path / "empty", static=app).is_new


def test_killed_halfway_nothing_is_there_and_the_next_one_is_whole(
    made: Published, run: Path, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once without a word, as by SIGKILL; once with an error, over a publication that is there."""
    site = tmp_path / "site"
    write = tables.write_tables
    child = os.fork()
    if not child:
        monkeypatch.setattr("mohole.publish.folder.write_tables", lambda *_: os._exit(9))
        publish([run], site, static=app)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not site.exists()
    whole = publish([run], site, static=app)
    assert whole.bytes_per_feature == made.bytes_per_feature

    def full(folder: Path, place: OpenHookpoint) -> None:
        if place.name == HOOKPOINTS[1]:
            raise OSError(28, "No space left on device")
        write(folder, place)

    monkeypatch.setattr("mohole.publish.folder.write_tables", full)
    with pytest.raises(OSError, match="No space left") as failed:
        publish([run], site, context_tokens=1, replace=True, static=app)
    assert failed.value.filename == str(site)
    monkeypatch.undo()
    assert not publish([run], site, static=app).is_new


def test_a_catalogue_of_another_dictionary_is_not_published(
    run: Path, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    remake(other / HOOKPOINTS[1] / "catalogue", "catalogue", dictionary="0" * 32)
    with pytest.raises(ArtifactError, match="catalogue: made from another dictionary"):
        publish([other], tmp_path / "site", static=app)
    with pytest.raises(StageError, match="not built"):
        publish([run], tmp_path / "site", static=tmp_path)
    with pytest.raises(ArtifactError, match="no: no such folder"):  # what was mistyped comes before what is missing
        publish([tmp_path / "no"], tmp_path / "site", static=tmp_path)
    assert exit_status(monkeypatch, "publish", tmp_path / "no", tmp_path / "site") == 1
    assert "no: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_a_published_folder_is_served_as_a_static_host_would(made: Published) -> None:
    client = TestClient(make_published_app(made.path, hosts=["testserver"]))
    header = f"/data/{RUN}/{HOOKPOINTS[0]}/header.bin"
    whole = (made.path / header[1:]).read_bytes()
    part = client.get(header, headers={"Range": "bytes=48-95"}, params={"v": "1"})
    assert (part.status_code, part.content) == (206, whole[48:96])
    assert part.headers["content-range"] == f"bytes 48-95/{len(whole)}"
    assert "content-encoding" not in part.headers
    assert client.get(header, headers={"Range": "bytes=9999999-"}).status_code == 416
    assert client.get(header).content == whole
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
    for path in ("/api/v1/runs", "/nothing", "/%2e%2e/small/corpus/corpus.json", "/.sources"):
        assert client.get(path).status_code == 404, path
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_a_published_folder_is_served_alone(
    made: Published, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(monkeypatch, "serve", made.path, run, "--port", 0) == 1
    assert "a published folder is served alone" in capsys.readouterr().err
    assert exit_status(monkeypatch, "show", made.path) == 1
    assert f"mohole serve {made.path} shows it" in capsys.readouterr().err
