"""Training one dictionary from its first row to its last: the loop, its record, its checkpoints, and the dictionary it leaves."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mohole.config import Train
from mohole.device import training_device
from mohole.dictionary import SparseAutoencoder
from mohole.dictionary.files import save
from mohole.errors import ArtifactError, ConfigError, NumericsError
from mohole.kernels.choice import why_not_screened
from mohole.progress import tell, track
from mohole.record import Recorder, Seal, cut_back, read_record, write_json
from mohole.sinks import Sink
from mohole.store.stream import RowStream
from mohole.tensors import write_tensors
from mohole.train.checkpoint import Checkpoints
from mohole.train.cost import Limit, Watch, check_memory, forecast
from mohole.train.in_model import IN_MODEL_FILE, InModel
from mohole.train.source import Source
from mohole.train.stopping import AfterThisStep
from mohole.train.trainer import Stepped, Trainer
from mohole.train.weights import Sites
from mohole.train.worse import WorseThanTheMean

SAMPLE_ROWS = 8192
"""The first rows of the stream, from which the centre, the scale and the encoder's first magnitude are estimated."""
RECORD_FILE = "record.jsonl"
STATISTICS_FILE = "statistics.safetensors"
_CHECKPOINT_SECONDS = 600.0


def train(
    out: Path,
    streams: RowStream | Mapping[str, RowStream],
    settings: Train,
    *,
    seed: int,
    sinks: Sequence[Sink] = (),
    in_model: InModel | None = None,
    model: str | None = None,
) -> str:
    """Train a dictionary on the rows of `streams` (one, or one for each hookpoint), and write it into `out`.

    `record.jsonl` gets a line every `log_every` steps and at the last: step (counted from 1), rows seen, epoch (passes over the
    rows that are whole), and what `Trainer.measure` finds: the loss and each of its terms, fvu (of several hookpoints also
    of each), l0, dead latents, lr, the norm of the gradient before clipping, mean lengths of encoder and decoder rows. Every
    `evaluate_every` steps, at the next line, and at the last one it has what `in_model` finds of the dictionary after the step.
    No times: the same store, settings and seed give the same bytes. `statistics.safetensors` has each latent's density, mean and
    maximum over the last tenth of the steps.

    Args:
        sinks: take each line of the record too.
        in_model: asked what the model loses with the dictionary so far; `in_model.json` keeps its stamp. Autoencoders only.
        model: the name of the language model whose rows these are, which is kept with the dictionary. None: it is of none.

    What a killed training left in `out` is gone on with: the result is the same bytes. One that is interrupted (Ctrl-C, SIGTERM)
    ends the step that it is at and leaves a checkpoint of it, so nothing is lost; a second interrupt stops it at once.

    A training that stays worse than the mean after its warm-up is stopped: at 20 lines of the record in a row with fvu above 1,
    or at two and more over 200 steps. One whose last line is the first of those, or too few of them, ends with a warning. On
    standard error it says before the first step how often the rows are read, if any is read twice.

    Returns:
        Where it ended and what it cost, in a line for people.

    Raises:
        ConfigError: more latents than the memory holds, or a device that cannot be used.
        HookpointError: the store has no such hookpoint.
        StageError: the store is not shuffled, has fewer than two training rows, or a hookpoint is missing.
        NumericsError: a row, the loss or a gradient that is not finite, rows that are all the same, or a training that stays
            worse than the mean.
        ArtifactError: checkpoints of another training or another version of mohole, none that is whole, or a record whose lines
            are not those that were written before the checkpoint.
    """
    device = training_device(settings.device)
    if settings.screening and (missing := why_not_screened(device)) is not None:
        raise ConfigError(f"train.screening: needs {missing}, which is not here; leave it off")
    source = Source.of(settings.learns, streams, device)
    reads, writes = source.sites()
    check_memory(settings, reads, writes)
    trainer = _start(source, settings, seed)
    checkpoints = Checkpoints(out)
    try:
        worse = WorseThanTheMean(source.name, settings)
        seal = _go_on(trainer, checkpoints, out, worse)
        limit = Limit.measured(settings, reads)
        watch = Watch(settings, reads, writes, limit)
        if takes := forecast(source.name, [(settings, settings.steps - trainer.n_steps)], reads, writes, limit):
            tell(takes)
        if in_model is not None and settings.evaluate_every:
            write_json(out / IN_MODEL_FILE, in_model.stamp())
        _steps(trainer, source, checkpoints, out, watch, sinks, seal, worse, in_model)
    finally:
        checkpoints.close()
    _write(out, trainer, source.n_rows, model)
    checkpoints.clear()
    return f"{_end(out / RECORD_FILE)}{watch.summary()}{trainer.doubts()}"


def _start(source: Source, settings: Train, seed: int) -> Trainer:
    """A trainer in the scale of the first rows, tuned to this machine where that is asked for."""
    reads, writes = source.sites()
    rows, targets = source.rows(0, _n_sample(source.n_rows))
    _check_sample(rows, reads)
    _check_sample(targets, writes)
    trainer = Trainer.start(settings, rows, targets, reads, writes, seed=seed)
    if settings.tune:
        tell(trainer.tune(rows))
    return trainer


def _n_sample(n_rows: int) -> int:
    return min(SAMPLE_ROWS, n_rows)


def _write(out: Path, trainer: Trainer, n_rows: int, model: str | None) -> None:
    """The dictionary, with what it is to be known by, and the statistics of its latents."""
    facts: dict[str, Any] = {"sample_rows": _n_sample(n_rows), "training_rows": n_rows, "steps": trainer.settings.steps}
    facts |= {"scale": float(trainer.units.written[0]), "statistics_rows": trainer.statistics.n_rows}
    facts |= {} if model is None else {"model": model}
    save(trainer.dictionary(), out, training=facts)
    n_latents = trainer.settings.n_latents
    scale = torch.cat([trainer.units.written[block.writes][:1].expand(n_latents) for block in trainer.weights.blocks])
    statistics = trainer.statistics.in_units(scale)
    write_tensors(out / STATISTICS_FILE, {name: each.cpu().numpy() for name, each in statistics.items()})


def _end(record: Path) -> str:
    """How good its last batch was."""
    lines = read_record(record)
    if not lines or lines[-1]["fvu"] is None:
        return ""
    last = lines[-1]
    return f"last batch: fvu {last['fvu']:.4f}, l0 {last['l0']:.1f}, dead {last['dead']:,}; "


def _go_on(trainer: Trainer, checkpoints: Checkpoints, out: Path, worse: WorseThanTheMean) -> Seal:
    """From the last checkpoint, if there is one; the record is cut back to it, and `worse` sees the lines up to there.

    Returns:
        The seal of the record up to there.
    """
    seal = Seal()
    found = checkpoints.last()
    if found is not None:
        tensors, numbers = found
        try:
            trainer.restore(tensors, numbers)
            seal = Seal(**numbers["record"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{out}: its checkpoints are of another training ({error}); delete it to start over"
            ) from None
    for line in cut_back(out / RECORD_FILE, seal):
        worse.see(line)
    return seal


def _steps(
    trainer: Trainer,
    source: Source,
    checkpoints: Checkpoints,
    out: Path,
    watch: Watch,
    sinks: Sequence[Sink],
    seal: Seal,
    worse: WorseThanTheMean,
    in_model: InModel | None,
) -> None:
    settings, n_rows = trainer.settings, trainer.settings.batch_rows
    repeats = source.repeats(settings.steps * n_rows)
    if repeats:
        tell(repeats)
    last_checkpoint = time.monotonic()
    with (
        Recorder(out / RECORD_FILE, seal) as record,
        track(f"train {source.name}", settings.steps * n_rows, "rows", done=trainer.n_steps * n_rows) as tracker,
        AfterThisStep() as stop,
    ):
        for step in range(trainer.n_steps, settings.steps):
            rows, targets = source.rows(step * n_rows, n_rows)
            watch.waited()
            stepped = trainer.step(rows, targets)
            watch.stepped(stepped.n_kept, in_tiles=stepped.is_in_tiles)
            _check(stepped, source.name, step)
            note = ""
            if (step + 1) % settings.log_every == 0 or step + 1 == settings.steps:
                line = _line(trainer, stepped, targets, source.n_rows)
                if in_model is not None and _is_asked(step + 1, settings):
                    checkpoints.wait()  # memory holds its copy of the weights, or the dictionary that is asked about
                    line |= in_model(_autoencoder(trainer))
                watch.measured()
                record.write(**line)
                for sink in sinks:
                    sink.write(step + 1, line)
                note = f"fvu {line['fvu'] or 0.0:.4f}, l0 {line['l0']:.1f}"
                note += f", epoch {line['epoch']}" if repeats else ""
                worse.see(line)
                worse.stop_if_it_stays(line)
            tracker.advance(n_rows, note)
            if stop.is_asked or (_is_time(settings, step + 1, last_checkpoint) and step + 1 < settings.steps):
                _write_checkpoint(trainer, checkpoints, record)
                last_checkpoint = time.monotonic()
            if stop.is_asked:
                checkpoints.wait()
                tell(
                    f"train {source.name}: stopped after step {step + 1:,} of {settings.steps:,}, with a checkpoint of it"
                )
                stop.obey()
    if worse.n_lines:  # no error: it is whole, and one batch may be a hard one
        last = read_record(out / RECORD_FILE)[-1]  # of this call, or of one that was stopped after its last step
        tell(f"warning: {worse.sentence(last)}")


def _line(trainer: Trainer, stepped: Stepped, targets: torch.Tensor, n_rows: int) -> dict[str, Any]:
    """What the record says after the step that was taken last; `n_rows` are one epoch."""
    seen = trainer.n_steps * trainer.settings.batch_rows
    return {
        "step": trainer.n_steps,
        "rows": seen,
        "epoch": seen // n_rows,
        **trainer.measure(stepped, targets),
    }


def _write_checkpoint(trainer: Trainer, checkpoints: Checkpoints, record: Recorder) -> None:
    tensors, numbers = trainer.state()
    record.sync()  # what a checkpoint says of its record must be there after a power cut, too
    checkpoints.write(trainer.n_steps, tensors, numbers | {"record": asdict(record.seal)})


def _is_asked(n_steps: int, settings: Train) -> bool:
    """Of a step with a line: is it the first one at or after a multiple of `evaluate_every`, or the last? Needs no memory of
    the lines before, so a training that was killed asks at the same steps."""
    every, line_before = settings.evaluate_every, (n_steps - 1) // settings.log_every * settings.log_every
    return every > 0 and (n_steps == settings.steps or n_steps // every > line_before // every)


def _autoencoder(trainer: Trainer) -> SparseAutoencoder:
    found = trainer.dictionary()
    assert isinstance(found, SparseAutoencoder), "only of an autoencoder is it asked what the model loses"
    return found


def _is_time(settings: Train, n_steps: int, last: float) -> bool:
    if settings.checkpoint_every is not None:
        return n_steps % settings.checkpoint_every == 0
    return time.monotonic() - last > _CHECKPOINT_SECONDS


def _check_sample(rows: torch.Tensor, sites: Sites) -> None:
    """Every hookpoint's rows must differ, or there is no scale to learn them in."""
    for name, low, high in zip(sites.names, sites.bounds, sites.bounds[1:], strict=False):
        if bool((rows[:, low:high] == rows[0, low:high]).all()):
            raise NumericsError(
                f"{name}: all {len(rows)} sampled rows are the same, so there is nothing to learn; choose another hookpoint"
            )


def _check(stepped: Stepped, name: str, step: int) -> None:
    for what, value in (("loss", stepped.terms.total), ("gradient norm", stepped.grad_norm)):
        if value - value != 0.0:
            raise NumericsError(
                f"{name}: {what} {value} at step {step}, learning rate {stepped.rate:.3g}; try a lower train.lr"
            )
