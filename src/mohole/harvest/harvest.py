"""Run the model over every window of a corpus, slice by slice, and keep its activations as a store of sorted runs.

Slices are cut by the corpus and the recipe alone, so the same rows come out whoever harvests them, however often a worker dies.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mohole import config
from mohole.corpus import Corpus
from mohole.corpus.elsewhere import put_corpus
from mohole.corpus.slices import slices
from mohole.execute import Executor, Task
from mohole.harvest.slice import RUNS, SliceTask, activations, documents_of, run_slice
from mohole.model import LanguageModel
from mohole.progress import track
from mohole.record import read_json, write_json
from mohole.storage import Storage, open_storage
from mohole.store.columns import RowFormat, calibrated_scales
from mohole.store.commits import run_missing
from mohole.store.listing import Layout, StoreFacts, write_documents, write_facts, write_layout
from mohole.store.order import Order
from mohole.store.plan import CELL_BYTES

_CALIBRATION_TOKENS = 16_384
_SCALES_FILE = "scales.json"


def harvest(
    out: Path,
    model: LanguageModel,
    corpus: Corpus,
    settings: config.Harvest,
    executor: Executor,
    *,
    model_settings: config.Model,
    seed: int,
    epoch: int = 0,
    cell_bytes: int = CELL_BYTES,
) -> None:
    """Write the activations of `model` at `settings.hookpoints` over `corpus` into `out`; go on where `out` has some already.

    Args:
        model_settings: how a worker loads the same model.
        epoch: which shuffled order the rows are sorted by.

    Raises:
        HookpointError: the model has no such hookpoint.
        NumericsError: an activation is NaN or infinite; names the hookpoint, the document and the token.
    """
    hookpoints = [model.canonical(hookpoint) for hookpoint in settings.hookpoints]
    documents = documents_of(corpus)
    order = Order.random(documents, seed=seed, epoch=epoch)
    place = open_storage(settings.place or out)
    place.sweep()
    formats = _formats(out, model, corpus, hookpoints, settings)
    tasks = _tasks(corpus, place, model_settings, settings, formats, order, cell_bytes)
    write_documents(out, documents)
    with track("harvest", corpus.n_tokens, "tokens") as tracker:
        calls = [Task(task.name, run_slice, (task,), n_gpus=int(model_settings.device == "cuda")) for task in tasks]
        commits = run_missing(executor, place, RUNS, calls, tracker, [task.n_tokens for task in tasks])
    shards = {hookpoint: tuple(done.shards[hookpoint] for done in commits.values()) for hookpoint in hookpoints}
    layout = Layout(shards, None if settings.place is None else place.url)
    facts = StoreFacts(
        order=order,
        formats=formats,
        fingerprints={hookpoint: layout.fingerprint(hookpoint) for hookpoint in hookpoints},
        n_training=sum(done.n_training for done in commits.values()),
        n_clipped={hookpoint: sum(shard.n_clipped for shard in part) for hookpoint, part in shards.items()},
        source={"corpus": corpus.manifest.digest, "model": model.model_hash},
    )
    here = open_storage(out)
    write_facts(here, facts)
    write_layout(here, layout)
    (out / _SCALES_FILE).unlink(missing_ok=True)
    place.sweep()


def _tasks(
    corpus: Corpus,
    place: Storage,
    model_settings: config.Model,
    settings: config.Harvest,
    formats: dict[str, RowFormat],
    order: Order,
    cell_bytes: int,
) -> list[SliceTask]:
    """One for each slice of the corpus."""
    corpus_at = _corpus_place(corpus, place)
    ends = np.concatenate([corpus.windows.start, [corpus.n_tokens]])
    cuts = [(first, last, int(ends[last] - ends[first])) for first, last in slices(corpus, settings.shard_tokens)]
    return [
        SliceTask(
            name=f"{number:06}",
            corpus=corpus_at,
            corpus_digest=corpus.manifest.digest,
            model=model_settings,
            first=first,
            last=last,
            n_tokens=n_tokens,
            most_tokens=max(cut[2] for cut in cuts),
            formats=tuple(formats.items()),
            order=order,
            batch_tokens=settings.batch_tokens,
            cell_bytes=cell_bytes,
            out=place.url,
        )
        for number, (first, last, n_tokens) in enumerate(cuts)
    ]


def _corpus_place(corpus: Corpus, place: Storage) -> str:
    """Where a worker finds the corpus: in its folder; beside rows that go to a URL, where every machine can read it."""
    if place.local is not None:
        return str(corpus.path.resolve())
    beside = place.folder("corpus")
    put_corpus(corpus.path, beside)
    return beside.url


def _formats(
    out: Path, model: LanguageModel, corpus: Corpus, hookpoints: Sequence[str], settings: config.Harvest
) -> dict[str, RowFormat]:
    """How each hookpoint's rows are stored. int8 looks at the first windows; what it found is kept for a second attempt."""
    if settings.dtype != "int8":
        return {hookpoint: RowFormat(settings.dtype, model.width(hookpoint)) for hookpoint in hookpoints}
    file = out / _SCALES_FILE
    if not file.is_file():
        n_windows = int(np.searchsorted(corpus.windows.start, _CALIBRATION_TOKENS)) or 1
        seen: dict[str, list[np.ndarray]] = {hookpoint: [] for hookpoint in hookpoints}
        for hookpoint, _, values in activations(model, corpus, np.arange(n_windows), hookpoints, settings.batch_tokens):
            seen[hookpoint].append(values.numpy())
        write_json(file, {name: calibrated_scales(np.concatenate(parts)) for name, parts in seen.items()})
    scales = read_json(file, *hookpoints)
    return {name: RowFormat("int8", model.width(name), tuple(scales[name])) for name in hookpoints}
