"""What a catalogue costs beside SAEDashboard, and beside the forward passes that it is made from; where their pages differ.

    python benchmarks/catalogue/run.py --model FOLDER --text FILE --peers-python PYTHON     # beside SAEDashboard
    python benchmarks/catalogue/run.py --model FOLDER --long-text FILES                     # where the CPU-seconds go
    (both at once, or one after the other: the second adds to the first's result of the day)

Beside SAEDashboard: the same model, dictionary and tokens; its default feature pages with as many intervals as ours, ours with
as many examples as theirs (20 strongest, 5 x 5 from intervals), ten promoted and suppressed entries, neighbours, firing
together. Documents are exactly one window, so both see the same tokens. Ours is `mohole harvest` and `mohole catalogue`, from
text to a finished artifact on the disk, for all latents, because it makes no part of them; theirs is the model's activations
put in its cache, and `SaeVisRunner.run` for some features, in memory and in one batch (512 features in one batch cost a fifth
less than in two; a batch encodes all tokens anew and holds all its activations, dense). Half as many, in one batch too, tell
what a batch costs and what a feature does. The cost of all latents is extrapolated: as many such batches; and what one batch
of all would cost if memory held it. It runs in an environment of its own (sae-dashboard, sae-lens, transformer-lens).

Where the CPU-seconds go: every step of the pipeline is wrapped, and has what it spent less what wrapped steps inside it spent.
`model` is the language model up to the dictionary's layer, `dictionary` its encoding; the rest is everything else.

Sides take turns, and the first turn is thrown away. Costs are CPU-seconds of one thread, ratios are medians over the turns.
"""

import argparse
import datetime
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mohole import config, job, load_dictionary
from mohole.catalogue import Catalogue, builder, encode, features
from mohole.catalogue.layout import FEATURES, HEADER_FILE
from mohole.corpus import Corpus
from mohole.dictionary.formats.export import export_dictionary
from mohole.job.make import LOG_FILE
from mohole.model import LanguageModel, load_model
from mohole.store import Store
from mohole.store.latent_index import LatentIndex

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import machine  # noqa: E402

CONTEXT = 128
LONG_CONTEXT = 256
LAYER = 2
HOOKPOINT = f"resid_post.{LAYER}"
SEPARATOR = "<|document|>"  # of nothing that a text begins or ends with, or a document would lose a token
CLOSE = 1e-3  # activations: theirs are rounded to four places
EDGE = 6  # SAEDashboard takes no example from so many first positions of a window, BOS counted, nor from the last five


def main() -> None:
    torch.set_num_threads(1)
    arguments = _arguments()
    today = datetime.date.today().isoformat()
    out = HERE / "results" / f"{today}.json"
    result: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        if arguments.text:
            result["beside_saedashboard"] = _beside(arguments, Path(folder))
        if arguments.long_text:
            result["split"] = _split(arguments, Path(folder))
    result |= {"date": today, "machine": f"{machine.machine()}, torch {torch.__version__}, 1 thread"}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print(f"written to {out.relative_to(HERE.parent.parent)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a folder in Hugging Face format, of a Llama")
    parser.add_argument("--text", type=Path, help="text of the kind that the model was trained on")
    parser.add_argument("--tokens", type=int, default=200_000, help="that both look at")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--asked", type=int, default=512, help="features that SAEDashboard is asked for, in one batch")
    parser.add_argument("--prompts-at-once", type=int, default=64, help="SAEDashboard's minibatch_size_tokens")
    parser.add_argument("--peers-python", help="Python of an environment with sae-dashboard")
    parser.add_argument("--long-text", help="files, as a pattern, of the tokens whose cost is split")
    parser.add_argument("--long-tokens", type=int, default=2_000_000)
    parser.add_argument("--long-latents", type=int, default=16_384)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", help="a folder for what is made on the way")
    return parser.parse_args()


def _recipe(arguments: argparse.Namespace, run: Path, n_latents: int, tables: dict[str, Any]) -> config.Recipe:
    return config.parse(
        {
            "run": str(run),
            "machine": {"processes": 1, "threads": 1},
            "model": {"path": arguments.model},
            "train": {
                "n_latents": n_latents,
                "nonlinearity": {"kind": "topk", "k": arguments.k},
                "steps": arguments.steps,
            },
        }
        | tables
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


# --- beside SAEDashboard ---


def _beside(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    model, run = load_model(arguments.model), scratch / "run"
    documents = whole_documents(arguments.text, model)[: arguments.tokens // (CONTEXT - 1)]
    (scratch / "text.txt").write_text(SEPARATOR.join(documents), encoding="utf-8")
    n_tokens = len(documents) * (CONTEXT - 1)
    recipe = _recipe(
        arguments,
        run,
        arguments.latents,
        {
            "corpus": {"kind": "text", "path": str(scratch / "text.txt"), "separator": SEPARATOR},
            "windows": {"context": CONTEXT},
            "harvest": {"hookpoints": [HOOKPOINT], "dtype": "float32"},
            "catalogue": {
                "max_tokens": n_tokens,
                "together_tokens": n_tokens,
                "top_examples": 20,
                "intervals": 5,
                "interval_examples": 5,
                "promoted": 10,
            },
        },
    )
    job.run_until(recipe, "train", say=_say)
    corpus = Corpus.open(run / "corpus")
    full = np.flatnonzero(corpus.windows.length == CONTEXT - 1)
    if len(full) < len(corpus.windows):
        raise SystemExit(f"{arguments.text}: {len(corpus.windows) - len(full)} windows are not full")
    np.save(scratch / "tokens.npy", corpus.window_tokens(full, model.bos_id))
    export_dictionary(load_dictionary(run / HOOKPOINT / "dictionary"), scratch / "theirs", "saelens")
    turns: list[dict[str, float]] = []
    theirs: dict[str, Any] = {}
    for turn in range(arguments.rounds + 1):
        costs = _ours(recipe, run)
        if arguments.peers_python and turn:
            theirs = _dashboard(arguments, scratch)
            costs |= {"cache": theirs["cache_cpu_seconds"]}
            costs |= {f"theirs_{n}": cost for n, cost in theirs["cpu_seconds"].items()}
        if turn:  # the first warms up
            turns.append(costs)
        _say(f"turn {turn}: {costs}")
    catalogue_at = run / HOOKPOINT / "catalogue"
    found = {
        "command": "python benchmarks/catalogue/run.py --model FOLDER --text FILE --peers-python PYTHON"
        f" --rounds {arguments.rounds}",
        "model": f"{model.family}, d_model {model.d_model}, {model.n_layers} layers, {HOOKPOINT}",
        "dictionary": f"topk, {arguments.latents} latents, k {arguments.k}",
        "tokens": corpus.n_tokens,
        "turns": [{name: round(cost, 2) for name, cost in turn.items()} for turn in turns],
        "ours_bytes_per_feature": round(
            sum(file.stat().st_size for file in [catalogue_at / HEADER_FILE, *(catalogue_at / FEATURES).iterdir()])
            / arguments.latents
        ),
        "ours_bytes_per_feature_with_codes_and_index": round(
            sum(file.stat().st_size for file in catalogue_at.rglob("*") if file.is_file()) / arguments.latents
        ),
    }
    if theirs:
        found |= _ratios(turns, arguments) | {
            "theirs_bytes_per_feature": round(theirs["bytes_per_feature"]),
            "theirs_bytes_per_feature_gzip": round(theirs["gzip_bytes_per_feature"]),
            "features_at_once": arguments.asked,
            "prompts_at_once": arguments.prompts_at_once,
            "saedashboard": theirs["versions"],
            "pages": _compare(Catalogue.open(catalogue_at), corpus, json.loads((scratch / "pages.json").read_text())),
        }
    return found | {"load1": round(os.getloadavg()[0], 1)}


def whole_documents(path: Path, model: LanguageModel) -> list[str]:
    """The text in pieces of exactly one window each."""
    text, wanted = path.read_text(encoding="utf-8"), CONTEXT - 1
    ends = [end for _, end in model.tokenizer.encode_with_offsets(text)[1]]
    found, start, token = [], 0, 0
    while token + wanted < len(ends):
        end = ends[token + wanted - 1]
        while len(model.tokenizer.encode(text[start:end])) > wanted:
            end -= 1
        while len(model.tokenizer.encode(text[start:end])) < wanted and end < len(text):
            end += 1
        piece = text[start:end]
        if len(model.tokenizer.encode(piece)) == wanted and piece == piece.strip():  # a corpus strips its documents
            found.append(piece)
        start = end
        while token < len(ends) and ends[token] <= start:
            token += 1
    return found


def _ours(recipe: config.Recipe, run: Path) -> dict[str, float]:
    """Harvest and catalogue again, as the commands do it: CPU-seconds as in the run's own log."""
    for folder in (run / "activations", run / HOOKPOINT / "catalogue"):
        shutil.rmtree(folder, ignore_errors=True)
    for verb in ("harvest", "catalogue"):
        job.run_verb(recipe, verb, say=_say)
    lines = [json.loads(line) for line in (run / LOG_FILE).read_text().splitlines()]
    return {line["stage"].split()[0]: line["cpu_seconds"] for line in lines[-2:]}


def _dashboard(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    command = [arguments.peers_python, str(HERE / "dashboard.py"), arguments.model, str(scratch / "theirs"),
               str(scratch / "tokens.npy"), str(LAYER), str(arguments.asked), str(arguments.asked),
               str(arguments.prompts_at_once), str(scratch / "pages.json")]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _ratios(turns: list[dict[str, float]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Theirs is a straight line in the features of a batch (its own cost is one encoding of all tokens)."""
    half, asked, all_latents = arguments.asked // 2, arguments.asked, arguments.latents
    rows = []
    for turn in turns:
        ours = turn["harvest"] + turn["catalogue"]
        a_feature = (turn[f"theirs_{asked}"] - turn[f"theirs_{half}"]) / (asked - half)
        theirs = turn["cache"] + turn[f"theirs_{asked}"]
        theirs_all = turn["cache"] + turn[f"theirs_{asked}"] * all_latents / asked
        theirs_one_batch = theirs + a_feature * (all_latents - asked)
        rows.append(
            {
                "ours_cpu_seconds": ours,
                f"theirs_cpu_seconds_{asked}_asked": theirs,
                "theirs_cpu_seconds_a_feature_of_a_batch": a_feature,
                "theirs_cpu_seconds_of_a_batch_itself": turn[f"theirs_{asked}"] - a_feature * asked,
                "ours_features_per_cpu_second": all_latents / ours,
                f"ours_features_per_cpu_second_of_{asked}_asked": asked / ours,
                f"theirs_features_per_cpu_second_of_{asked}_asked": asked / theirs,
                f"ratio_{asked}_asked": theirs / ours,
                "theirs_features_per_cpu_second_all_extrapolated": all_latents / theirs_all,
                "ratio_all_extrapolated": theirs_all / ours,
                "ratio_all_extrapolated_if_one_batch_held_all": theirs_one_batch / ours,
            }
        )
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def _compare(ours: Catalogue, corpus: Corpus, given: dict[str, Any]) -> dict[str, Any]:
    """Their pages against our codes and pages."""
    starts = corpus.windows.start

    def place(token: int) -> tuple[int, int]:
        """The window, and the place in it, after BOS."""
        window = int(np.searchsorted(starts, token, side="right")) - 1
        return window, token - int(starts[window]) + 1

    count: defaultdict[str, int] = defaultdict(int)
    largest, off = 0.0, 0.0
    for name, page in given.items():
        latent = int(name)
        entries, feature = ours.entries(latent), ours.feature(latent)
        values = {place(int(token)): float(value) for token, value in zip(entries.token, entries.value, strict=True)}
        inner = {at: value for at, value in values.items() if EDGE <= at[1] < CONTEXT - 5}
        count["features"] += 1
        count["dead"] += feature.is_dead
        count["dead_with_rows"] += feature.is_dead and bool(page["top"])
        top = [(window, position, value) for window, position, value in page["top"]]
        fires = [one for one in top if one[2] > 0]
        count["top_rows"] += len(top)
        count["top_rows_without_activation"] += len(top) - len(fires)
        count["top_rows_of_a_sequence_shown_above"] += len(fires) - len({window for window, _, _ in fires})
        for window, position, value in fires:
            apart = abs(values.get((window, position), 0.0) - value)
            largest, off = max(largest, value), max(off, apart)
            count["activations_the_same"] += apart <= CLOSE
        best = sorted(inner.values(), reverse=True)[: len(fires)]
        count["top_lists_the_same"] += all(
            abs(mine - theirs[2]) <= CLOSE for mine, theirs in zip(best, fires, strict=False)
        ) and len(best) == len(fires)
        if fires:
            count["alive"] += 1
            shown = feature.top[0]
            first = place(shown.token)
            if first == (fires[0][0], fires[0][1]):
                count["strongest_the_same"] += 1
            elif first not in inner:
                count["strongest_at_an_edge"] += 1
            elif abs(values[first] - fires[0][2]) <= CLOSE:
                count["strongest_of_equals"] += 1
            else:
                count["strongest_another"] += 1
        for group in page["intervals"]:
            drawn = [(window, position) for window, position, _ in group]
            count["interval_rows"] += len(drawn)
            count["interval_rows_shown_above"] += len(set(drawn) & {(w, p) for w, p, _ in top})
            count["interval_rows_without_activation"] += sum(value <= 0 for _, _, value in group)
    return dict(count) | {"largest_activation": round(largest, 3), "activations_apart_at_most": round(off, 6)}


# --- where the CPU-seconds go ---


class Steps:
    """CPU-seconds by step: of a call what it spent, less what wrapped calls inside it spent."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def wrap(self, owner: Any, name: str, step: str) -> None:
        work = getattr(owner, name)

        @functools.wraps(work)
        def timed(*given: Any, **named: Any) -> Any:
            return self.of(step, lambda: work(*given, **named))

        setattr(owner, name, timed)

    def wrap_iterator(self, owner: Any, name: str, step: str) -> None:
        work = getattr(owner, name)

        @functools.wraps(work)
        def timed(*given: Any, **named: Any) -> Iterator[Any]:
            iterator, end = iter(work(*given, **named)), object()
            while (item := self.of(step, lambda: next(iterator, end))) is not end:
                yield item

        setattr(owner, name, timed)

    def of(self, step: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        self._inside.append(0.0)
        try:
            return work()
        finally:
            whole, inside = time.process_time() - start, self._inside.pop()
            self.spent[step] += whole - inside
            if self._inside:
                self._inside[-1] += whole


def _split(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    run, wanted = scratch / "long", arguments.long_tokens
    recipe = _recipe(
        arguments,
        run,
        arguments.long_latents,
        {
            "corpus": {"kind": "text", "path": arguments.long_text, "max_document_chars": 4000, "max_tokens": wanted},
            "windows": {"context": LONG_CONTEXT},
            "harvest": {"hookpoints": [HOOKPOINT]},
            "catalogue": {"max_tokens": 2 * wanted},  # every row there is
        },
    )
    job.run_until(recipe, "corpus", say=_say)
    steps = Steps()
    steps.wrap(LanguageModel, "read", "model")
    steps.of("harvest, all else", lambda: job.run_verb(recipe, "harvest", say=_say))
    job.run_until(recipe, "train", say=_say)
    _wrap(steps, type(load_dictionary(run / HOOKPOINT / "dictionary")))
    steps.of("catalogue, all else", lambda: job.run_verb(recipe, "catalogue", say=_say))
    _say(f"{dict(steps.spent)}")
    made, spent = Catalogue.open(run / HOOKPOINT / "catalogue"), steps.spent
    passes, dictionary = spent["model"], spent["dictionary"]
    rest = sum(spent.values()) - passes - dictionary
    return {
        "command": "python benchmarks/catalogue/run.py --model FOLDER --long-text FILES"
        f" --long-tokens {arguments.long_tokens}",
        "dictionary": f"topk, {made.n_latents} latents, k {arguments.k}, {HOOKPOINT}",
        "tokens": made.n_tokens,
        "entries": int(made.counts.sum()),
        "cpu_seconds": {name: round(cost, 2) for name, cost in sorted(spent.items(), key=lambda item: -item[1])},
        "model_cpu_seconds": round(passes, 2),
        "dictionary_cpu_seconds": round(dictionary, 2),
        "else_cpu_seconds": round(rest, 2),
        "else_over_model_and_dictionary": round(rest / (passes + dictionary), 2),
        "else_over_model": round(rest / passes, 2),
        "load1": round(os.getloadavg()[0], 1),
    }


def _wrap(steps: Steps, dictionary: type) -> None:
    steps.wrap(dictionary, "encode", "dictionary")
    steps.wrap(Store, "take", "rows read")
    steps.wrap(encode, "write_run", "runs sorted and written")
    steps.wrap(builder, "run_encode", "codes written and counted")
    steps.wrap(builder, "sort_runs", "index merged")
    steps.wrap(builder, "_for_ranges", "what all ranges need")
    steps.wrap(builder, "families", "families")
    steps.wrap(builder, "place", "map")
    steps.wrap_iterator(LatentIndex, "between", "index read")
    steps.wrap(features, "gather", "statistics and examples")
    steps.wrap(features, "along", "activations along examples")
    steps.wrap(features, "promoted_and_suppressed", "promoted")
    steps.wrap(features, "nearest", "neighbours")
    steps.wrap(features, "_together", "together")
    steps.wrap(features, "_blocks", "blocks packed")


if __name__ == "__main__":
    main()
