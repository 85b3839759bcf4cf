"""What an evaluation costs beside the forward passes and the encoding that it needs and beside SAELens; where the numbers differ.

    python benchmarks/evaluate/run.py --model FOLDER --text FILE                          # a dictionary of 16384 latents
    python benchmarks/evaluate/run.py --model FOLDER --text FILE --peers-python PYTHON    # and SAELens' evals on the same

The text is cut into documents of exactly four windows, so that every window is full and both libraries see the same tokens.
`needed` is what no evaluation with these measures can do without: one forward pass each for the model untouched, for the
reconstruction and for the four ablations, a seventh up to the dictionary's layer for the means, all of Hugging Face's module
alone on the same batches, and one encoding of every row by the dictionary. `evaluation` is the whole stage, as `mohole evaluate`
runs it: rows read and checked, sums, intervals over documents, guards, what is unexplained, files. It runs the layers before
the dictionary's once for six passes, so `needed_from_the_layer_on` is what its passes need: the stricter of the two ratios.
SAELens runs in an environment of its own (`sae_lens.evals.run_evals` with everything but weights on, through its Hugging Face
route, by the same batches, warmed up on one of them). It does less: it has one ablation, no intervals, no guards and nothing
about what is unexplained. All take turns, which begin at another of them each time; a first turn of each is thrown away. Costs
are CPU-seconds of one thread, ratios are medians over the turns.

`CE zero` and what is made of it differ by definition: SAELens puts zeros at BOS, too, mohole at every token of the text only.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mohole import config, job, load_dictionary
from mohole.corpus import Corpus
from mohole.dictionary.formats.export import export_dictionary
from mohole.evaluate import read_evaluation
from mohole.evaluate.in_model.passages import Passage, held_out_passages
from mohole.evaluate.rows.choice import chunks
from mohole.evaluate.stage import evaluate
from mohole.model import LanguageModel, load_model
from mohole.store import Store

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import machine  # noqa: E402

CONTEXT = 256
WINDOWS = 4  # of a document
HOOKPOINT = "resid_post.2"
SEPARATOR = "<|document|>"  # of nothing that a text begins or ends with, or a document would lose a token
BATCH_TOKENS = 2048


def main() -> None:
    torch.set_num_threads(1)
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        result = _measure(arguments, Path(folder))
    out = HERE / "results" / f"{result['date']}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in result.items():
        print(f"{name}: {value}" if name != "numbers" else "\n".join(f"  {line}" for line in value))
    print(f"written to {out.relative_to(HERE.parent.parent)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a folder in Hugging Face format")
    parser.add_argument("--text", type=Path, required=True, help="text of the kind that the model was trained on")
    parser.add_argument("--tokens", type=int, default=200_000, help="held-out ones, which are evaluated")
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-python", help="Python of an environment with sae-lens")
    parser.add_argument("--scratch", help="a folder for what is made on the way")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    model = load_model(arguments.model)
    (scratch / "text.txt").write_text(SEPARATOR.join(whole_documents(arguments.text, model)), encoding="utf-8")
    run = scratch / "run"
    recipe = config.parse(
        {
            "run": str(run),
            "machine": {"processes": 1, "threads": 1},
            "model": {"path": arguments.model},
            "corpus": {"kind": "text", "path": str(scratch / "text.txt"), "separator": SEPARATOR},
            "windows": {"context": CONTEXT, "held_out": 0.5},
            "harvest": {"hookpoints": [HOOKPOINT]},
            "train": {
                "n_latents": arguments.latents,
                "nonlinearity": {"kind": "topk", "k": arguments.k},
                "steps": arguments.steps,
            },
        }
    )
    job.run_until(recipe, "train", say=lambda line: print(line, file=sys.stderr))
    corpus, store = Corpus.open(run / "corpus"), Store.open(run / "activations")
    dictionary = load_dictionary(run / HOOKPOINT / "dictionary")
    n_documents = arguments.tokens // (WINDOWS * (CONTEXT - 1))
    wanted = n_documents * WINDOWS * (CONTEXT - 1)
    settings = config.Evaluate(
        max_documents=n_documents, max_tokens=wanted, max_rows=wanted, recovery=False, batch_tokens=BATCH_TOKENS
    )
    passages, n_tokens = held_out_passages(model, corpus, settings, 0)
    if n_tokens < 0.99 * wanted:  # a document may be a token short where it meets the next
        raise SystemExit(f"{arguments.text}: {n_tokens} held-out tokens, where {wanted} are to be evaluated; give more")
    np.save(scratch / "tokens.npy", np.concatenate([passage.tokens.numpy() for passage in passages]))
    export_dictionary(dictionary, scratch / "theirs", "saelens")

    tokens = np.sort(np.concatenate([passage.replaced_tokens for passage in passages]))
    last = int(HOOKPOINT.split(".")[1])
    work: list[tuple[str, Callable[[], float]]] = [
        ("full", lambda: _cpu(lambda: _forward(model, passages, None))),
        ("partial", lambda: _cpu(lambda: _forward(model, passages, last))),
        ("encode", lambda: _cpu(lambda: _encode(dictionary, store, tokens))),
        ("evaluation", lambda: _evaluation(scratch / "evaluation", model, dictionary, corpus, store, settings)),
    ]
    theirs: dict[str, Any] = {}
    if arguments.peers_python:

        def peer() -> float:
            theirs.update(_peer(arguments, scratch))
            return float(theirs["cpu_seconds"])

        work.append(("saelens", peer))
    turns = []
    for turn in range(arguments.rounds + 1):
        begin = turn % len(work)
        costs = {name: measure() for name, measure in work[begin:] + work[:begin]}
        if turn:  # the first warms up
            turns.append(costs)
            print(f"turn {turn}: {costs}", file=sys.stderr)
    needed = [6 * turn["full"] + turn["partial"] + turn["encode"] for turn in turns]
    needed_there = [6 * turn["full"] - 4 * turn["partial"] + turn["encode"] for turn in turns]
    stages = [turn["evaluation"] for turn in turns]
    median = statistics.median
    evaluation = read_evaluation(scratch / "evaluation")
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/evaluate/run.py --model FOLDER --text FILE"
        + (" --peers-python PYTHON" if arguments.peers_python else ""),
        "machine": f"{machine.machine()}, torch {torch.__version__}, 1 thread",
        "model": f"{model.family}, d_model {model.d_model}, {model.n_layers} layers, {HOOKPOINT}",
        "dictionary": f"topk, {arguments.latents} latents, k {arguments.k}",
        "tokens": n_tokens,
        "forward_cpu_seconds": round(median(turn["full"] for turn in turns), 2),
        "forward_to_layer_cpu_seconds": round(median(turn["partial"] for turn in turns), 2),
        "encode_cpu_seconds": round(median(turn["encode"] for turn in turns), 2),
        "needed_cpu_seconds": round(median(needed), 2),
        "evaluation_cpu_seconds": round(median(stages), 2),
        "evaluation_over_needed": round(median(s / n for s, n in zip(stages, needed, strict=True)), 2),
        "needed_from_the_layer_on_cpu_seconds": round(median(needed_there), 2),
        "evaluation_over_needed_from_the_layer_on": round(
            median(s / n for s, n in zip(stages, needed_there, strict=True)), 2
        ),
        "ratios": [round(s / n, 2) for s, n in zip(stages, needed, strict=True)],
        "saelens_cpu_seconds": [round(turn["saelens"], 2) for turn in turns] if theirs else "not measured",
        "saelens_over_evaluation": (
            round(median(turn["saelens"] / turn["evaluation"] for turn in turns), 2) if theirs else "not measured"
        ),
        "saelens": theirs["versions"] if theirs else "not measured",
        "numbers": _numbers(evaluation.measures, theirs["metrics"]) if theirs else "not measured",
        "load1": round(os.getloadavg()[0], 1),
    }


def whole_documents(path: Path, model: LanguageModel) -> list[str]:
    """The text in pieces whose tokens fill their windows exactly."""
    text, wanted = path.read_text(encoding="utf-8"), WINDOWS * (CONTEXT - 1)
    ends = [end for _, end in model.tokenizer.encode_with_offsets(text)[1]]
    found, start, token = [], 0, 0
    while token + wanted < len(ends):
        end = ends[token + wanted - 1]
        while len(model.tokenizer.encode(text[start:end])) > wanted:
            end -= 1
        while len(model.tokenizer.encode(text[start:end])) < wanted and end < len(text):
            end += 1
        if len(model.tokenizer.encode(text[start:end])) == wanted and SEPARATOR not in text[start:end]:
            found.append(text[start:end])
        start = end
        while token < len(ends) and ends[token] <= start:
            token += 1
    return found


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.process_time() - start


def _evaluation(out: Path, *given: Any) -> float:
    """The whole stage, into an empty folder; emptying it is not timed."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return _cpu(lambda: evaluate(out, *given, seed=0))


class _StopError(Exception):
    pass


def _stop(*_: object) -> None:
    raise _StopError


def _forward(model: LanguageModel, passages: list[Passage], last: int | None) -> None:
    """Hugging Face's module alone, to the end or up to layer `last`."""
    layers: Any = model.hf.model.layers  # type: ignore[union-attr]
    hook = layers[last].register_forward_hook(_stop) if last is not None else None
    with torch.no_grad():
        for passage in passages:
            with contextlib.suppress(_StopError):
                model.hf(input_ids=passage.tokens, use_cache=False)
    if hook:
        hook.remove()


def _encode(dictionary: Any, store: Store, tokens: Any) -> None:
    """Every row once, in the pieces that an evaluation takes."""
    rows = torch.from_numpy(store.take(HOOKPOINT, tokens))
    for part in chunks(len(rows), dictionary.n_latents):
        dictionary.encode(rows[part])


def _peer(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    command = [arguments.peers_python, str(HERE / "peer.py"), arguments.model, str(scratch / "theirs"),
               str(scratch / "tokens.npy"), f"model.layers.{HOOKPOINT.split('.')[1]}", str(BATCH_TOKENS // CONTEXT)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _numbers(ours: Any, theirs: dict[str, float]) -> list[str]:
    """Ours and theirs, side by side."""

    def value(name: str) -> float:
        return float(ours[name].value)

    pairs = [
        ("FVU / 1 - explained_variance", value("fvu"), 1 - theirs["explained_variance"]),
        ("legacy / 1 - explained_variance_legacy", value("fvu_by_row_legacy"), 1 - theirs["explained_variance_legacy"]),
        ("MSE / mse", value("mse"), theirs["mse"]),
        ("cosine / cossim", value("cosine"), theirs["cossim"]),
        ("length ratio / l2_ratio", value("length_ratio"), theirs["l2_ratio"]),
        ("relative bias / relative_reconstruction_bias", value("relative_bias"), theirs["relative_reconstruction_bias"]),
        ("L0 / l0", value("l0"), theirs["l0"]),
        ("L1 / l1", value("l1"), theirs["l1"]),
        ("CE clean / ce_loss_without_sae", value("ce_clean"), theirs["ce_loss_without_sae"]),
        ("CE replaced / ce_loss_with_sae", value("ce_replaced"), theirs["ce_loss_with_sae"]),
        ("CE zero / ce_loss_with_ablation", value("ce_zero"), theirs["ce_loss_with_ablation"]),
        ("CE recovered (zero) / ce_loss_score", value("ce_recovered_zero"), theirs["ce_loss_score"]),
        ("KL / kl_div_with_sae", value("kl"), theirs["kl_div_with_sae"]),
        ("KL zero / kl_div_with_ablation", value("kl_zero"), theirs["kl_div_with_ablation"]),
        ("KL recovered (zero) / kl_div_score", value("kl_recovered_zero"), theirs["kl_div_score"]),
    ]  # fmt: skip
    return [f"{name}: {our:.6g} / {their:.6g} ({their - our:+.1e})" for name, our, their in pairs]


if __name__ == "__main__":
    main()
