"""Finding codes on a CUDA device: which latents of a row, or of a batch, are kept. Sums over kept pairs are `gpu_sums`.

Axes: B batch rows, L latents, N kept pairs, D width read. No [B, L] tensor is kept.
Products are of float32 numbers as they are (no TF32), or of 16-bit ones summed in float32; codes have the type of b_enc. float64
is encoded by `plain`: it is for checks, and so are more codes in a row than a program can hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.kernels import gpu_encode_programs as programs
from mohole.kernels import plain
from mohole.kernels.pairs import Pairs, TooManyError, best, side_by_side


@dataclass(frozen=True)
class Tile:
    """What of the product one program makes at a time. The order of sums depends on its columns, and on nothing else of it."""

    rows: int
    latents: int
    columns: int
    warps: int
    stages: int


# Chosen by what the compiler makes of them for Hopper (registers, shared memory, no spills in the loop); not measured yet.
_WIDE = Tile(rows=128, latents=256, columns=64, warps=8, stages=3)
_WIDE_BYTES = 144 << 10
"""Of shared memory that the wide tile takes; devices whose multiprocessors have less get the small one."""
_HALVES = Tile(rows=128, latents=128, columns=64, warps=8, stages=3)
"""Of what is screened: bounds take more registers, and the wide tile would spill 5.4 KB a thread, this one 0.1."""
_SMALL = Tile(rows=128, latents=128, columns=32, warps=8, stages=3)
_EXACT = Tile(rows=64, latents=128, columns=32, warps=8, stages=2)
"""Of float32, which has no matrix units."""
_OTHERS = ((128, 128, 8), (128, 256, 8), (64, 256, 8), (64, 128, 8))
"""Rows, latents and warps of tiles that `tuning` tries beside those: smaller ones spill less, and waste less of odd shapes."""
_PARTS = 8
"""Parts of the latents that are searched side by side, at least: so programs that run at once share rows, which the L2 cache
then holds. With one part, 132 programs would read 132 blocks of rows, again for every tile."""
_MOST_HELD = 8192
"""Candidates that a program can sort out at a time."""
_ROOM = 64
_ROOM_NUMBERS = 1 << 27
_PROGRAMS_WITHOUT_DEVICE = 3


class Scratch:
    """Memory for one encoding at a time, kept between batches, how long the lists of the last one were, and its tile."""

    def __init__(self, tile: Tile | None = None) -> None:
        self.room, self.tile = _ROOM, tile
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """n numbers of any content."""
        held = self._held.get(name)
        if held is None or held.dtype != dtype or held.device != device or held.numel() < n:
            self._held[name] = held = torch.empty(n, dtype=dtype, device=device)
        return held[:n]


@dataclass(frozen=True)
class _Cut:
    """How an encoding is cut into items: blocks of rows times parts of the latents."""

    tile: Tile
    n_parts: int
    part_latents: int
    n_items: int
    n_programs: int

    @classmethod
    def of(cls, rows: Tensor, n_latents: int, tile: Tile, most_parts: int) -> "_Cut":
        n_programs = _n_programs(rows.device)
        n_blocks, n_tiles = -(-len(rows) // tile.rows), -(-n_latents // tile.latents)
        wanted = max(_PARTS, -(-n_programs // max(n_blocks, 1)))
        n_parts = min(power_of_two(wanted), power_of_two(n_tiles), most_parts)
        part_latents = -(-n_tiles // n_parts) * tile.latents
        return cls(tile, n_parts, part_latents, n_blocks * n_parts, min(n_blocks * n_parts, n_programs))

    @property
    def options(self) -> dict[str, int]:
        """Blocks, and how the compiler shall run them."""
        tile = self.tile
        blocks = {"BLOCK_B": tile.rows, "BLOCK_L": tile.latents, "BLOCK_D": tile.columns}
        return blocks | {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def top_k(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    k: int,
    scratch: Scratch | None = None,
) -> Pairs:
    """Each row's k largest positive pre-activations, or all where there are fewer; among equals the lower latent is kept.

    A program goes through a part of the latents for a block of rows. It keeps what exceeds the row's k-th best so far, and
    sorts out when its room is full; the best of the parts are then the best of the row.
    """
    k, scratch = min(k, len(W_enc)), scratch or Scratch()
    if rows.dtype == torch.float64 or not holds(k, rows.dtype, rows.device, scratch):
        return plain.top_k(rows, W_enc, b_enc, k)
    counts, values, latents = strongest(rows, W_enc, b_enc, k, scratch)
    return packed(counts, values, latents, b_enc.dtype)


def holds(k: int, dtype: torch.dtype, device: torch.device, scratch: Scratch) -> bool:
    """Whether a program can keep so many of a row."""
    return _room(_tile(dtype, device, scratch), k) <= _MOST_HELD


def strongest(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    k: int,
    scratch: Scratch,
    facts: tuple[Float[Tensor, "three B"], Float[Tensor, "three L"]] | None = None,
) -> tuple[Int[Tensor, " B"], Float[Tensor, "B kept"], Int[Tensor, "B kept"]]:
    """Each row's k largest positive pre-activations: how many, and from a row's beginning on their values and latents, ascending.

    Args:
        facts: of rounded rows and latents; then it is the k largest of what their pre-activations cannot exceed.
    """
    n_rows, n_latents, width = len(rows), *W_enc.shape
    tile, device, kept = _tile(rows.dtype, rows.device, scratch), rows.device, power_of_two(k)
    room = _room(tile, k)
    cut = _Cut.of(rows, n_latents, tile, most_parts=_MOST_HELD // kept)
    n_own = cut.n_programs * tile.rows
    held = scratch("held values", n_own * room, torch.float32, device)
    held_latents = scratch("held latents", n_own * room, torch.int32, device)
    states = torch.empty(n_own, dtype=torch.int32, device=device), torch.empty(n_own, device=device)
    values = scratch("values", n_rows * cut.n_parts * kept, torch.float32, device).zero_().view(n_rows, -1)
    latents = scratch("latents", values.numel(), torch.int32, device).view(n_rows, -1)
    programs.stream_top[(cut.n_programs,)](
        rows.contiguous(), W_enc.contiguous(), b_enc, *(facts or (b_enc, b_enc)), held, held_latents, *states,
        values, latents, n_rows, n_latents, width, k, cut.part_latents, cut.n_parts, cut.n_items,
        ROOM=room, GROUP=min(_MOST_HELD // room, tile.rows), KEPT=kept, SCREENS=facts is not None, **cut.options,
    )  # fmt: skip
    counts = keep_best(values, latents, k)
    return counts, values[:, :kept], latents[:, :kept]


def keep_best(values: Float[Tensor, "B place"], latents: Int[Tensor, "B place"], k: int) -> Int[Tensor, " B"]:
    """Bring each row's k largest positive values, with their latents, to its beginning, in the order they stand in; among equals
    the first. Places are a power of two. Returns how many there are."""
    counts = torch.empty(len(values), dtype=torch.int32, device=values.device)
    group = max(_MOST_HELD // values.shape[1], 1)
    programs.merge_parts[(-(-len(values) // group),)](
        values, latents, counts, len(values), k, WIDTH=values.shape[1], GROUP=group, num_warps=8, enable_fp_fusion=True
    )
    return counts


def batch_top(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    n: int,
    scratch: Scratch | None = None,
) -> Pairs:
    """The batch's n largest positive pre-activations; among equals the lower row, then the lower latent is kept.

    Each slab of latents is as wide as all before it: about as many of its pre-activations as are kept exceed their least.
    """
    if rows.dtype == torch.float64:
        return plain.batch_top(rows, W_enc, b_enc, n)
    scratch, n_latents, mean = scratch or Scratch(), len(W_enc), -(-n // max(len(rows), 1))
    limit = torch.zeros(1, device=rows.device)
    found: Pairs | None = None
    for first, last in _doubling(4 * mean, n_latents, _tile(rows.dtype, rows.device, scratch).latents):
        room = last - first if first == 0 else 8 * mean + _ROOM
        more = _above(rows, W_enc[first:last], b_enc[first:last], limit.expand(last - first), scratch, room)
        more = Pairs(more.row_starts, more.latents + first, more.values)
        found = best(more if found is None else side_by_side([found, more]), n)
        if len(found.values) >= n:  # equals in higher latents may stand in lower rows
            limit = torch.nextafter(found.values.min().float(), -torch.ones_like(limit))
    assert found is not None
    return found


def above(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    thresholds: Float[Tensor, " L"],
    scratch: Scratch | None = None,
    most: int | None = None,
) -> Pairs:
    """All pre-activations that exceed their latent's threshold.

    Raises:
        TooManyError: more than `most`; found out by counting.
    """
    if rows.dtype == torch.float64:
        return plain.above(rows, W_enc, b_enc, thresholds, most=most)
    scratch = scratch or Scratch()
    return _above(rows, W_enc, b_enc, thresholds, scratch, scratch.room, most)


def tiles(dtype: torch.dtype, device: torch.device) -> tuple[Tile, ...]:
    """That may encode rows of some numbers, the usual one first. All have its columns, and so give the same bits."""
    usual = _usual_tile(dtype, device)
    others = (replace(usual, rows=rows, latents=latents, warps=warps) for rows, latents, warps in _OTHERS)
    return usual, *(tile for tile in others if tile != usual)


def packed(
    counts: Int[Tensor, " list"],
    values: Float[Tensor, "list room"],
    latents: Int[Tensor, "list room"],
    dtype: torch.dtype,
) -> Pairs:
    """The beginnings of lists, one after the other."""
    held = torch.arange(values.shape[1], device=counts.device) < counts[:, None]
    return Pairs(starts_of(counts), latents.masked_select(held), values.masked_select(held).to(dtype))


def starts_of(counts: Int[Tensor, " list"]) -> Int[Tensor, " list_plus_one"]:
    return torch.cat([torch.zeros(1, dtype=torch.int64, device=counts.device), counts.cumsum(0)])


def power_of_two(n: int) -> int:
    """The least that is no less."""
    return 1 << max(n - 1, 0).bit_length()


def _above(
    rows: Tensor, W_enc: Tensor, b_enc: Tensor, limits: Tensor, scratch: Scratch, room: int, most: int | None = None
) -> Pairs:
    """Lists are given room for what is likely. Where one is longer, the product is made again, with room as it was counted."""
    n_rows, n_latents, width = len(rows), *W_enc.shape
    cut = _Cut.of(rows, n_latents, _tile(rows.dtype, rows.device, scratch), most_parts=_MOST_HELD)
    n_lists = n_rows * cut.n_parts
    room = max(min(room, cut.part_latents, _ROOM_NUMBERS // max(n_lists, 1)), 1)
    counts = torch.zeros(n_lists, dtype=torch.int32, device=rows.device)
    operands = rows.contiguous(), W_enc.contiguous(), b_enc.contiguous(), limits.contiguous()

    def stream(starts: Tensor, values: Tensor, latents: Tensor) -> None:
        programs.stream_above[(cut.n_programs,)](
            *operands, starts, values, latents, counts,
            n_rows, n_latents, width, cut.part_latents, cut.n_parts, cut.n_items, **cut.options,
        )  # fmt: skip

    values = scratch("above values", n_lists * room, torch.float32, rows.device)
    latents = scratch("above latents", n_lists * room, torch.int32, rows.device)
    stream(torch.arange(n_lists + 1, device=rows.device) * room, values, latents)
    if most is not None and int(counts.sum()) > most:
        raise TooManyError
    longest = int(counts.max()) if n_lists else 0
    scratch.room = power_of_two(max(longest, 1))
    if longest <= room:
        found = packed(counts, values.view(n_lists, room), latents.view(n_lists, room), b_enc.dtype)
    else:
        starts = starts_of(counts)
        values = torch.empty(int(starts[-1]), device=rows.device)
        latents = torch.empty(len(values), dtype=torch.int32, device=rows.device)
        stream(starts, values, latents)
        found = Pairs(starts, latents, values.to(b_enc.dtype))
    return Pairs(found.row_starts[:: cut.n_parts].contiguous(), found.latents, found.values)


def _room(tile: Tile, k: int) -> int:
    """Of a row's candidates: the k best, and at least a tile's more."""
    return power_of_two(k + tile.latents + max(k, tile.latents // 2))


def _doubling(first_width: int, n_latents: int, step: int) -> Iterator[tuple[int, int]]:
    """Ranges that cover all latents, each as wide as those before it, in whole tiles."""
    first, last = 0, min(-(-first_width // step) * step, n_latents)
    while first < n_latents:
        yield first, last
        first, last = last, min(2 * last, n_latents)


def _usual_tile(dtype: torch.dtype, device: torch.device) -> Tile:
    if dtype in (torch.float32, torch.float64):
        return _EXACT
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        if facts.shared_memory_per_multiprocessor < _WIDE_BYTES:
            return _SMALL
    return _HALVES if dtype == torch.float16 else _WIDE


def _tile(dtype: torch.dtype, device: torch.device, scratch: Scratch) -> Tile:
    return scratch.tile or _usual_tile(dtype, device)


def _n_programs(device: torch.device) -> int:
    """That run at once. Results do not depend on it."""
    if device.type != "cuda":
        return _PROGRAMS_WITHOUT_DEVICE
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
