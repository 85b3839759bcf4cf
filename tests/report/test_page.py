"""The page as bytes: one file that holds everything, asks for nothing, and in which hostile text is only text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.run_folder import BRIDGE, HOOKPOINTS, HOSTILE, data_of, make_run

from mohole.report import read_findings, write_page
from mohole.report.page import render_page


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return read_findings(make_run(tmp_path_factory.mktemp("report") / "demo"), model="planted")


@pytest.fixture(scope="module")
def page(findings):
    return render_page(findings)


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_names_nothing_outside_itself(page):
    shell = re.sub(r'(?s)(<script type="application/json" id="data">).*?(</script>)', r"\1\2", page)
    without_hashes = re.sub(r"sha256-[\w+/=]+", "", shell)  # of the page's own script: base64 may hold two slashes
    addresses = set(re.findall(r"""(?:https?:)?//[a-z][\w./-]*""", without_hashes)) - {"http://www.w3.org/2000/svg"}
    assert not {address for address in addresses if not address.startswith("// ")}
    for _, attributes in Elements(shell).found:
        assert attributes.get("href", "#")[:1] == "#" or attributes["href"] == "data:,"
        assert "src" not in attributes
    assert "@import" not in shell
    assert "url(" not in shell


def test_the_policy_allows_nothing_but_the_pages_own_script_and_style(page):
    (policy,) = [a["content"] for tag, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "data:"
    assert (rules.pop("base-uri"), rules.pop("form-action")) == ("'none'", "'none'")
    assert set(rules) == {"script-src", "style-src"}
    assert all(re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rule) for rule in rules.values())


def test_hostile_text_makes_no_element(page):
    tags = [tag for tag, _ in Elements(page).found]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert "b" not in tags
    assert "\u202e" not in page
    assert "\u2028" not in page
    assert "\x1b" not in page


def test_hostile_text_is_still_there_to_be_read(page):
    label = data_of(page)["hookpoints"][0]["features"]
    texts = [feature["label"]["text"] for feature in label]
    assert any("</script><img src=x onerror=" in text and "⟨202E⟩txt.exe⟨001B⟩[31m⟨2028⟩&lt;" in text for text in texts)


def test_a_hostile_name_of_run_and_model_is_inert(findings):
    tags = [
        tag for tag, _ in Elements(render_page(replace(findings, name=HOSTILE, model=HOSTILE, corpus=HOSTILE))).found
    ]
    assert tags.count("script") == 2
    assert "img" not in tags


def test_snippets_come_back_from_the_shared_texts_as_they_went_in(findings, page):
    data = data_of(page)
    for place, shown in zip(findings.hookpoints, data["hookpoints"], strict=True):
        by_latent = {packed["latent"]: packed for packed in shown["features"]}
        assert len(by_latent) == len(place.features)
        for feature in place.features:
            packed = by_latent[feature.latent]
            snippets = [*feature.top, *(snippet for band in feature.bands for snippet in band.snippets)]
            records = [*packed["top"], *(record for band in packed["bands"] for record in band["snippets"])]
            for snippet, (start, length, focus, document, active) in zip(snippets, records, strict=True):
                pieces = [data["pieces"][data["tokens"][i]] for i in range(start, start + length)]
                assert len(pieces) == len(snippet.pieces)
                assert all(a == b for a, b in zip(pieces, snippet.pieces, strict=True) if b.isprintable())
                assert (focus, document) == (snippet.focus, snippet.document)
                values = dict(zip(active[::2], active[1::2], strict=True))
                assert values.keys() == {i for i, value in enumerate(snippet.values) if value > 0}
                for i, thousandths in values.items():
                    assert thousandths / 1000 == pytest.approx(snippet.values[i] / feature.maximum, abs=0.0011)


def test_what_the_page_says_is_what_the_artifacts_hold(findings, page):
    data = data_of(page)
    assert [place["hookpoint"] for place in data["hookpoints"]] == list(HOOKPOINTS)
    assert data["hookpoints"][0]["measures"]["fvu"]["value"] == 0.021
    assert len(data["hookpoints"][0]["record"]["step"]) == 90
    assert data["steering"]["latent"] == BRIDGE
    assert {item["name"] for item in data["artifacts"]} >= {"corpus", "resid_post.1/labels", "steering"}
    assert all(re.fullmatch(r"[0-9a-f]{32}", item["digest"]) for item in data["artifacts"])


def test_the_same_run_gives_the_same_bytes(findings, page, tmp_path):
    write_page(tmp_path / "report.html", findings)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page == render_page(findings)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_big_run_stays_small(findings):
    """400 features of 27 snippets of 33 tokens, over texts that hardly repeat: at most 2 MB, so three hookpoints take 6."""
    import random

    draw = random.Random(0)
    words = [f" word{i}" for i in range(2000)]
    corpus = draw.choices(words, k=100_000)
    place = findings.hookpoints[0]

    def snippet(template):
        start = draw.randrange(len(corpus) - 33)
        values = tuple(draw.choices([0.0, 3.0, 5.5], [4, 1, 1], k=33))
        return replace(
            template,
            document=draw.randrange(6000),
            start=start,
            focus=16,
            pieces=tuple(corpus[start : start + 33]),
            values=values,
        )

    feature = next(feature for feature in place.features if feature.latent == BRIDGE)
    band = feature.bands[-1]

    def copy(latent):
        bands = tuple(replace(band, snippets=tuple(snippet(feature.top[0]) for _ in range(3))) for _ in range(5))
        return replace(
            feature, latent=latent, top=tuple(snippet(feature.top[0]) for _ in range(12)), bands=bands, maximum=6.0
        )

    features = tuple(copy(latent) for latent in range(400))
    big = render_page(replace(findings, hookpoints=(replace(place, features=features),)))
    assert 1_000_000 < len(big.encode()) < 2_000_000


def test_assets_are_in_the_package():
    from importlib.resources import files

    names = {entry.name for entry in (files("mohole.report") / "assets").iterdir()}
    assert names == {"page.html", "page.css", "dom.js", "quality.js", "recovery.js", "features.js", "page.js"}
    assert all(Path(name).suffix in (".html", ".css", ".js") for name in names)
