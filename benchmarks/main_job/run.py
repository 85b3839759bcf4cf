"""What the demo costs, stage by stage, beside what bounds each stage; and the demo's numbers beside their floors and ceilings.

    python benchmarks/main_job/run.py            # runs recipes/demo.toml into a temporary folder
    python benchmarks/main_job/run.py RUN        # takes a finished run of recipes/demo.toml

Everything on one thread. Ratios are medians of interleaved pairs, so that a machine that is busy for a while slows both.
"""

import datetime
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mohole.config import Recipe, read_recipe
from mohole.corpus import Corpus, batches
from mohole.corpus.slices import slices
from mohole.evaluate import read_evaluation, read_recovery
from mohole.execute import Cores, open_executor
from mohole.harvest import harvest
from mohole.job.asked import hookpoints_of
from mohole.model import LanguageModel
from mohole.model.shared import shared_model
from mohole.record import read_record

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent.parent / "recipes" / "demo.toml"
PAIRS = 7


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(sys.argv[1]) if len(sys.argv) > 1 else run_demo(Path(scratch) / "run")
        recipe = read_recipe(RECIPE, [f"run={run}"])
        model, corpus = shared_model(recipe.model), Corpus.open(run / "corpus")
        result = {
            "date": datetime.date.today().isoformat(),
            "command": "python benchmarks/main_job/run.py",
            "machine": f"{cpu()}, {platform.machine()}, torch {torch.__version__}, 1 thread",
            "stages": stages(run),
            "harvest": [
                harvest_against_bare_forward(model, corpus, recipe, hookpoints, Path(scratch))
                for hookpoints in (hookpoints_of(recipe)[-1:], hookpoints_of(recipe))
            ],
            "train": step_against_one_product(recipe, model.d_model, run),
            "quality": {hookpoint: quality(run / hookpoint) for hookpoint in hookpoints_of(recipe)},
        }
    out = HERE / "results" / f"{result['date']}.json"
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    print(f"written to {out.relative_to(HERE.parent.parent)}")


def run_demo(run: Path) -> Path:
    command = [sys.executable, "-m", "mohole", "run", str(RECIPE), "-o", f"run={run}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def stages(run: Path) -> dict[str, float]:
    """CPU-seconds of each stage, from the job's own log."""
    seconds = {line["stage"]: line["cpu_seconds"] for line in read_record(run / "job.jsonl")}
    return seconds | {"sum": round(sum(seconds.values()), 1)}


def harvest_against_bare_forward(
    model: LanguageModel, corpus: Corpus, recipe: Recipe, hookpoints: tuple[str, ...], scratch: Path
) -> dict[str, float]:
    """Tokens per CPU-second: the whole stage, against the bare model cut off after the last harvested layer. Same batches.

    Beside it the bytes that the stage writes, and the CPU-seconds that writing them alone takes.
    """
    settings = recipe.harvest.model_copy(update={"hookpoints": hookpoints})
    last = max(int(hookpoint.rpartition(".")[2]) for hookpoint in hookpoints)
    bos = model.bos_id if corpus.has_bos else None
    tokens = [
        torch.from_numpy(corpus.window_tokens(group, bos))
        for first, last in slices(corpus, settings.shard_tokens)
        for group in batches(corpus.windows, settings.batch_tokens, np.arange(first, last))
    ]
    bare = model.hf.model  # type: ignore[union-attr]
    layers = bare.layers

    def forward() -> None:
        bare.layers = layers[: last + 1]
        try:
            with torch.no_grad():
                for batch in tokens:
                    bare(input_ids=batch, use_cache=False)
        finally:
            bare.layers = layers

    out = scratch / "harvest"

    def stage() -> None:
        with open_executor("inline", Cores(1, 1)) as executor:
            harvest(out, model, corpus, settings, executor, model_settings=recipe.model, seed=recipe.seed)

    n_bytes = corpus.n_tokens * (model.d_model * 2 + 16) * len(hookpoints)  # bfloat16, key and token
    block = bytes(1 << 20)

    def write() -> None:
        with (scratch / "bytes").open("wb") as file:
            for _ in range(n_bytes >> 20):
                file.write(block)
        (scratch / "bytes").unlink()

    pairs = []
    for _ in range(PAIRS):
        out.mkdir()
        pairs.append((cpu_seconds(forward), cpu_seconds(stage)))
        shutil.rmtree(out)  # what the stage wrote stays with its user: taking it away is no part of it
    writing = statistics.median(cpu_seconds(write) for _ in range(PAIRS))
    return {
        "bare_tokens_per_cpu_second": round(corpus.n_tokens / statistics.median(bare for bare, _ in pairs)),
        "harvest_tokens_per_cpu_second": round(corpus.n_tokens / statistics.median(full for _, full in pairs)),
        "ratio": round(statistics.median(bare / full for bare, full in pairs), 3),
        "hookpoints": len(hookpoints),
        "megabytes_written": n_bytes >> 20,
        "cpu_seconds_to_write_them_alone": round(writing, 2),
    }


def step_against_one_product(recipe: Recipe, d_model: int, run: Path) -> dict[str, float]:
    """CPU-seconds of a training step, in units of the one dense product that it cannot do without."""
    settings = recipe.train
    rows, weights = torch.randn(settings.batch_rows, d_model), torch.randn(settings.n_latents, d_model)
    out = torch.empty(settings.batch_rows, settings.n_latents)
    product = statistics.median(cpu_seconds(lambda: torch.mm(rows, weights.T, out=out)) for _ in range(200))
    trained = [line["cpu_seconds"] for line in read_record(run / "job.jsonl") if line["stage"].startswith("train")]
    step = statistics.median(trained) / settings.steps
    return {
        "step_cpu_ms": round(step * 1e3, 2),
        "product_cpu_ms": round(product * 1e3, 2),
        "products_per_step": round(step / product, 2),
    }


def quality(folder: Path) -> dict[str, object]:
    """The numbers of one hookpoint that the demo is held to."""
    evaluation, recovery = read_evaluation(folder / "evaluation"), read_recovery(folder / "evaluation")
    measures = {name: measure.value for name, measure in evaluation.measures.items()}
    tasks = {task.name: [task.clean, task.replaced] for task in evaluation.tasks}
    words = recovery.words if recovery else None
    concept = recovery.concept("landmark/golden_gate_bridge") if recovery else None
    bridge = (
        {"fired_in": concept.n_fired, "of": len(concept.languages), "is_one": concept.is_multilingual}
        if concept
        else None
    )
    return {
        "measures": measures,
        "tasks_clean_and_replaced": tasks,
        "concept_words_f1": vars_of(words.f1) if words else None,
        "concept_words_margin": words.margin if words else None,
        "concept_words_f1_among_all_tokens": (
            {"latent": words.f1_all_latent, "random": words.f1_all_random} if words else None
        ),
        "multilingual_share": recovery.multilingual.share if recovery else None,
        "multilingual_share_random": recovery.multilingual.share_random if recovery else None,
        "bridge": bridge,
        "families_f1": {family.family: vars_of(family.f1) for family in recovery.families} if recovery else None,
    }


def cpu() -> str:
    """What the processor calls itself."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor unknown"
    )


def vars_of(medians: object) -> dict[str, float]:
    return {name: round(getattr(medians, name), 3) for name in ("latent", "neuron", "pca", "random", "probe")}


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
