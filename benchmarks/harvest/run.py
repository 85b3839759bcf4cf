"""What harvest costs beside the one thing it cannot do without: the model's forward pass up to the last layer that is kept.

    python benchmarks/harvest/run.py                                  # the built-in model, and a random Llama of 30M parameters
    python benchmarks/harvest/run.py --model FOLDER --text FILE ...   # another model in place of the built-in one

Harvest is the whole stage (keys, forward pass, rounding, sorting, checksums, writing and syncing), driver and one worker, the
model already loaded. The bare side runs Hugging Face's module on the same batches in a worker of its own, with one hook that
stops it at the same layer, and keeps nothing. One thread each; the two sides take turns; rates are tokens per CPU-second and
the ratio is the median over the turns, so that a busy machine slows both. `wall_ratio` is the same ratio by the clock: it has
what waiting for the disk costs, and the machine's noise. Above 1 is possible: a harvest's process keeps its memory
(`model/memory.py`), where an ordinary one gives it back and faults it in again for every layer.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mohole import artifact, config
from mohole.artifact import Inputs
from mohole.corpus import Corpus, Document, batches, build_corpus
from mohole.corpus.slices import slices
from mohole.execute import Cores, Task, open_executor
from mohole.harvest import harvest
from mohole.model import LanguageModel, new_model
from mohole.model.load import load_model, save_model
from mohole.model.shared import shared_model

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import footprint  # noqa: E402
import machine  # noqa: E402

REPOSITORY = HERE.parent.parent
CONTEXT = 256
LLAMA = {
    "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 9, "num_attention_heads": 8, "intermediate_size": 1408,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        given = config.Model(path=arguments.model)
        llama = config.Model(path=str(_llama(scratch / "llama", shared_model(given))))
        measured = [
            _measure(settings, n_tokens, n_hookpoints, arguments, scratch)
            for settings, n_tokens in ((given, arguments.tokens), (llama, arguments.llama_tokens))
            for n_hookpoints in (1, 3)
        ]
    result = {
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/harvest/run.py" + (" --model FOLDER --text FILES" if arguments.text else ""),
        "machine": f"{machine.machine()}, torch {torch.__version__}, 1 thread",
        "measured": measured,
    }
    out = HERE / "results" / f"{result['date']}{arguments.suffix}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for each in measured:
        print("  ".join(f"{name} {value}" for name, value in each.items() if name != "ratios"))
    print(f"written to {out.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="planted", help="a folder in Hugging Face format")
    parser.add_argument("--text", type=Path, nargs="*", help="text files; the project's own documentation if none")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--llama-tokens", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", help="a folder on the disk that takes the rows")
    parser.add_argument("--suffix", default="", help="of the result's name, for a second one of the same day")
    return parser.parse_args()


def _llama(folder: Path, other: LanguageModel) -> Path:
    """An untrained Llama of 30M parameters, with the other model's tokenizer."""
    tokenizer = other.tokenizer
    save_model(new_model(LLAMA | {"vocab_size": len(tokenizer)}, seed=0, tokenizer=tokenizer, name="llama 30M"), folder)
    return folder


def _measure(
    settings: config.Model, n_tokens: int, n_hookpoints: int, arguments: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    model = shared_model(settings)
    corpus = _corpus(scratch / f"corpus{time.monotonic_ns()}", model, arguments.text, n_tokens)
    last = model.n_layers * 2 // 3
    hookpoints = tuple(f"resid_post.{layer}" for layer in range(last + 1 - n_hookpoints, last + 1))
    wanted = config.Harvest(hookpoints=hookpoints)
    out = scratch / "harvested"
    turns = []
    one = Cores(1, 1)
    with open_executor("process", one) as alone, open_executor("process", one) as workers:
        task = Task("bare", bare, (settings.path, str(corpus.path), wanted.batch_tokens, wanted.shard_tokens, last))
        for turn in range(arguments.rounds + 1):
            bare_costs = _costs(lambda: alone.run([task]))
            out.mkdir()
            stage_costs = _costs(lambda: harvest(out, model, corpus, wanted, workers, model_settings=settings, seed=0))
            shutil.rmtree(out)
            if turn:  # the first loads the model, and warms up
                turns.append((bare_costs, stage_costs))
    tokens = _batches(model, corpus, wanted.batch_tokens, wanted.shard_tokens)
    return {
        "model": f"{model.family}, d_model {model.d_model}, {sum(p.numel() for p in model.hf.parameters()) / 1e6:.2f}M",
        "hookpoints": n_hookpoints,
        "tokens": corpus.n_tokens,
        "padding": round(sum(batch.numel() for batch in tokens) / (corpus.n_tokens + len(corpus.windows)) - 1, 4),
        "bare_tokens_per_cpu_second": round(corpus.n_tokens / statistics.median(bare[0] for bare, _ in turns)),
        "harvest_tokens_per_cpu_second": round(corpus.n_tokens / statistics.median(stage[0] for _, stage in turns)),
        "ratio": round(statistics.median(bare[0] / stage[0] for bare, stage in turns), 3),
        "wall_ratio": round(statistics.median(bare[1] / stage[1] for bare, stage in turns), 3),
        "ratios": [round(bare[0] / stage[0], 3) for bare, stage in turns],
        "load1": round(os.getloadavg()[0], 1),
    }


def bare(model: str, corpus: str, batch_tokens: int, shard_tokens: int, last: int) -> None:
    """In a worker: Hugging Face's module on harvest's batches, up to the layer `last`."""
    loaded, batches = _prepared(model, corpus, batch_tokens, shard_tokens)
    layer: Any = loaded.hf.model.layers[last]  # type: ignore[union-attr, index]
    hook = layer.register_forward_hook(_stop)
    with torch.no_grad():
        for batch in batches:
            try:
                loaded.hf(input_ids=batch, use_cache=False)
            except _StopError:
                continue
    hook.remove()


@lru_cache(maxsize=1)
def _prepared(
    model: str, corpus: str, batch_tokens: int, shard_tokens: int
) -> tuple[LanguageModel, list[torch.Tensor]]:
    """Loaded without what mohole does to a process that runs a model."""
    loaded = load_model(model)
    return loaded, _batches(loaded, Corpus.open(corpus), batch_tokens, shard_tokens)


def _batches(model: LanguageModel, corpus: Corpus, batch_tokens: int, shard_tokens: int) -> list[torch.Tensor]:
    """The token batches that harvest runs."""
    bos = model.bos_id if corpus.has_bos else None
    return [
        torch.from_numpy(corpus.window_tokens(batch, bos)).long()
        for first, end in slices(corpus, shard_tokens)
        for batch in batches(corpus.windows, batch_tokens, np.arange(first, end))
    ]


def _corpus(out: Path, model: LanguageModel, files: list[Path] | None, n_tokens: int) -> Corpus:
    texts = [file.read_text(encoding="utf-8") for file in files or sorted((REPOSITORY / "docs").rglob("*.md"))]
    documents: list[Document] = []
    n_characters = 0
    while n_characters < 8 * n_tokens:  # again from the start, where the texts are short
        for text in texts:
            documents += [Document(text[first : first + 1500]) for first in range(0, len(text), 1500)]
            n_characters += len(text)
    with artifact.create(out, Inputs(kind="corpus", config={}, seed=0)) as draft:
        context = min(CONTEXT, model.context or CONTEXT)
        build_corpus(
            draft, documents, model.tokenizer, context=context, has_bos=model.bos_id is not None, held_out=0.3, seed=0,
            max_tokens=n_tokens,
        )  # fmt: skip
    return Corpus.open(out)


class _StopError(Exception):
    """The layer has run."""


def _stop(module: object, args: object, output: object) -> None:
    raise _StopError


def _costs(call: Callable[[], object]) -> tuple[float, float]:
    """CPU-seconds of this process and its workers, and seconds."""
    wall, cpu = time.perf_counter(), footprint.cpu_seconds()
    call()
    return footprint.cpu_seconds() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    sys.exit(main())
