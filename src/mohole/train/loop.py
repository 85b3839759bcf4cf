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

SAMPLE_ROWS = 8192
"""The first rows of the stream, from which the centre, the scale and the encoder's first magnitude are estimated."""
RECORD_FILE = "record.jsonl"
STATISTICS_FILE = "statistics.safetensors"
_CHECKPOINT_SECONDS = 600.0
_WORSE_LINES, _WORSE_STEPS = 20, 200
"""Lines of the record in a row with fvu > 1, after the warm-up, at which a training is stopped: so many, or two and more over so
many steps. Twenty lines at the default `log_every` are as many steps; a record of few lines would else never stop one."""


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
    n_sample = min(SAMPLE_ROWS, source.n_rows)
    rows, targets = source.rows(0, n_sample)
    _check_sample(rows, reads)
    _check_sample(targets, writes)
    trainer = Trainer.start(settings, rows, targets, reads, writes, seed=seed)
    if settings.tune:
        tell(trainer.tune(rows))
    checkpoints = Checkpoints(out)
    try:
        seal, n_worse = _go_on(trainer, checkpoints, out)
        limit = Limit.measured(settings, reads)
        watch = Watch(settings, reads, writes, limit)
        if takes := forecast(source.name, [(settings, settings.steps - trainer.n_steps)], reads, writes, limit):
            tell(takes)
        if in_model is not None and settings.evaluate_every:
            write_json(out / IN_MODEL_FILE, in_model.stamp())
        _steps(trainer, source, checkpoints, out, watch, sinks, seal, n_worse, in_model)
    finally:
        checkpoints.close()
    facts: dict[str, Any] = {"sample_rows": n_sample, "training_rows": source.n_rows, "steps": settings.steps}
    facts |= {"scale": float(trainer.units.written[0]), "statistics_rows": trainer.statistics.n_rows}
    facts |= {} if model is None else {"model": model}
    save(trainer.dictionary(), out, training=facts)
    scale = torch.cat(
        [trainer.units.written[block.writes][:1].expand(settings.n_latents) for block in trainer.weights.blocks]
    )
    write_tensors(
        out / STATISTICS_FILE, {name: each.cpu().numpy() for name, each in trainer.statistics.in_units(scale).items()}
    )
    checkpoints.clear()
    return f"{_end(out / RECORD_FILE)}{watch.summary()}{trainer.doubts()}"


def _end(record: Path) -> str:
    """How good its last batch was."""
    lines = read_record(record)
    if not lines or lines[-1]["fvu"] is None:
        return ""
    last = lines[-1]
    return f"last batch: fvu {last['fvu']:.4f}, l0 {last['l0']:.1f}, dead {last['dead']:,}; "


def _go_on(trainer: Trainer, checkpoints: Checkpoints, out: Path) -> tuple[Seal, int]:
    """From the last checkpoint, if there is one; the record is cut back to it.

    Returns:
        The seal of the record up to there, and at how many lines in a row, up to there, the training was worse than the mean.
    """
    seal, n_worse = Seal(), 0
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
        n_worse = n_worse + 1 if _is_worse(line, trainer.settings) else 0
    return seal, n_worse


def _is_worse(line: Mapping[str, Any], settings: Train) -> bool:
    return (line["fvu"] or 0.0) > 1.0 and line["step"] > settings.warmup_steps


def _stays_worse(n_worse: int, step: int, log_every: int) -> bool:
    """Is it to be stopped, when the line at `step` is the last one of so many in a row that are worse than the mean?"""
    first = (-(-step // log_every) - n_worse + 1) * log_every  # lines are at multiples, and at the last step
    return n_worse >= _WORSE_LINES or (n_worse >= 2 and step - first >= _WORSE_STEPS)


def _steps(
    trainer: Trainer,
    source: Source,
    checkpoints: Checkpoints,
    out: Path,
    watch: Watch,
    sinks: Sequence[Sink],
    seal: Seal,
    n_worse: int,
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
                seen = (step + 1) * n_rows
                line = {
                    "step": step + 1,
                    "rows": seen,
                    "epoch": seen // source.n_rows,
                    **trainer.measure(stepped, targets),
                }
                if in_model is not None and _is_asked(step + 1, settings):
                    checkpoints.wait()  # memory holds its copy of the weights, or the dictionary that is asked about
                    line |= in_model(_autoencoder(trainer))
                watch.measured()
                record.write(**line)
                for sink in sinks:
                    sink.write(step + 1, line)
                note = f"fvu {line['fvu'] or 0.0:.4f}, l0 {line['l0']:.1f}"
                note += f", epoch {line['epoch']}" if repeats else ""
                n_worse = n_worse + 1 if _is_worse(line, settings) else 0
                if _stays_worse(n_worse, step + 1, settings.log_every):
                    raise NumericsError(_worse(source.name, n_worse, line, settings))
            tracker.advance(n_rows, note)
            if stop.is_asked or (_is_time(settings, step + 1, last_checkpoint) and step + 1 < settings.steps):
                tensors, numbers = trainer.state()
                record.sync()  # what a checkpoint says of its record must be there after a power cut, too
                checkpoints.write(step + 1, tensors, numbers | {"record": asdict(record.seal)})
                last_checkpoint = time.monotonic()
            if stop.is_asked:
                checkpoints.wait()
                tell(
                    f"train {source.name}: stopped after step {step + 1:,} of {settings.steps:,}, with a checkpoint of it"
                )
                stop.obey()
    if n_worse:  # no error: it is whole, and one batch may be a hard one
        last = read_record(out / RECORD_FILE)[-1]  # of this call, or of one that was stopped after its last step
        tell(f"warning: {_worse(source.name, n_worse, last, settings)}")


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


def _worse(name: str, n_lines: int, line: Mapping[str, Any], settings: Train) -> str:
    lines = f"{n_lines} lines of the record" if n_lines > 1 else "the last line of the record"
    return (
        f"{name}: fvu {line['fvu']} at step {line['step']}, above 1 for {lines}: the mean alone reconstructs better; "
        f"try a lower train.lr than {settings.rate():.3g}, or a lower train.sparsity.weight"
    )
