"""Training one sparse autoencoder: the loop, its record, and the dictionary it leaves. The parts are in files of their own."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import Train
from mohole.errors import NumericsError
from mohole.metrics import fvu
from mohole.progress import track
from mohole.record import Recorder
from mohole.store.stream import RowStream
from mohole.train.objective import Forward, Outcome, Silence, forward, objective
from mohole.train.optimiser import Optimiser, learning_rate
from mohole.train.weights import Units, initial_weights

SAMPLE_ROWS = 8192
"""The first rows of the stream, from which the centre, the scale and the encoder's first magnitude are estimated."""
RECORD_FILE = "record.jsonl"


def train(out: Path, stream: RowStream, settings: Train, *, seed: int) -> None:
    """Train a sparse autoencoder on the rows of `stream`, and write it into `out`.

    `record.jsonl` gets a line every `log_every` steps and at the last: step (counted from 1), rows seen, loss, aux_loss, fvu of
    the batch before the step, l0, dead (latents), lr, grad_norm (before clipping). No times: the same store, settings and seed
    give the same bytes.

    Raises:
        HookpointError: the store has no such hookpoint.
        StageError: the store is not shuffled, or has fewer than two training rows.
        NumericsError: a row, the loss or a gradient that is not finite, or rows that are all the same.
    """
    hookpoint = stream.hookpoint
    sample = stream.rows(0, min(SAMPLE_ROWS, stream.n_rows))
    units = _units(sample, hookpoint)
    k = settings.nonlinearity.k
    weights = initial_weights(sample * units.scale, settings.n_latents, k, seed=seed)
    optimiser = Optimiser(weights, settings.clip_norm)
    silence = Silence(settings.n_latents, settings.dead_after_rows)
    buffer = torch.empty(settings.batch_rows, settings.n_latents)
    with (
        Recorder(out / RECORD_FILE) as record,
        track(f"train {hookpoint}", settings.steps * settings.batch_rows, "rows") as tracker,
    ):
        for step in range(settings.steps):
            rows = stream.batch(step, settings.batch_rows) * units.scale
            batch = forward(weights, rows, k, buffer)
            silence.update(batch.fired(), len(rows))
            dead = silence.dead()
            outcome = objective(weights, batch, dead, auxk=settings.auxk, auxk_weight=settings.auxk_weight)
            rate = learning_rate(step, settings)
            grad_norm = optimiser.step(outcome.gradients, rate)
            _check(outcome, grad_norm, hookpoint, step, rate)
            note = ""
            if (step + 1) % settings.log_every == 0 or step + 1 == settings.steps:
                line = _measure(rows, batch, outcome)
                note = f"fvu {line['fvu'] or 0.0:.4f}"
                seen = (step + 1) * settings.batch_rows
                record.write(
                    step=step + 1, rows=seen, dead=len(dead), lr=_short(rate), grad_norm=_short(grad_norm), **line
                )
            tracker.advance(len(rows), note)
    facts = {"scale": units.scale, "sample_rows": len(sample), "training_rows": stream.n_rows, "steps": settings.steps}
    units.to_model(weights, hookpoint, settings.nonlinearity).save(out, training=facts)


def _units(sample: Float[Tensor, "row d"], hookpoint: str) -> Units:
    centre = sample.double().mean(0).float()
    if bool((sample == sample[0]).all()):
        raise NumericsError(
            f"{hookpoint}: all {len(sample)} sampled rows are the same, so there is nothing to learn; choose another hookpoint"
        )
    return Units.of(sample, centre)


def _check(outcome: Outcome, grad_norm: float, hookpoint: str, step: int, rate: float) -> None:
    for name, value in (("loss", float(outcome.loss)), ("gradient norm", grad_norm)):
        if value - value != 0.0:
            raise NumericsError(
                f"{hookpoint}: {name} {value} at step {step}, learning rate {rate:.3g}; try a lower train.lr"
            )


def _measure(rows: Float[Tensor, "row d"], batch: Forward, outcome: Outcome) -> dict[str, Any]:
    """What a line of the record says about a batch. A batch of equal rows has no variance, and so no fvu."""
    varies = bool((rows != rows[0]).any())
    return {
        "loss": _short(float(outcome.loss)),
        "aux_loss": _short(float(outcome.aux_loss)),
        "fvu": _short(float(fvu(rows, rows + batch.error))) if varies else None,
        "l0": _short(float((batch.values > 0).sum() / len(rows))),
    }


def _short(value: float) -> float:
    """Six digits: what differs beyond them is rounding."""
    return float(f"{value:.6g}")
