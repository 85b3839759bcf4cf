"""What a training will take and what it took: memory and time before the first step, products and waiting after. For people.

A product is rows x d x latents multiplications in float32 (on a GPU in `train.products`), which the encoder cannot do without;
the limit is the rate at which this machine makes one, measured when the training begins.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from mohole.config import BatchTopK, TopK, Train
from mohole.config.train import Muon
from mohole.device import available_bytes, busy_seconds, peak_bytes, training_device
from mohole.errors import ConfigError
from mohole.progress import QUIET_SECONDS, duration
from mohole.train.objective import DENSE_SHARE
from mohole.train.tiled import holds
from mohole.train.traffic import moment_bytes, step_bytes
from mohole.train.weights import Sites, layers_of

_GIB = 1 << 30
_LIMIT_LATENTS = 4096
_SHARE_OF_MEMORY = 0.95


@dataclass(frozen=True)
class Bytes:
    """Memory of a training."""

    device: int
    """Where it computes: weights, moments, a running mean, and a step's own."""
    main: int
    """Copies that it makes in main memory, whatever it computes on: of a checkpoint, or of the dictionary at the end."""

    @property
    def total(self) -> int:
        return self.device + self.main


def training_bytes(settings: Train, reads: Sites, writes: Sites) -> Bytes:
    """What a training takes, without the rows a stream holds.

    Of the step: the tile of pre-activations, candidates and kept pairs, and what a batch is read and written as; gradients, and
    all pre-activations where they are held, where the start is dense and steps are made in tiles. A checkpoint that is being
    written is a copy of the weights and moments; it is counted where one is due before the end.
    """
    layers = layers_of(settings.learns, reads, writes)
    widths = [(read.stop - read.start, written.stop - written.start) for read, written in layers]
    numbers = settings.n_latents * sum(d_in + d_out for d_in, d_out in widths)
    most = DENSE_SHARE * settings.n_latents
    if isinstance(settings.nonlinearity, TopK | BatchTopK):
        kept, starts_dense = float(settings.nonlinearity.k), False
    else:
        kept, starts_dense = min(settings.first_l0(), most), settings.first_l0() > most
    kept_bytes = 4 * (2 if settings.average else 1) + moment_bytes(settings)
    saved = kept_bytes if settings.checkpoint_every is None or settings.checkpoint_every < settings.steps else 0
    end = 8 if settings.average else 4  # the dictionary in the model's units, and the mean it is made of
    tile = min(settings.n_latents, _LIMIT_LATENTS) * settings.batch_rows
    pairs = int(settings.batch_rows * (kept * 12 + 64)) * len(layers)
    batch = settings.batch_rows * (4 * reads.width + (4 + len(settings.prefixes)) * writes.width)
    candidates = 0
    if settings.resample is not None:  # rows that are held, and a checkpoint's copy of them
        candidates = min(settings.resample.most, settings.n_latents * len(layers)) * (reads.width + writes.width)
    gradients = numbers * (isinstance(settings.optimiser, Muon) + starts_dense)
    n_holding = sum(holds(settings.batch_rows, d_in, d_out, settings.nonlinearity) for d_in, d_out in widths)
    held = settings.n_latents * settings.batch_rows * n_holding * starts_dense
    copies = settings.n_latents * max(d_in for d_in, _ in widths) * _copy_bytes(settings)
    device = numbers * kept_bytes + 4 * (gradients + tile + pairs + batch + candidates + held) + copies
    return Bytes(device, numbers * max(saved, end) + 4 * candidates)


def _copy_bytes(settings: Train) -> int:
    """Of each of the encoder's numbers: the copies of 16 bits that codes are found with, and wider ones of them on a CPU."""
    if settings.products == "bfloat16":
        return 6 if settings.device == "cpu" else 2
    return 2 if settings.screening else 0


def _needs(settings: Train, reads: Sites, writes: Sites) -> dict[torch.device, int]:
    """Bytes of each memory."""
    device, cpu, found = torch.device(settings.device), torch.device("cpu"), training_bytes(settings, reads, writes)
    if device == cpu:
        return {cpu: found.total}
    return {device: found.device, cpu: found.main}


def check_memory(settings: Train, reads: Sites, writes: Sites, available: int | None = None) -> None:
    """Raises: ConfigError: the training does not fit the memory that is free now; says what would.

    Args:
        available: bytes that are free, wherever. None: they are looked up.
    """
    needs = _needs(settings, reads, writes)
    fixed = _needs(settings.model_copy(update={"n_latents": _LIMIT_LATENTS}), reads, writes)
    for device, needed in needs.items():
        room = available_bytes(device) if available is None else available
        if room is None or needed <= room * _SHARE_OF_MEMORY:
            continue
        # From _LIMIT_LATENTS on a straight line.
        per_latent = (needed - fixed[device]) / max(settings.n_latents - _LIMIT_LATENTS, 1)
        fits = int(_LIMIT_LATENTS + (room * _SHARE_OF_MEMORY - fixed[device]) / max(per_latent, 1e-9)) // 64 * 64
        if fits <= 0:  # it is the rows
            raise ConfigError(
                f"train.batch_rows: {settings.batch_rows} rows a step take {needed / _GIB:.1f} GiB to train on, and "
                f"{room / _GIB:.1f} GiB are free{_place(device)}; give fewer"
            )
        raise ConfigError(
            f"train.n_latents: {settings.n_latents} latents take {needed / _GIB:.1f} GiB to train, and {room / _GIB:.1f} GiB "
            f"are free{_place(device)}; about {fits} latents would fit"
        )


def check_memory_together(
    members: Mapping[str, Train], reads: Sites, writes: Sites, available: int | None = None
) -> None:
    """Members of a sweep work in turns, but each keeps its weights and what it works in all the time: their sums must fit.

    Raises:
        ConfigError: they do not; says how many of them would, the first ones. Or a device cannot be used.
    """
    for name in {settings.device for settings in members.values()}:
        training_device(name)
    needs = [_needs(settings, reads, writes) for settings in members.values()]
    for device in {device for each in needs for device in each}:
        room = available_bytes(device) if available is None else available
        sums = list(accumulate(each.get(device, 0) for each in needs))
        if room is None or sums[-1] <= room * _SHARE_OF_MEMORY:
            continue
        fit = sum(each <= room * _SHARE_OF_MEMORY for each in sums)
        raise ConfigError(
            f"sweep: {len(members)} members take {sums[-1] / _GIB:.1f} GiB to train together, and {room / _GIB:.1f} GiB are "
            f"free{_place(device)}; the first {fit} would fit; list fewer at a time, or narrower ones"
        )


def _place(device: torch.device) -> str:
    return "" if device.type == "cpu" else f" on {device}"


@dataclass(frozen=True)
class Limit:
    """How fast a product is made: by a core of the CPU, or by another device."""

    flops_per_second: float

    @classmethod
    def measured(cls, settings: Train, reads: Sites) -> "Limit":
        """From three products of a batch and some latents, the best of them: other work on the machine only slows."""
        n_latents, device = min(settings.n_latents, _LIMIT_LATENTS), torch.device(settings.device)
        kind = torch.bfloat16 if settings.products == "bfloat16" and device.type != "cpu" else torch.float32
        rows = torch.randn(settings.batch_rows, reads.width, device=device).to(kind)
        encoder = torch.randn(n_latents, reads.width, device=device).to(kind)
        out = torch.mm(rows, encoder.T)
        times = []
        for _ in range(3):
            before = busy_seconds(device)
            torch.mm(rows, encoder.T, out=out)
            times.append(busy_seconds(device) - before)
        return cls(2.0 * settings.batch_rows * n_latents * reads.width / max(min(times), 1e-9))


def forecast(name: str, left: Sequence[tuple[Train, int]], reads: Sites, writes: Sites, limit: Limit) -> str:
    """For people, before the first step: what so many steps of each training take at least, all of them together. Nothing
    where that is not worth waiting for.

    A step makes one product of rows and encoder, and usually takes one to two and a half; where the start is dense, it begins
    with five or six (docs/training.md). How long it takes is known when some are made: the line of progress says that.
    """
    seconds = sum(n * _product_flops(settings, reads) for settings, n in left) / limit.flops_per_second
    if seconds < QUIET_SECONDS:
        return ""
    memory = sum(training_bytes(settings, reads, writes).total for settings, _ in left) / _GIB
    n_steps = sum(n for _, n in left)
    rate = f"{limit.flops_per_second / 1e9:.0f} GFLOP/s of {_computer(torch.device(left[0][0].device))}"
    return (
        f"{name}: {memory:.2g} GiB and no less than {duration(seconds)}, which {n_steps:,} products of rows and encoder take at "
        f"{rate}"
    )


def _product_flops(settings: Train, reads: Sites) -> float:
    return 2.0 * settings.batch_rows * settings.n_latents * reads.width


def _computer(device: torch.device) -> str:
    return "a core" if device.type == "cpu" else str(device)


class Watch:
    """Where the time of a training goes. Call `waited` when rows have come, `stepped` when a step is done, `measured` after."""

    def __init__(self, settings: Train, reads: Sites, writes: Sites, limit: Limit) -> None:
        self._settings, self._reads, self._writes = settings, reads, writes
        self._limit, self._device = limit, torch.device(settings.device)
        self._flops_of_step, self._moved = _product_flops(settings, reads), 0
        self._n_steps, self._steps_busy, self._steps, self._waits, self._measures = 0, 0.0, 0.0, 0.0, 0.0
        self._mark, self._busy_mark = time.perf_counter(), busy_seconds(self._device)

    def waited(self) -> None:
        """Rows are here."""
        now = time.perf_counter()
        self._waits += now - self._mark
        self._mark, self._busy_mark = now, busy_seconds(self._device)

    def stepped(self, n_kept: int, *, in_tiles: bool = False) -> None:
        """The step is done; it kept so many pairs, or worked in whole tiles of latents."""
        busy, now = busy_seconds(self._device), time.perf_counter()
        self._n_steps += 1
        self._moved += step_bytes(self._settings, self._reads, self._writes, n_kept, in_tiles=in_tiles)
        self._steps += now - self._mark
        self._steps_busy += busy - self._busy_mark
        self._mark, self._busy_mark = now, busy

    def measured(self) -> None:
        """What the record says of the step has been found."""
        now = time.perf_counter()
        self._measures += now - self._mark
        self._mark, self._busy_mark = now, busy_seconds(self._device)

    def summary(self) -> str:
        """For people: products a step, the rate beside the machine's, bytes moved, and the shares of time spent waiting and
        measuring."""
        if not self._n_steps:
            return "no step was left to do"
        rate = self._n_steps * self._flops_of_step / max(self._steps_busy, 1e-9)
        products = self._limit.flops_per_second / rate
        whole = max(self._waits + self._steps + self._measures, 1e-9)
        of_limit = f"{rate / 1e9:.0f} of {self._limit.flops_per_second / 1e9:.0f} GFLOP/s of {_computer(self._device)}"
        rates = f"{of_limit}, {1.0 / products:.0%}"
        bytes_of_step, seconds = self._moved / self._n_steps, max(self._steps_busy, 1e-9)
        moved = f"and moved at least {bytes_of_step / 1e9:.2g} GB ({self._moved / seconds / 1e9:.2g} GB/s)"
        peak = f"peak memory {peak_bytes(self._device) / _GIB:.1f} GiB"
        waiting, measuring = self._waits / whole, self._measures / whole
        shares = f"{waiting:.0%} of the time waiting for rows, {measuring:.0%} measuring"
        return f"a step took {products:.1f} products of rows and encoder ({rates}) {moved}, {shares}, {peak}"
