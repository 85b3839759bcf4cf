"""What a training step costs, of one float32 product of rows and encoder, beside other libraries. Unit: GE.

    python benchmarks/training/run.py
    python benchmarks/training/run.py --peers FOLDER --peers-python PYTHON

GE = CPU-seconds of a step / CPU-seconds of one product rows x d x latents, measured before every step of ours in the same
process, and before and after every peer's (median of five, the mean of both): its harness reports its limit by the clock.
d 512, 2048 rows, k 32, float32 weights and moments, Gaussian rows; one thread and passive waiting for all alike. Cases and
libraries take turns, each in a process of its own, `--rounds` times; reported is the median of the rounds' medians. FOLDER holds
one.py and peers.py of the peers' own harness, PYTHON is an environment with the libraries; without them: "not measured".
ReLU and JumpReLU start at 60 active latents in ours (`initial_l0`), as they are trained; the peers at their own, dense start.
`dense start`: half of the latents are active in ours, too, in every measured step.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import machine  # noqa: E402

OURS = [
    ("topk", 8192, ["--kernels", "cpu"]),
    ("topk", 8192, ["--kernels", "cpu", "--no-clip"]),
    ("topk", 8192, ["--kernels", "plain"]),
    ("topk", 16384, ["--kernels", "cpu"]),
    ("topk", 16384, ["--kernels", "plain"]),
    ("topk", 32768, ["--kernels", "cpu"]),
    ("topk", 32768, ["--kernels", "cpu", "--no-clip"]),
    ("topk", 8192, ["--kernels", "cpu", "--screening"]),
    ("topk", 16384, ["--kernels", "cpu", "--screening"]),
    ("topk", 32768, ["--kernels", "cpu", "--screening"]),
    ("topk", 32768, ["--kernels", "plain"]),
    ("relu", 8192, ["--kernels", "cpu"]),
    ("relu", 32768, ["--kernels", "cpu"]),
    ("jumprelu", 8192, ["--kernels", "cpu"]),
    ("jumprelu", 32768, ["--kernels", "cpu"]),
    ("relu", 8192, ["--kernels", "cpu", "--dense-start"]),
    ("relu", 32768, ["--kernels", "cpu", "--dense-start"]),
    ("jumprelu", 8192, ["--kernels", "cpu", "--dense-start"]),
    ("jumprelu", 8192, ["--kernels", "cpu", "--no-clip"]),
    ("relu", 8192, ["--kernels", "cpu", "--screening"]),
    ("relu", 32768, ["--kernels", "cpu", "--screening"]),
    ("jumprelu", 8192, ["--kernels", "cpu", "--screening"]),
    ("jumprelu", 32768, ["--kernels", "cpu", "--screening"]),
]
PEERS = [
    ("topk", 8192, "sparsify"),
    ("topk", 8192, "sae_lens_coo"),
    ("topk", 8192, "sae_lens"),
    ("topk", 16384, "sparsify"),
    ("topk", 16384, "sae_lens"),
    ("topk", 32768, "sparsify"),
    ("topk", 32768, "sae_lens"),
    ("jumprelu", 8192, "sae_lens"),
    ("relu_l1", 8192, "sae_lens"),
]


def main() -> None:
    arguments = _arguments()
    found: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    for turn in range(arguments.rounds):
        for arch, n_latents, options in OURS:
            row = _run(
                [sys.executable, str(HERE / "one.py"), "--nonlinearity", arch, "--n-latents", str(n_latents), *options]
            )
            found.setdefault(f"{arch}, {n_latents}: {row['peer']}", []).append(row)
            print(f"{row['ge']:6.2f} GE  {arch}, {n_latents}: {row['peer']}", file=sys.stderr)
        for arch, n_latents, peer in PEERS if arguments.peers else []:
            script = Path(arguments.peers) / "one.py"
            options = ["--peer", peer, "--arch", arch, "--d-sae", str(n_latents), "--threads", "1"]
            before = _product(n_latents)
            try:
                row = _run([arguments.peers_python, str(script), *options])
            except RuntimeError as error:  # of another library, in its own process: what is measured is not lost for it
                failed[f"{arch}, {n_latents}: {peer}"] = str(error).splitlines()[-1]
                print(f"{peer}: {error}", file=sys.stderr)
                continue
            product = (before + _product(n_latents)) / 2
            row |= {
                "ge": row["cpu_s_med"] / product,
                "peak_times_weights": row["peak_mib_over_base"] / (n_latents / 256),
            }
            found.setdefault(f"{arch}, {n_latents}: {peer}", []).append(row)
        print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr)
    result = {
        "machine": f"{machine.machine()}, 1 thread, OMP_WAIT_POLICY=PASSIVE",
        "command": f"python benchmarks/training/run.py --rounds {arguments.rounds}"
        + (" --peers FOLDER --peers-python PYTHON" if arguments.peers else ""),
        "load1": round(os.getloadavg()[0], 1),
        "ge": {name: round(statistics.median(row["ge"] for row in rows), 2) for name, rows in found.items()},
        "peak_times_weights": {
            name: round(statistics.median(row["peak_times_weights"] for row in rows), 1) for name, rows in found.items()
        },
        "peers": "measured" if arguments.peers else "not measured",
        "failed": failed,
        "rounds": found,
    }
    out = HERE / "results" / f"{datetime.date.today()}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    for name, ge in result["ge"].items():
        print(f"{ge:6.2f} GE  {result['peak_times_weights'][name]:5.1f} x weights  {name}")
    print(out)


def _product(n_latents: int) -> float:
    """CPU-seconds of one product, in a process of its own."""
    code = (
        "import time, statistics, torch; torch.set_num_threads(1)\n"
        f"a, b, out = torch.randn(2048, 512), torch.randn({n_latents}, 512), torch.empty(2048, {n_latents})\n"
        "times = []\n"
        "for _ in range(6):\n"
        "    start = time.process_time(); torch.mm(a, b.T, out=out); times.append(time.process_time() - start)\n"
        "print('RESULT {\"product\": %r}' % statistics.median(times[1:]))"
    )
    product: float = _run([sys.executable, "-c", code])["product"]
    return product


def _run(command: list[str]) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    row: dict[str, Any] = json.loads(lines[-1][7:]) if lines else {}
    if not lines or "error" in row:
        raise RuntimeError(f"{' '.join(command)}: {row.get('error', done.stderr[-2000:])}")
    return row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="folder of the peers' harness")
    parser.add_argument("--peers-python", default=sys.executable)
    return parser.parse_args()


if __name__ == "__main__":
    main()
