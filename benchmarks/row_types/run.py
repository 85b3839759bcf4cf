"""Does it matter how rows are stored, or that they are never stored? The same training from float32, bfloat16 and int8 stores
and from the model itself, several seeds each, measured on the same held-out float32 rows.

    python benchmarks/row_types/run.py

The spread over seeds is the noise that a difference has to exceed. Writes results/DATE.json.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from mohole import artifact, config
from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder
from mohole.dictionary.files import open_sae
from mohole.execute import Cores, open_executor
from mohole.harvest import LiveStream, harvest
from mohole.job import read_recipe, run_verb
from mohole.metrics import fvu
from mohole.model.shared import shared_model
from mohole.store import Store
from mohole.store.listing import BULK
from mohole.store.stream import Stream
from mohole.train import train

HERE = Path(__file__).parent
HOOKPOINT = "resid_post.1"
LIVE_ROWS = (4096, 16_384, 65_536)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=900)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options.seeds, options.steps)
    date = datetime.date.today().isoformat()
    out = HERE / "results" / f"{date}.json"
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, found in results["variants"].items():
        print(f"{name:12} fvu {found['fvu_median']:.5f} ({found['fvu_min']:.5f} to {found['fvu_max']:.5f})  "
              f"store {found['store_bytes']:>12,}  clipped {found['clipped']}")  # fmt: skip
    print(out.relative_to(HERE.parent.parent))


def measure(folder: Path, n_seeds: int, steps: int) -> dict[str, object]:
    """Train every variant with every seed."""
    recipe = read_recipe(HERE.parent.parent / "recipes" / "demo.toml", [f"run={folder}/run"])
    run_verb(recipe, "corpus")
    corpus = Corpus.open(folder / "run" / "corpus")
    model = shared_model(recipe.model)
    stores = {
        dtype: _harvest(folder / dtype, model, corpus, dtype, recipe) for dtype in ("float32", "bfloat16", "int8")
    }
    truth = stores["float32"]
    tokens = truth.tokens[truth.held_out]
    target = torch.from_numpy(truth.take(HOOKPOINT, tokens))
    variants: dict[str, dict[str, object]] = {}
    for name in (*stores, *(f"live {rows}" for rows in LIVE_ROWS)):
        scores, cpu = [], []
        for seed in range(n_seeds):
            start = time.process_time()
            if name in stores:
                stream: object = Stream(stores[name], HOOKPOINT)
            else:
                stream = LiveStream(
                    model, corpus, HOOKPOINT, buffer_rows=int(name.split()[1]), batch_tokens=2048, seed=0
                )
            out = folder / f"{name.replace(' ', '-')}-{seed}"
            settings = recipe.train.model_copy(update={"steps": steps})
            with artifact.create(out, artifact.Inputs(kind="dictionary", config={}, seed=seed)) as draft:
                train(draft, stream, settings, seed=seed)
            cpu.append(time.process_time() - start)
            dictionary = open_sae(out)
            scores.append(_held_out_fvu(dictionary, target))
        store = stores.get(name)
        variants[name] = {
            "fvu": scores,
            "fvu_median": statistics.median(scores),
            "fvu_min": min(scores),
            "fvu_max": max(scores),
            "cpu_seconds_median": statistics.median(cpu),
            "store_bytes": 0 if store is None else sum(shard.n_bytes for shard in store.layout.shards[HOOKPOINT]),
            "clipped": None if store is None else store.facts.n_clipped[HOOKPOINT],
        }
    return {
        "command": "python benchmarks/row_types/run.py",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load1": os.getloadavg()[0],
        },
        "hookpoint": HOOKPOINT,
        "held_out_rows": len(tokens),
        "steps": steps,
        "seeds": n_seeds,
        "variants": variants,
    }


def _harvest(out: Path, model: object, corpus: Corpus, dtype: str, recipe: config.Recipe) -> Store:
    settings = recipe.harvest.model_copy(update={"dtype": dtype, "hookpoints": (HOOKPOINT,)})
    inputs = artifact.Inputs(kind="activations", config={"dtype": dtype}, seed=0)
    with artifact.create(out, inputs, bulk=BULK) as draft, open_executor("inline", Cores(1, 1)) as executor:
        harvest(draft, model, corpus, settings, executor, model_settings=recipe.model, seed=0)
    return Store.open(out)


@torch.no_grad()
def _held_out_fvu(dictionary: SparseAutoencoder, target: torch.Tensor) -> float:
    parts = [dictionary.decode(dictionary.encode(part)) for part in target.split(8192)]
    return float(fvu(target, torch.cat(parts)))


if __name__ == "__main__":
    main()
