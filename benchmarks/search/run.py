"""What does a search by label cost at a million labels, beside SQLite's FTS5, and does it find what was misspelt?

    python benchmarks/search/run.py [--sizes 10000 100000 1000000]

Each size in a process of its own. CPU-seconds on one thread; memory is what is resident beyond the labels themselves. `found` is
the share of 50 queries, each two words of one label, that have that label among the first ten: as they are, with a letter
changed in each, and the last of them only begun. FTS5 is given an index of words (bm25, the words joined by OR, `*` for a
beginning) and one of trigrams (joined by OR), which is what it has for misspellings. Writes results/DATE.json.
"""

import argparse
import datetime
import importlib.util
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from labels import labels  # noqa: E402
from machine import machine  # noqa: E402

N_QUERIES = 50
_LIMIT = 10


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--one", nargs=2, metavar=("WHOSE", "SIZE"), help="Measure one here and print it as JSON.")
    options = arguments.parse_args()
    if options.one:
        whose, size = options.one[0], int(options.one[1])
        print(json.dumps(measure(whose, size)))
        return
    results: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/search/run.py",
        "machine": f"{machine()}, 1 thread, SQLite {sqlite3.sqlite_version}",
    }
    for size in options.sizes:
        for whose in ("mohole", "fts5"):
            command = [sys.executable, __file__, "--one", whose, str(size)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[f"{whose}, {size:,} labels"] = json.loads(out)
            print(whose, size, out.strip(), flush=True)
    results["MiniLM, labels for a CPU-second"] = minilm_rate()
    path = HERE / "results" / f"{results['date']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(path.relative_to(HERE.parent.parent))


def measure(whose: str, size: int) -> dict[str, object]:
    """Build, ask, and look at the memory."""
    texts = labels(size)
    wanted, exact, misspelt, begun = queries(texts)
    before = resident_mib()
    found: dict[str, object] = {}
    if whose == "mohole":
        from mohole.search.labels import LabelIndex

        index, found["build_cpu_seconds"] = timed(lambda: LabelIndex(texts))
        _, found["meaning_cpu_seconds"] = timed(lambda: index.search("warm up", 1))
        _, found["first_misspelt_cpu_seconds"] = timed(lambda: index.search("brigdegate", 1))
        asked: dict[str, Callable[[str], list[int]]] = dict.fromkeys(
            ("exact", "misspelt", "begun"), lambda query: [hit.latent for hit in index.search(query, _LIMIT)]
        )
    else:
        (by_word, by_trigram), found["build_cpu_seconds"] = timed(lambda: fts5(texts))
        asked = {"exact": by_word, "misspelt": by_trigram, "begun": by_word}
    for kind, several in (("exact", exact), ("misspelt", misspelt), ("begun", begun)):
        seconds, hits = [], 0
        for query, latent in zip(several, wanted, strict=True):
            answer, took = timed(lambda query=query, kind=kind: asked[kind](query))
            seconds.append(took)
            hits += latent in answer or any(texts[other] == texts[latent] for other in answer)
        found[f"{kind}_query_cpu_ms"] = round(1000 * statistics.median(seconds), 2)
        found[f"{kind}_worst_cpu_ms"] = round(1000 * max(seconds), 2)
        found[f"{kind}_found"] = hits / len(several)
    found["resident_mib_beyond_labels"] = round(resident_mib() - before)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


def queries(texts: list[str]) -> tuple[list[int], list[str], list[str], list[str]]:
    """Labels, and the two longest words of each: as they are, with one letter changed in each, the second cut short."""
    draw = random.Random(1)
    wanted = draw.sample(range(len(texts)), N_QUERIES)
    exact, misspelt, begun = [], [], []
    for latent in wanted:
        words = sorted("".join(c if c.isalpha() else " " for c in texts[latent]).split(), key=len)[-2:]
        exact.append(" ".join(words))
        misspelt.append(" ".join(changed(word, draw) for word in words))
        begun.append(f"{words[0]} {words[1][: max(2, len(words[1]) * 2 // 3)]}*")
    return wanted, exact, misspelt, begun


def changed(word: str, draw: random.Random) -> str:
    place = draw.randrange(1, len(word))
    return word[:place] + draw.choice("qxzj") + word[place + 1 :]


def fts5(texts: list[str]) -> tuple[Callable[[str], list[int]], Callable[[str], list[int]]]:
    """The same labels in two tables in memory."""
    base = sqlite3.connect(":memory:")
    base.execute("create virtual table words using fts5(label, content='', tokenize='unicode61')")
    base.execute("create virtual table parts using fts5(label, content='', tokenize='trigram')")
    rows = list(enumerate(texts))
    for table in ("words", "parts"):
        base.executemany(f"insert into {table}(rowid, label) values (?, ?)", rows)

    def ask(table: str, terms: list[str]) -> list[int]:
        found = base.execute(
            f"select rowid from {table} where {table} match ? order by rank, rowid limit {_LIMIT}",
            (" OR ".join(terms),),
        )
        return [row[0] for row in found]

    def by_word(query: str) -> list[int]:
        return ask("words", [f'"{word.rstrip("*")}"{"*" * word.endswith("*")}' for word in query.split()])

    def by_trigram(query: str) -> list[int]:
        return ask("parts", [f'"{word[i : i + 3]}"' for word in query.split() for i in range(len(word) - 2)])

    return by_word, by_trigram


def minilm_rate() -> float | None:
    """Labels that the extra's model embeds in a CPU-second; None where it is not installed."""
    from mohole.search import minilm

    if importlib.util.find_spec(minilm.PACKAGE) is None:
        return None
    import torch

    torch.set_num_threads(1)
    embedder, texts = minilm.MiniLM.open(), labels(400)
    embedder.embed(texts[:20])
    return round(len(texts) / timed(lambda: embedder.embed(texts))[1], 1)


def timed(work: Callable[[], object]) -> tuple[object, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
