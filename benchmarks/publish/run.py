"""What a published feature weighs, what publishing costs, and how soon a browser has it, whatever the dictionary's size.

    python benchmarks/publish/run.py --run runs/demo --text FILES     # after `make web`

`--text`: the same on English cut into whole words, a vocabulary of tens of thousands, which is more than a tokenizer of its kind
has of different tokens in a stretch; directions are random there, for it is the texts' size that is asked for. Bytes are what is
in the files. The browser's times are of headless Chromium and a plain server on this machine: no network is in them.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from machine import machine  # noqa: E402
from tests.publish.reader import HEADER  # noqa: E402
from tests.report.browser import find_chromium  # noqa: E402
from tests.report.run_folder import Lens, finished  # noqa: E402
from tests.serve.test_command import command  # noqa: E402
from tests.web.test_published import hosting  # noqa: E402

from mohole import catalogue, config  # noqa: E402
from mohole.catalogue.blocks import Columns  # noqa: E402
from mohole.corpus import Corpus, Document, build_corpus  # noqa: E402
from mohole.dictionary import SparseAutoencoder  # noqa: E402
from mohole.dictionary.files import save  # noqa: E402
from mohole.harvest.slice import documents_of  # noqa: E402
from mohole.interpret.labels import FACTS_FILE, LABELS_FILE, Label, write_labels  # noqa: E402
from mohole.publish import Published, layout, publish  # noqa: E402
from mohole.publish.tables import _write  # noqa: E402
from mohole.publish.texts import text_columns  # noqa: E402
from mohole.record import write_json  # noqa: E402
from mohole.store import Store, write_store  # noqa: E402

MANY, MILLION = 34_000_000, 1 << 20
WIDTH, LATENTS, ACTIVE = 64, 4096, 32
REPEATS = 9

FOLLOW = """async (hash) => {
  const began = performance.now();
  const shown = new Promise((done) => new MutationObserver((_, watch) => {
    if (document.querySelector(".example mark")) { watch.disconnect(); done(performance.now() - began); }
  }).observe(document.getElementById("app"), { childList: true, subtree: true }));
  location.hash = hash;
  const took = await shown;
  const asked = performance.getEntriesByType("resource").filter((each) => each.startTime >= began && !each.name.endsWith("notes"));
  return { "bytes there, ms": Math.max(...asked.map((each) => each.responseEnd)) - Math.min(...asked.map((each) => each.startTime)), "shown, ms": took };
}"""  # noqa: E501


class Words:
    """English as words with the space before them, digits and signs; the vocabulary grows as it reads."""

    _WORD = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]+|\s+|_")

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._pieces: list[str] = []

    def __len__(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> str:
        return self._pieces[token]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = list(self._WORD.finditer(text))
        for word in found:
            if word[0] not in self._numbers:
                self._numbers[word[0]] = len(self._pieces)
                self._pieces.append(word[0])
        return [self._numbers[word[0]] for word in found], [word.span() for word in found]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        published = {asked.run.name: weighed(asked.run, place / "run")}
        if asked.text:
            published["words"] = weighed(english(place / "words", asked.text), place / "words-site")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
            seen = {
                "feature": opened(browser, asked.run, place / "run", place / "many"),
                "lists": listed(browser, place / "run", place / "million"),
            }
            browser.close()
    found = {
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/publish/run.py --run RUN --text FILES",
        "machine": machine(),
        "load1": round(os.getloadavg()[0], 1),
        "published": published,
        "in_the_browser": seen,
    }
    (HERE / "results" / f"{found['date']}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def weighed(run: Path, out: Path) -> dict[str, Any]:
    """Bytes a feature, whole and cut, by what they are for; and features a CPU-second."""
    began = time.process_time()
    made = publish([run], out)
    seconds = time.process_time() - began
    cut = publish([run], out.with_name(out.name + "-cut"), context_tokens=8)
    return {
        "n_features": made.n_features,
        "bytes_per_feature": round(made.bytes_per_feature),
        "by_part": by_part(made),
        "bytes_per_feature_with_8_tokens_on_either_side": round(cut.bytes_per_feature),
        "features_per_cpu_second": round(made.n_features / seconds),
    }


def by_part(made: Published) -> dict[str, int]:
    parts: dict[str, int] = {}
    for file in (made.path / layout.DATA).glob("*/*/**/*"):
        if file.is_file():
            name = "features" if file.parent.name == "features" else file.stem
            parts[name] = parts.get(name, 0) + file.stat().st_size
    return {name: round(n / made.n_features) for name, n in sorted(parts.items())}


def english(run: Path, files: list[Path]) -> Path:
    """A run over real text, with a random dictionary over random vectors of the words."""
    texts = [
        part for file in files for part in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")) if len(part) > 200
    ]
    with finished(run / "corpus", "corpus") as out:
        build_corpus(out, map(Document, texts), Words(), context=256, has_bos=False, held_out=0.1, seed=0)
    corpus = Corpus.open(run / "corpus")
    draw = torch.Generator().manual_seed(0)
    of_words = torch.randn(len(corpus.pieces), WIDTH, generator=draw)
    tokens = torch.from_numpy(np.array(corpus.tokens, dtype=np.int64))
    rows = of_words[tokens] + 0.7 * of_words[tokens.roll(1)]
    write_store(run / ".rows", {"resid_post.0": rows.numpy()}, documents_of(corpus), dtype="float32")
    directions = torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH, generator=draw), dim=1)
    sae = SparseAutoencoder(
        "resid_post.0", config.TopK(k=ACTIVE), directions, torch.zeros(LATENTS), directions, torch.zeros(WIDTH)
    )
    with finished(run / "resid_post.0/dictionary", "dictionary") as out:
        save(sae, out)
    with finished(run / "resid_post.0/catalogue", "catalogue") as out:
        sources = catalogue.InMemory(Lens(len(corpus.pieces), WIDTH), sae, corpus, Store.open(run / ".rows"))
        catalogue.build(out, sources, config.Catalogue(), seed=0)
    with finished(run / "resid_post.0/labels", "labels") as out:
        write_labels(out / LABELS_FILE, [_label(corpus, latent) for latent in range(LATENTS)])
        write_json(out / FACTS_FILE, {"firing_share": 0.3})
    print(f"words: {corpus.n_tokens} tokens, {len(corpus.pieces)} different", file=sys.stderr)
    return run


def _label(corpus: Corpus, latent: int) -> Label:
    words = [corpus.pieces[(latent * 7919 + i * 104729) % len(corpus.pieces)].strip() for i in range(3)]
    text = f"“{words[0]}”, “{words[1]}” or “{words[2]}” and {latent % 9} more"
    f1 = 0.5 + 0.5 * ((latent * 0.618) % 1)
    return Label(latent, text, "token", f1, f1 * 0.97, f1 * 1.01, latent % 977, 40_000, "good", 0.1)


def place_of(site: Path) -> tuple[Path, str]:
    index = json.loads((site / "published.json").read_text())
    run, hookpoint = index["runs"][0]["run"], index["runs"][0]["hookpoints"][0]["hookpoint"]
    return site / "data" / run / hookpoint, f"#/{run}/{hookpoint}"


def grown(site: Path, copy: Path, n: int) -> tuple[Path, str]:
    """The same folder, as if its first dictionary had `n` latents."""
    shutil.copytree(site, copy)
    index = json.loads((copy / "published.json").read_text())
    index["runs"][0]["hookpoints"][0]["n_latents"] = n
    (copy / "published.json").write_text(json.dumps(index))
    return place_of(copy)


def opened(browser: Browser, run: Path, site: Path, copy: Path) -> dict[str, Any]:
    """From following a link to the texts on the page: of a feature in the folder as it is, of the last of 34 million, and from
    `mohole serve`, which reads the catalogue itself."""
    folder, at = grown(site, copy, MANY)
    last = MANY - 32  # the first of its block
    entry = np.frombuffer((folder / "header.bin").read_bytes(), HEADER)[:1].copy()
    entry["family"] = -1
    with (folder / "header.bin").open("r+b") as file:
        file.truncate(MANY * HEADER.itemsize)
        file.seek(last * HEADER.itemsize)
        file.write(entry.tobytes())
    shutil.copy(folder / "features/000000.bin", folder / f"features/{last // 4096:06}.bin")
    found = {}
    for name, which, latent in (("as it is", site, 0), ("34 million latents", copy, last)):
        with hosting(which) as (address, _):
            found[name] = shown_ms(browser, address, f"{at}/{latent}")
    with command(run) as (address, _):
        found["mohole serve"] = shown_ms(browser, address, f"#/{run.name}/{folder.name}/0")
    return found


def shown_ms(browser: Browser, address: str, at: str) -> dict[str, Any]:
    """Medians, of an app that is open already: bytes there (from the first request to the last answer's end), and shown."""
    took = []
    for _ in range(REPEATS):
        page = browser.new_page()
        page.goto(f"{address}/{at.rsplit('/', 1)[0]}/xray")
        page.wait_for_selector("main h1")
        took.append(page.evaluate(FOLLOW, at))
        page.close()
    return {name: round(statistics.median(each[name] for each in took), 1) for name in ("bytes there, ms", "shown, ms")}


def listed(browser: Browser, site: Path, copy: Path) -> dict[str, Any]:
    """A million latents: the list by F1, a search in it, another order; each from the change of address to the rows."""
    folder, at = grown(site, copy, MILLION)
    make_million(folder)
    n_bytes = {name: (folder / f"{name}.bin").stat().st_size for name in ("lines", "columns", "places")}
    took: dict[str, float] = {}
    with hosting(copy) as (address, _):
        page = browser.new_page()
        page.goto(f"{address}/{at}/xray")
        page.wait_for_selector("main h1")
        for name, where in (
            ("by F1", "features"),
            ("search", "features?q=bridge"),
            ("by label", "features?sort=label"),
            ("map", "atlas"),
        ):
            began = time.perf_counter()
            page.evaluate("(hash) => { location.hash = hash; }", f"{at}/{where}")
            page.wait_for_selector(
                "[data-drawn=webgl], [data-drawn=canvas]" if name == "map" else ".grid-table[aria-busy=false] .rows a",
                timeout=120_000,
            )
            took[name] = round(time.perf_counter() - began, 2)
        page.close()
    return {"n_latents": MILLION, "bytes": n_bytes, "seconds": took}


def make_million(folder: Path) -> None:
    draw = np.random.default_rng(0)
    nouns = (
        "bridge",
        "金门大桥",
        "dates",
        "two-digit sums",
        "closing brackets",
        "the end of a sentence",
        "legal boilerplate",
    )
    labels = [f"“{nouns[i % 7]}” after “{nouns[i % 5]}” and {i % 1009} more" for i in range(MILLION)]
    rank = np.empty(MILLION, dtype=np.int64)
    rank[np.argsort(labels, kind="stable")] = np.arange(MILLION)
    whole: dict[str, Columns] = {
        layout.COLUMNS: {
            "count": draw.zipf(1.3, MILLION) % 1_000_000, "maximum": draw.gamma(6, 1.4, MILLION).astype(np.float32),
            "family": draw.integers(-1, 60_000, MILLION), "label_rank": rank,
        },
        layout.PLACES: {name: draw.standard_normal(MILLION).astype(np.float32) for name in "xy"},
    }  # fmt: skip
    for name, columns in whole.items():
        size = layout.LATENTS_OF_COLUMNS
        _write(
            folder,
            name,
            ({key: column[low : low + size] for key, column in columns.items()} for low in range(0, MILLION, size)),
        )
    size, f1 = layout.LATENTS_OF_LINES, draw.beta(5, 2, MILLION)
    _write(
        folder,
        layout.LINES,
        (
            {
                "status": np.zeros(size, np.uint8),
                "f1": f1[low : low + size],
                **text_columns("label", labels[low : low + size]),
            }
            for low in range(0, MILLION, size)
        ),
    )


if __name__ == "__main__":
    main()
