"""One of our own runs, in a process of its own, so that its memory and processor time are its own. Prints one JSON line.

    python shuffles.py '{"kind": "random", "executor": "process", "source": STORE, "out": FOLDER, "memory": "432MiB"}'

kind: `random`  another order of a store in the order of the text: new keys, then a merge. Everything moves four times.
      `merge`   the order of a harvested store: a merge of its runs. Everything moves twice.
      `loader`  a harvested store read by a training, which does the merge in its memory. Everything moves once.
"""

import json
import sys
import time
from pathlib import Path

from stores import HOOKPOINT

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import n_bytes
from mohole.execute import Cores, Task, open_executor
from mohole.job.rows import source_of
from mohole.storage import open_storage
from mohole.store import Order, Store
from mohole.store.commits import read_commit
from mohole.store.listing import BULK, TASKS, Layout, write_documents, write_facts, write_layout
from mohole.store.plan import Limits, Pass, ShufflePlan, plan_shuffle
from mohole.store.shuffle import shuffle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import footprint

PROCESSES = 3
"""One more than cores: while two compute, one waits for the disk. 5 to 10 % faster than two, measured in turns."""
_BATCH_ROWS = 4096


def main() -> None:
    job = json.loads(sys.argv[1])
    store = Store.open(job["source"])
    made = _load(store, job) if job["kind"] == "loader" else _shuffle(store, job)
    print(json.dumps(made))


def _shuffle(store: Store, job: dict[str, str]) -> dict[str, object]:
    order = Order.random(store.documents, seed=store.manifest.inputs.seed) if job["kind"] == "random" else None
    processes = 1 if job["executor"] == "inline" else PROCESSES
    limits = Limits(n_bytes(job["memory"]) // processes)
    begin = time.perf_counter()
    with open_executor(job["executor"], Cores(processes, 1)) as executor:  # type: ignore[arg-type]
        executor.run([Task(f"warm {number}", warm) for number in range(processes)])
        start, cpu = time.perf_counter(), footprint.cpu_seconds()
        with artifact.create(job["out"], Inputs(kind="shuffled", config={}, seed=0), bulk=BULK) as draft:
            out = open_storage(draft)
            facts, layout = shuffle(source_of(store), out, executor, limits, order=order)
            spent, used = time.perf_counter() - start, footprint.cpu_seconds() - cpu
            write_documents(draft, store.documents)
            write_facts(out, facts)
            write_layout(out, layout)
    return {
        "seconds": spent,
        "cpu_seconds": used,
        "start_seconds": start - begin,
        "passes": {level: _compared(level, store, job["out"], layout, limits) for level in _levels(job["out"])},
    }


def _levels(out: str) -> list[str]:
    return sorted(path.name for path in (Path(out) / TASKS).iterdir() if path.is_dir())


def _compared(level: str, store: Store, out: str, layout: Layout, limits: Limits) -> dict[str, dict[str, int]]:
    """A pass as it was planned, and as its tasks' commits say that it was."""
    storage = open_storage(out)
    names = [
        name.removeprefix(f"{TASKS}/{level}/").removesuffix(".json") for name in storage.names(f"{TASKS}/{level}/")
    ]
    found = [read_commit(storage, level, name).traffic for name in names]
    row_bytes = store.facts.formats[HOOKPOINT].row_bytes
    if level == "keyed":  # each task reads one run whole, and writes one
        run_bytes = store.n_rows * row_bytes // len(names)
        plan = ShufflePlan(store.n_rows, row_bytes, (Pass(1, len(names), 1, run_bytes, run_bytes),), limits)
    else:
        keyed = len(storage.names(f"{TASKS}/keyed/"))
        plan = plan_shuffle(store.n_rows, row_bytes, keyed or len(store.layout.shards[HOOKPOINT]), limits)
    fields = ("bytes_read", "bytes_written", "n_reads", "n_writes")
    return {
        "planned": {field: sum(getattr(step, field) for step in plan.traffic()) for field in fields},
        "measured": {field: sum(getattr(traffic, field) for traffic in found) for field in fields},
    }


def _load(store: Store, job: dict[str, str]) -> dict[str, object]:
    from mohole.store.stream import Stream  # torch, which a shuffle does without

    stream = Stream(store, HOOKPOINT, memory_bytes=n_bytes(job["memory"]))
    start, cpu = time.perf_counter(), footprint.cpu_seconds()
    for step in range(stream.n_rows // _BATCH_ROWS):
        stream.batch(step, _BATCH_ROWS)
    spent, used = time.perf_counter() - start, footprint.cpu_seconds() - cpu
    return {"seconds": spent, "cpu_seconds": used, "rows": stream.n_rows // _BATCH_ROWS * _BATCH_ROWS}


def warm() -> None:
    """In a worker: load what a merge needs, and stay busy until the other worker has started too."""
    import mohole.store.merge_task  # noqa: F401

    time.sleep(0.5)


if __name__ == "__main__":
    main()
