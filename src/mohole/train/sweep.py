"""Many dictionaries from one pass over the rows: each by the one training loop, all of them from the same batches.

A member's files are, byte for byte, those of a training of it alone; `mohole.train.turns` says how batches are shared. A killed
sweep goes on from its members' checkpoints. A member that diverges is a line of the table, not the end of the sweep.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.artifact import file_digest, sealed, sync, unsealed
from mohole.config import BatchTopK, TopK, Train
from mohole.config.sweep import check_members
from mohole.dictionary import (
    AnyDictionary,
    Crosscoder,
    CrossLayerTranscoder,
    NormalisedAutoencoder,
    SparseAutoencoder,
    SparseCodes,
    Transcoder,
)
from mohole.dictionary.files import read
from mohole.errors import ArtifactError, NumericsError
from mohole.metrics import Firing, Reconstruction
from mohole.progress import tell, track
from mohole.record import plain, read_record
from mohole.store.stream import RowStream
from mohole.tensors import open_tensors
from mohole.train.checkpoint import FOLDER as CHECKPOINTS
from mohole.train.cost import Limit, check_memory_together, forecast
from mohole.train.frontier import write_frontier
from mohole.train.in_model import InModel
from mohole.train.loop import RECORD_FILE, SAMPLE_ROWS, STATISTICS_FILE, train
from mohole.train.source import Source
from mohole.train.table import TABLE_FILE, Entry, MeasuredOn, SweepTable
from mohole.train.turns import Streams, in_turns
from mohole.train.weights import layers_of

RESULT_FILE = "result.json"
PAGE_FILE = "frontier.html"
MEASURED_ROWS = 32_768
_LAST_STEPS = 50
FLOPS_ARE = (
    "2 * rows * (n_latents * d_in + l0 * (d_in + 3 * d_out)), summed over layers: the encoder's product, and for each active "
    "latent its decoding and three gradients. AuxK, prefixes and the optimiser are left out"
)


@dataclass(frozen=True)
class Measured:
    """A dictionary on rows."""

    fvu: float
    l0: float
    silent_share: float


def sweep(
    out: Path,
    streams: RowStream | Mapping[str, RowStream],
    members: Mapping[str, Train],
    *,
    seed: int,
    in_model: InModel | None = None,
    model: str | None = None,
) -> SweepTable:
    """Train every member from one pass over the rows; write `out/<name>/` for each, `out/table.json` and `out/frontier.html`.

    `out/<name>` has what `train` writes, and `result.json`, its line of the table. fvu, l0 and silent_share are of the first rows
    that no member has read (`MEASURED_ROWS` at most); where training leaves fewer than a batch of those, of the last 50 steps of
    its record. `measured_on` says which. What a killed sweep left in `out` is gone on with: the result is the same bytes.

    Args:
        in_model: as `train`; all members ask the same one, in turns.
        model: as `train`.

    Raises:
        ConfigError: members that do not read the same batches, that do not fit the memory together, or a device of theirs that
            cannot be used.
        NumericsError: a row that is not finite, or every member has failed.
        HookpointError, StageError: as `train`.
        ArtifactError: as `train`; or a member that was finished before is damaged.
    """
    check_members(members)
    shared = next(iter(members.values()))
    held = streams if isinstance(streams, Mapping) else {streams.hookpoint: streams}
    source = Source.of(shared.learns, held)
    measured_on = _measured_on(shared, source.n_rows)
    done = {name: _read_result(out / name) for name in members if (out / name / RESULT_FILE).exists()}
    left = {name: settings for name, settings in members.items() if name not in done}
    check_memory_together(left, *source.sites())
    costs: dict[str, str] = {}
    works = [
        partial(_learn, out / name, settings, measured_on, seed, in_model, model, costs)
        for name, settings in left.items()
    ]
    n_rows = shared.steps * shared.batch_rows
    if repeats := source.repeats(n_rows):
        tell(repeats)
    if left:
        limit = Limit.measured(next(iter(left.values())), source.sites()[0])
        if takes := forecast(source.name, [(each, each.steps) for each in left.values()], *source.sites(), limit):
            tell(takes)
    with track(f"sweep of {len(members)}, {source.name}", n_rows, "rows") as tracker:
        in_turns(held, works, tracker)
    for name in members:
        if name in costs:  # waiting is for the others' turns, too
            tell(f"{name}: {costs[name]}")
    entries = tuple(done.get(name) or _read_result(out / name) for name in members)
    if all(entry.failure for entry in entries):
        raise NumericsError(f"every member of the sweep has failed; {entries[0].name}: {entries[0].failure}")
    reads, writes = source.sites()
    table = SweepTable(
        place=source.name,
        learns=shared.learns.kind,
        d_in=reads.width,
        d_out=writes.width,
        pass_rows=source.n_rows,
        measured_on=measured_on,
        flops_are=FLOPS_ARE,
        members=entries,
    )
    table.save(out / TABLE_FILE)
    write_frontier(out / PAGE_FILE, table)
    return table


def _measured_on(settings: Train, n_rows: int) -> MeasuredOn:
    """The first rows that nothing was learned from: neither by a step, nor from the sample before the first one."""
    n_trained = settings.steps * settings.batch_rows
    first = max(n_trained, min(SAMPLE_ROWS, n_rows))
    if n_rows - first >= settings.batch_rows:
        return MeasuredOn(rows="unseen", first=first, n_rows=min(n_rows - first, MEASURED_ROWS))
    n_last = min(settings.steps, _LAST_STEPS) * settings.batch_rows
    return MeasuredOn(rows="trained", first=n_trained - n_last, n_rows=n_last)


def _learn(
    out: Path,
    settings: Train,
    measured_on: MeasuredOn,
    seed: int,
    in_model: InModel | None,
    model: str | None,
    costs: dict[str, str],
    streams: Streams,
) -> None:
    """One member, from where it stands to its line of the table; `costs` gets what it cost."""
    out.mkdir(exist_ok=True)
    source = Source.of(settings.learns, streams)
    try:
        costs[out.name] = train(out, streams, settings, seed=seed, in_model=in_model, model=model)
    except NumericsError as error:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        entry = _entry(out.name, settings, failure=str(error))
    else:
        entry = _finished(out, settings, source, measured_on)
    _write_result(out, entry)


def _write_result(out: Path, entry: Entry) -> None:
    """The member is finished from here on: its entry of the table, and what its other files are."""
    draft = out / "result.draft"
    draft.unlink(missing_ok=True)
    files = sorted(file for file in out.rglob("*") if file.is_file())
    for file in files:
        sync(file)
    digests = {str(file.relative_to(out)): file_digest(file) for file in files}
    draft.write_bytes(sealed(plain(asdict(entry)) | {"files": digests}))
    sync(draft)
    draft.rename(out / RESULT_FILE)


def _read_result(out: Path) -> Entry:
    """The entry of a finished member, whose files are as they were when it was finished.

    Raises:
        ArtifactError: one of them is damaged or missing, and which.
    """
    again = f"delete {out} to train this member again"
    raw = unsealed((out / RESULT_FILE).read_bytes())
    if raw is None or raw.keys() != {"files", *(field.name for field in fields(Entry))}:
        raise ArtifactError(f"{out / RESULT_FILE}: damaged, or of another version; {again}")
    for name, digest in raw.pop("files").items():
        if not (out / name).is_file() or file_digest(out / name) != digest:
            raise ArtifactError(f"{out / name}: missing, or not as it was written; {again}")
    return Entry(**raw)


def _finished(out: Path, settings: Train, source: Source, measured_on: MeasuredOn) -> Entry:
    record = read_record(out / RECORD_FILE)
    layers = layers_of(settings.learns, *source.sites())
    if measured_on.rows == "unseen":
        found = measure(read(out), source, measured_on, settings.batch_rows)
    else:
        found = _as_recorded(out, record, settings)
    return _entry(
        out.name,
        settings,
        fvu=_short(found.fvu),
        l0=_short(found.l0),
        silent_share=_short(found.silent_share),
        dead_share=_short(record[-1]["dead"] / (settings.n_latents * len(layers))),
        flops=_short(_flops(settings, layers, sum(line["l0"] for line in record) / len(record))),
    )


def _entry(name: str, settings: Train, **found: Any) -> Entry:
    nonlinearity, penalty = settings.nonlinearity, settings.penalty()
    missing = dict.fromkeys(("fvu", "l0", "dead_share", "silent_share", "flops"))
    facts: dict[str, Any] = missing | found
    return Entry(
        name=name,
        nonlinearity=nonlinearity.kind,
        n_latents=settings.n_latents,
        k=nonlinearity.k if isinstance(nonlinearity, TopK | BatchTopK) else None,
        penalty=penalty.kind if penalty else None,
        sparsity_weight=penalty.weight if penalty else None,
        lr=settings.rate(),
        steps=settings.steps,
        rows=settings.steps * settings.batch_rows,
        **facts,
    )


def measure(dictionary: AnyDictionary, source: Source, where: MeasuredOn, batch_rows: int) -> Measured:
    """FVU, L0 and silent latents of a dictionary on a stretch of the stream, which is read `batch_rows` at a time, or a thousand
    where those are fewer."""
    sums, firing = Reconstruction(), Firing(dictionary.n_latents)
    end, n_rows = where.first + where.n_rows, max(batch_rows, 1024)
    for first in range(where.first, end, n_rows):
        rows, targets = source.rows(first, min(n_rows, end - first))
        codes, output = _rebuilt(dictionary, rows)
        sums.add(targets, output, np.zeros(len(rows), dtype=np.int64), place=source.name)
        n_own = dictionary.n_latents // len(codes)
        latents = torch.cat([own.latents.long() + number * n_own for number, own in enumerate(codes)])
        firing.add(latents, torch.cat([own.values for own in codes]), len(rows))
    fvu = float(sums.fvu(np.ones((1, 1)))[0])
    return Measured(fvu, firing.l0, firing.n_dead / dictionary.n_latents)


def _rebuilt(
    dictionary: AnyDictionary, rows: Float[Tensor, "row d_in"]
) -> tuple[Sequence[SparseCodes], Float[Tensor, "row d_out"]]:
    """Codes of each layer, and what they say the targets are, the hookpoints side by side."""
    match dictionary:
        case SparseAutoencoder() | Crosscoder():
            codes = dictionary.encode(rows)
            return [codes], dictionary.decode(codes)
        case NormalisedAutoencoder():
            codes = dictionary.encode(rows)
            return [codes], dictionary.decode(codes, dictionary.units_of(rows))
        case Transcoder():
            codes = dictionary.encode(rows)
            return [codes], dictionary.decode(codes, rows)
        case CrossLayerTranscoder():
            layers = dictionary.encode(rows.view(len(rows), len(dictionary.layers), -1).transpose(0, 1))
            return layers, dictionary.decode(layers).transpose(0, 1).reshape(len(rows), -1)
        case _:
            assert_never(dictionary)


def _as_recorded(out: Path, record: Sequence[Mapping[str, Any]], settings: Train) -> Measured:
    """The mean over what was recorded of the last steps; silent latents as the training's statistics have them."""
    last = [line for line in record if line["step"] > settings.steps - _LAST_STEPS and line["fvu"] is not None]
    density = open_tensors(out / STATISTICS_FILE)["density"]
    fvu = sum(line["fvu"] for line in last) / len(last) if last else float("nan")
    l0 = sum(line["l0"] for line in record[-len(last) :]) / len(record[-len(last) :])
    return Measured(fvu, l0, float((density == 0).mean()))


def _flops(settings: Train, layers: Sequence[tuple[slice, slice]], l0: float) -> float:
    own_l0 = l0 / len(layers)
    widths = [(read.stop - read.start, written.stop - written.start) for read, written in layers]
    row: float = sum(2.0 * (settings.n_latents * d_in + own_l0 * (d_in + 3 * d_out)) for d_in, d_out in widths)
    return row * settings.steps * settings.batch_rows


def _short(value: float) -> float:
    """Six digits: what differs beyond them is rounding."""
    return float(f"{value:.6g}")
