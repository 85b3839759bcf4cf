"""What encoding and a training step cost on a CUDA device, of the device's matrix peak and of one encoding.

    python benchmarks/training/gpu.py [--n-latents 65536 --d 2304 --rows 32768 --k 32 --tune]

Encoding is `kernels.gpu.top_k` of bfloat16 rows and weights: its useful operations (2 rows latents d) a second, of the peak that
the maker gives for dense bfloat16, and of one `torch.mm` of the same numbers, measured in turns with it. A step is the trainer's
own with `train.products = "bfloat16"`: a copy of the float32 encoder, encoding, and everything else in float32. No clipping, no
latent is dead. The same codes of float32 numbers are measured beside it, with and without `train.screening`. Times are medians
between device events after a warm-up, on random numbers. Without a CUDA device it says so, and fails.
"""

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mohole.config import TopK, Train
from mohole.train.products import multiplied
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

HERE = Path(__file__).resolve().parent
# TFLOP/s of dense bfloat16, from the makers' data sheets.
PEAKS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "B200": 2250, "L40S": 362, "RTX 4090": 165}


def main() -> None:
    arguments = _arguments()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: not measured")
    from mohole.kernels import gpu
    from mohole.kernels.gpu_screen import Screen

    n_rows, n_latents, d, k = arguments.rows, arguments.n_latents, arguments.d, arguments.k
    trainer, rows = trainer_of(n_rows, n_latents, d, k, "cuda", tune=arguments.tune)
    block, screen = trainer.weights.blocks[0], Screen()
    read = rows - trainer.weights.b_dec
    near, W_enc = multiplied(read, block.W_enc.clone(), "bfloat16", gpu)
    exact = read, block.W_enc.clone(), block.b_enc, k
    product = torch.empty(n_rows, n_latents, dtype=torch.bfloat16, device="cuda")
    parts: dict[str, Callable[[], object]] = {
        "torch.mm": partial(torch.mm, near, W_enc.T, out=product),
        "encode": partial(gpu.top_k, near, W_enc, block.b_enc, k, gpu.Scratch()),
        "step": partial(trainer.step, rows, rows),
        "encode float32": partial(gpu.top_k, *exact, gpu.Scratch()),
        "encode float32, screened": partial(screen.top_k, *exact, gpu.Scratch()),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(arguments.rounds + 3):
        for name in times:
            taken = _milliseconds(parts[name])
            if turn >= 3:
                times[name].append(taken)
    parts.clear()
    del product, W_enc, near, exact
    torch.cuda.reset_peak_memory_stats()
    trainer.step(rows, rows)
    medians = {name: statistics.median(each) for name, each in times.items()}
    operations = 2.0 * arguments.rows * arguments.n_latents * arguments.d
    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    rate = operations / medians["encode"] / 1e9
    result = {
        "device": name,
        "torch": torch.__version__,
        "command": "python benchmarks/training/gpu.py " + " ".join(sys.argv[1:]),
        "shape": vars(arguments),
        "ms": {part: round(each, 3) for part, each in medians.items()},
        "ms_all": {part: [round(each, 3) for each in found] for part, found in times.items()},
        "encode_tflops": round(rate, 1),
        "encode_of_bf16_peak": round(rate / peak, 3) if peak else "the peak of this device is not known here",
        "encode_times_torch_mm": round(medians["encode"] / medians["torch.mm"], 3),
        "step_times_encode": round(medians["step"] / medians["encode"], 3),
        "screened_times_float32": round(medians["encode float32, screened"] / medians["encode float32"], 3),
        "rows_again": round(screen.n_again / screen.n_rows, 5),
        "peak_memory_times_weights": round(
            torch.cuda.max_memory_allocated() / (8 * arguments.n_latents * arguments.d), 2
        ),
    }
    out = HERE / "results" / f"{datetime.date.today()}-gpu.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    shown = "device", "ms", "encode_tflops", "encode_of_bf16_peak", "encode_times_torch_mm", "step_times_encode"
    for key in (*shown, "screened_times_float32", "rows_again"):
        print(f"{key}: {result[key]}")
    print(out)


def trainer_of(
    n_rows: int, n_latents: int, d: int, k: int, device: str, *, tune: bool = False
) -> tuple[Trainer, Tensor]:
    """A trainer of TopK with products of bfloat16, and a batch of random rows for it. Nothing is clipped."""
    settings = Train(
        n_latents=n_latents, nonlinearity=TopK(k=k), batch_rows=n_rows, steps=10_000, lr=2e-4, warmup_steps=0,
        clip_norm=None, products="bfloat16", device=device,
    )  # fmt: skip
    sites = Sites(("rows",), (d,))
    rows = torch.randn(n_rows, d, generator=torch.Generator(device).manual_seed(0), device=device)
    trainer = Trainer.start(settings, rows[:8192], rows[:8192], sites, sites, seed=0)
    if tune:
        print(trainer.tune(rows))
    return trainer, rows


def _milliseconds(part: Callable[[], object]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    part()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-latents", type=int, default=65536)
    parser.add_argument("--d", type=int, default=2304)
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tune", action="store_true", help="the trainer's step in the tile that is fastest here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
