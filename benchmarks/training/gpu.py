"""What encoding and a training step cost on a CUDA device, of the device's matrix peak and of one encoding.

    python benchmarks/training/gpu.py [--n-latents 65536 --d 2304 --rows 32768 --k 32]

Encoding is `kernels.gpu.top_k` of bfloat16 rows and weights: its useful operations (2 rows latents d) a second, of the peak that
the maker gives for dense bfloat16, and of one `torch.mm` of the same numbers, measured in turns with it. A step is TopK's, made
of the same kernels that the trainer calls: copies of the float32 weights in bfloat16, encoding, decoding, the error, the
gradient of the codes, both matrices' gradients fused with Adam, the biases. No clipping, no latent is dead. Times are medians
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

HERE = Path(__file__).resolve().parent
# TFLOP/s of dense bfloat16, from the makers' data sheets.
PEAKS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "B200": 2250, "L40S": 362, "RTX 4090": 165}


def main() -> None:
    arguments = _arguments()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: not measured")
    from mohole.kernels import gpu

    step = Step(arguments.rows, arguments.n_latents, arguments.d, arguments.k)
    product = torch.empty(arguments.rows, arguments.n_latents, dtype=torch.bfloat16, device="cuda")
    W_enc = step.encoder.weight.bfloat16()
    parts: dict[str, Callable[[], object]] = {
        "torch.mm": partial(torch.mm, step.rows, W_enc.T, out=product),
        "encode": partial(gpu.top_k, step.rows, W_enc, step.b_enc.weight, arguments.k, step.scratch),
        "step": step,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(arguments.rounds + 3):
        for name in times:
            taken = _milliseconds(parts[name])
            if turn >= 3:
                times[name].append(taken)
    parts.clear()
    del product, W_enc
    torch.cuda.reset_peak_memory_stats()
    step()
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
        "peak_memory_times_weights": round(
            torch.cuda.max_memory_allocated() / (8 * arguments.n_latents * arguments.d), 2
        ),
    }
    out = HERE / "results" / f"{datetime.date.today()}-gpu.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    for key in ("device", "ms", "encode_tflops", "encode_of_bf16_peak", "encode_times_torch_mm", "step_times_encode"):
        print(f"{key}: {result[key]}")
    print(out)


class Step:
    """A step of TopK with float32 weights and moments, and bfloat16 in products and gathers."""

    def __init__(self, n_rows: int, n_latents: int, d: int, k: int, device: str = "cuda") -> None:
        from mohole.kernels import gpu
        from mohole.kernels.pairs import Moving

        generator = torch.Generator(device).manual_seed(0)
        self._x = torch.randn(n_rows, d, generator=generator, device=device)
        self.rows = self._x.bfloat16()
        W_dec = torch.randn(n_latents, d, generator=generator, device=device)
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        self.encoder, self.decoder = Moving.still(W_dec.clone()), Moving.still(W_dec)
        self.b_enc = Moving.still(torch.zeros(n_latents, device=device))
        self.b_dec = Moving.still(torch.zeros(d, device=device))
        self.scratch, self._k, self._n_steps, self._gpu = gpu.Scratch(), k, 0, gpu

    def __call__(self) -> float:
        """Returns the loss before the step."""
        from mohole.kernels.pairs import AdamStep, Backward

        gpu, self._n_steps = self._gpu, self._n_steps + 1
        n_rows, d = self._x.shape
        read = (self._x - self.b_dec.weight).bfloat16()
        W_dec = self.decoder.weight.bfloat16()
        pairs = gpu.top_k(read, self.encoder.weight.bfloat16(), self.b_enc.weight, self._k, self.scratch)
        error = gpu.decode(pairs, pairs.values, W_dec, self.b_dec.weight - self._x)
        loss = error.square().mean()
        source = error.mul_(2.0 / (n_rows * d))
        sources, one = source.bfloat16()[None], torch.zeros(len(W_dec), dtype=torch.uint8, device=source.device)
        d_product = gpu.dots(pairs, sources, one, W_dec)
        by_latent = gpu.by_latent(pairs, len(W_dec))
        d_b_enc = by_latent.sums(d_product)
        d_b_dec = gpu.weighted_sum(torch.ones_like(source[:, 0]), source)
        d_b_dec = d_b_dec - gpu.weighted_sum(d_b_enc, self.encoder.weight)
        no_pull = torch.zeros_like(d_b_enc)
        back = Backward(by_latent, d_product, pairs.values, read, sources, one, no_pull, (0, d), True)
        adam = AdamStep(2e-4, self._n_steps)
        gpu.adam(back, self.encoder, self.decoder, adam)
        gpu.move(self.b_enc, d_b_enc, adam)
        gpu.move(self.b_dec, d_b_dec, adam)
        return float(loss)


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
    return parser.parse_args()


if __name__ == "__main__":
    main()
