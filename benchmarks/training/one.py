"""One case of mohole's training step in this process: CPU-seconds of a step over CPU-seconds of one product, and memory.

    python one.py --nonlinearity topk --n-latents 32768 --kernels cpu [--screening]

A whole step of the trainer on rows in memory: units, encoding, loss, gradients, clipping, Adam, dead counters. No latent is dead
so early, so AuxK is idle, as it is in the peers' steps; statistics of latents are of the last tenth of a training and not in it.
Prints `RESULT {json}`. One GE is one float32 product rows x d x latents into warm memory, in CPU-seconds before every step.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mohole.train.trainer import Stepped, Trainer

D, K = 512, 32


def main() -> None:
    arguments = _arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    from mohole.config import L1, JumpReLU, ReLU, TopK, Train
    from mohole.kernels import dense, moments, plain
    from mohole.train import objective, optimiser, start
    from mohole.train.trainer import Trainer
    from mohole.train.weights import Sites

    torch.set_num_threads(arguments.threads)
    if arguments.kernels == "plain":
        for module in (objective, optimiser, start):
            assert hasattr(module, "kernels_for")
            module.kernels_for = lambda device: plain
        dense.HAS_NUMBA = moments.HAS_NUMBA = False
    nonlinearity = {"topk": TopK(k=K), "relu": ReLU(), "jumprelu": JumpReLU()}[arguments.nonlinearity]
    # A weight at which L0 stays about where it starts, at 60, for the few steps that are measured.
    sparsity = L1(weight=1.0) if arguments.nonlinearity == "relu" else None
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(arguments.rows, D, generator=generator) for _ in range(8)]

    def first_l0(n_latents: int) -> float | None:
        if arguments.dense_start:
            return n_latents / 2
        return None if arguments.nonlinearity == "topk" else 60.0

    def trainer(n_latents: int) -> Trainer:
        settings = Train(
            n_latents=n_latents, nonlinearity=nonlinearity, sparsity=sparsity, lr=2e-4, warmup_steps=0, steps=10_000,
            batch_rows=arguments.rows, initial_l0=first_l0(n_latents),
            clip_norm=None if arguments.no_clip else 1.0, screening=arguments.screening,
        )  # fmt: skip
        sites = Sites(("rows",), (D,))
        return Trainer.start(settings, batches[0], batches[0], sites, sites, seed=0)

    warm = trainer(512)  # compiled loops are loaded, torch's first products made
    for _ in range(2):
        warm.step(batches[0], batches[0])
    base = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    own = trainer(arguments.n_latents)
    started_at = _status("VmHWM") - base
    Path("/proc/self/clear_refs").write_text("5")
    for i in range(2):
        own.step(batches[i], batches[i])
    peak = _status("VmHWM") - base
    product = torch.empty(arguments.rows, arguments.n_latents)
    torch.mm(batches[0], own.weights.blocks[0].W_enc.T, out=product)
    ratios, products, l0 = [], [], 0.0
    for i in range(arguments.steps):
        rows = batches[i % 8]
        before = _cpu()
        torch.mm(rows, own.weights.blocks[0].W_enc.T, out=product)
        middle = _cpu()
        stepped = own.step(rows, rows)
        ratios.append((_cpu() - middle) / (middle - before))
        products.append(middle - before)
        l0 = sum(active.n_active for active in stepped.active) / arguments.rows
    extra = {name: cpu / statistics.median(products) for name, cpu in _bookkeeping(own, stepped, rows).items()}
    weights_mib = 2 * D * arguments.n_latents * 4 / 2**20
    result = {
        "peer": " ".join(
            [
                "mohole",
                arguments.kernels,
                *(["no clipping"] if arguments.no_clip else []),
                *(["dense start"] if arguments.dense_start else []),
                *(["screening"] if arguments.screening else []),
            ]
        ),
        "arch": arguments.nonlinearity,
        "n_latents": arguments.n_latents,
        "ge": statistics.median(ratios),
        "ge_all": [round(each, 3) for each in ratios],
        "bookkeeping_ge": {name: round(ge, 4) for name, ge in extra.items()},
        "product_cpu_s": statistics.median(products),
        "peak_times_weights": round(peak / weights_mib, 2),
        "peak_at_start_times_weights": round(started_at / weights_mib, 2),
        "l0": l0,
        "rows_again": own.doubts().removeprefix(", "),
        "threads": arguments.threads,
    }
    print("RESULT " + json.dumps(result), flush=True)


def _bookkeeping(own: "Trainer", stepped: "Stepped", rows: "Tensor") -> dict[str, float]:
    """CPU-seconds of what a step does beside learning: the median of five each, on the codes of the last step.

    Counters are kept in every step, statistics (density, mean, maximum) in the last tenth; a record (norms, FVU, L0) is written
    every `log_every` steps, and given the share. What clipping costs is the difference to a case without.
    """
    from mohole.train.silence import fired

    (active,), (silence,), log_every = stepped.active, own.silence, own.settings.log_every

    def counters() -> None:
        silence.update(fired(active, own.settings.n_latents), len(rows))
        silence.dead()

    def density() -> None:
        own.statistics.add([active.totals(own.settings.n_latents)], len(rows))

    def median(work: Callable[[], object]) -> float:
        taken = []
        for _ in range(5):
            before = _cpu()
            work()
            taken.append(_cpu() - before)
        return statistics.median(taken)

    return {
        "dead counters": median(counters),
        "statistics, last tenth": median(density),
        f"record, one step in {log_every}": median(lambda: own.measure(stepped, rows)) / log_every,
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(field: str) -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nonlinearity", choices=["topk", "relu", "jumprelu"], default="topk")
    parser.add_argument("--n-latents", type=int, default=8192)
    parser.add_argument("--kernels", choices=["cpu", "plain"], default="cpu")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-clip", action="store_true")
    parser.add_argument("--dense-start", action="store_true", help="half of the latents are active, not 60")
    parser.add_argument("--screening", action="store_true", help="certified screening of codes")
    return parser.parse_args()


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
