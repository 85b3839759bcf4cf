"""What a dictionary is and how it is learned, as values of a recipe. The laws stand with the code that follows them.

Weights of penalties are those of the papers, whose loss sums over dimensions: loss = (|x - x^|^2 + weight * penalty) / d_model,
a mean over rows. Rows are scaled so that their mean squared distance from their centre is d_model (the original recipe's units).
"""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from mohole.config.tables import Count, Flag, Moderate, Name, PositiveFloat, Share, Table, Weight, Whole


class TopK(Table):
    """Keep the k largest pre-activations of a row, where they are positive; ties go to the lower latent (Gao et al. 2024)."""

    kind: Literal["topk"] = "topk"
    k: Count = 16
    """Active latents per row at most."""


class BatchTopK(Table):
    """In training keep the rows x k largest pre-activations of a batch, where they are positive; afterwards those above one
    threshold, the mean over batches of the smallest kept one (Bussmann et al. 2024, arXiv 2412.06410)."""

    kind: Literal["batchtopk"] = "batchtopk"
    k: Count = 16
    """Active latents per row on average."""


class ReLU(Table):
    """Keep every positive pre-activation (Bricken et al. 2023)."""

    kind: Literal["relu"] = "relu"


class JumpReLU(Table):
    """Keep the pre-activations that exceed their latent's threshold, whole (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    kind: Literal["jumprelu"] = "jumprelu"
    bandwidth: Moderate = 0.5
    """Width of the window around the threshold in which pre-activations tell the threshold where to go."""


class Gated(Table):
    """One reading decides whether a latent is active, another how strongly; they share directions (Rajamanoharan et al. 2024,
    arXiv 2404.16014)."""

    kind: Literal["gated"] = "gated"


Nonlinearity = TopK | BatchTopK | ReLU | JumpReLU | Gated
AnyNonlinearity = Annotated[Nonlinearity, Field(discriminator="kind")]


class L1(Table):
    """Sum of activations, each times the length of its decoder row (Conerly et al. 2024, Circuits Updates April)."""

    kind: Literal["l1"] = "l1"
    weight: Weight = 5.0
    """Of the penalty, beside the squared error."""
    warmup_steps: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 100
    """Steps over which the weight rises from zero."""


class L0(Table):
    """Number of active latents, which moves thresholds only (JumpReLU's `step` penalty; Rajamanoharan et al. 2024)."""

    kind: Literal["l0"] = "l0"
    weight: Weight = 1.0
    """Of the penalty, beside the squared error."""
    warmup_steps: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 100
    """Steps over which the weight rises from zero."""


class Tanh(Table):
    """Sum of tanh(scale * activation * length of the decoder row): near a count, with a slope (Circuits Updates January 2025)."""

    kind: Literal["tanh"] = "tanh"
    weight: Weight = 1.0
    """Of the penalty, beside the squared error."""
    scale: Moderate = 4.0
    """How steeply a small activation counts as one."""
    warmup_steps: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 100
    """Steps over which the weight rises from zero."""


Sparsity = L1 | L0 | Tanh
AnySparsity = Annotated[Sparsity, Field(discriminator="kind")]

_PENALTIES: dict[type[Nonlinearity], tuple[type[Sparsity], ...]] = {
    TopK: (),
    BatchTopK: (),
    ReLU: (L1, Tanh),
    JumpReLU: (L0, Tanh, L1),
    Gated: (L1,),
}
"""What each nonlinearity can pay for its active latents; the first is the default."""


class Adam(Table):
    """Steps in proportion to gradient over its size (Kingma & Ba 2014)."""

    kind: Literal["adam"] = "adam"
    beta1: Share = 0.9
    """Share of the running mean of gradients that a step keeps."""
    beta2: Share = 0.999
    """The same, of their squares."""
    moments: Literal["float32", "bfloat16", "8bit"] = "float32"
    """How both are held of the two matrices: 12 bytes for each weight with the weight itself, 8, or 6. Fewer bits are rounded by
    chance, which a step is a little noisier and slower by."""


class Signum(Table):
    """Steps of one size, by the sign of the running mean of gradients (Bernstein et al. 2018, arXiv 1802.04434). Half the
    memory of Adam's moments, and fewer dead latents in sparsify's experience. Wants a lower rate."""

    kind: Literal["signum"] = "signum"
    momentum: Share = 0.95
    """Share of the running mean that a step keeps."""


class Muon(Table):
    """Matrices take steps whose singular values are all alike (Jordan et al. 2024); everything else is Adam's. Holds whole
    gradients, and a step costs some 25 products of latents x d x d more: for narrow dictionaries."""

    kind: Literal["muon"] = "muon"
    momentum: Share = 0.95
    """Share of the running mean of gradients that a step keeps."""


AnyOptimiser = Annotated[Adam | Signum | Muon, Field(discriminator="kind")]


class Resample(Table):
    """Dead latents begin anew at rows that are reconstructed badly, drawn in proportion to their squared loss (Bricken et al.
    2023, "Neuron Resampling"). Not in the last `decay_share` of the steps. A step more costs nothing but at `over_steps`."""

    every: Count = 25_000
    """Steps between two resamplings."""
    over_steps: Count = 100
    """Steps before each resampling whose rows may be drawn."""
    most: Count = 1024
    """Latents that begin anew at a time, those first that have been silent longest; so many rows are held."""

    @model_validator(mode="after")
    def _fits(self) -> "Resample":
        if self.over_steps > self.every:
            raise ValueError(f"over_steps: {self.over_steps} is more than every, {self.every}")
        return self


class Sae(Table):
    """A sparse autoencoder of each harvested hookpoint."""

    kind: Literal["sae"] = "sae"


class TranscoderOf(Table):
    """A transcoder: reads one hookpoint, predicts another (Dunefsky et al. 2024)."""

    kind: Literal["transcoder"] = "transcoder"

    def needs(self) -> tuple[str, ...]:
        """The hookpoints it is learned from, each once."""
        return tuple(dict.fromkeys((self.reads, self.writes)))

    reads: Name
    """The hookpoint it reads, such as mlp_in.3."""
    writes: Name
    """The hookpoint it predicts, such as mlp_out.3."""
    skip: Flag = False
    """With a linear path past the latents (Paulo et al. 2025)."""


class CrosscoderOf(Table):
    """A crosscoder: shared latents of several hookpoints (Lindsey et al. 2024)."""

    kind: Literal["crosscoder"] = "crosscoder"
    hookpoints: Annotated[tuple[Name, ...], Field(min_length=2)]
    """The hookpoints it reads and reconstructs."""

    def needs(self) -> tuple[str, ...]:
        """The hookpoints it is learned from."""
        return self.hookpoints


class CrossLayerOf(Table):
    """A cross-layer transcoder: latents of each layer write to their own layer and all later ones (Ameisen et al. 2025)."""

    kind: Literal["cross_layer_transcoder"] = "cross_layer_transcoder"
    reads: Annotated[tuple[Name, ...], Field(min_length=1)]
    """What the latents of each layer read, in the order of layers."""
    writes: Annotated[tuple[Name, ...], Field(min_length=1)]
    """What is predicted at each layer, in the same order."""

    def needs(self) -> tuple[str, ...]:
        """The hookpoints it is learned from, each once."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    @model_validator(mode="after")
    def _pairs(self) -> "CrossLayerOf":
        if len(self.reads) != len(self.writes):
            raise ValueError(
                f"writes: {len(self.writes)} hookpoints, and reads has {len(self.reads)}; a layer has one of each"
            )
        return self


Learns = Sae | TranscoderOf | CrosscoderOf | CrossLayerOf


class Train(Table):
    """How dictionaries are learned."""

    learns: Annotated[Learns, Field(discriminator="kind")] = Sae()
    """What is learned."""
    n_latents: Annotated[int, Field(strict=True, ge=1, le=2**31)] = 1024
    """Latents of the dictionary; of each layer, of a cross-layer transcoder."""
    nonlinearity: AnyNonlinearity = TopK()
    """How the few active latents are chosen."""
    sparsity: AnySparsity | None = None
    """What active latents cost. None: nothing for topk and batchtopk, l1 for relu and gated, l0 for jumprelu."""
    prefixes: Annotated[tuple[Count, ...], Field(max_length=250)] = ()
    """Matryoshka: sizes below n_latents, ascending; the first so many latents alone have to reconstruct the rows too, and the
    loss is the mean over all sizes (Bussmann et al. 2025, arXiv 2503.17547)."""
    decoder: Literal["unit", "free"] = "unit"
    """`unit`: decoder rows are kept at length 1. `free`: they are not, and penalties count activation times length."""
    initial_l0: PositiveFloat | None = None
    """Active latents per row at the start, for nonlinearities with a threshold: each latent's bias is set so that it fires on
    its share of the sample. None: 64 (or an eighth of the latents), so that a step is sparse from the start."""
    batch_rows: Annotated[int, Field(strict=True, ge=1, le=2**24)] = 1024
    """Rows of a step."""
    steps: Count = 900
    """Optimiser steps. The rows are read again from the start when they run out."""
    live_rows: Whole = 0
    """0: rows come from the store, in the shuffled order. More: the model is run as training goes on, and so many rows are held
    in memory and mixed at a time: nothing is read from the disk, and the mixing is weaker (docs/stores.md)."""
    # Built-in model, resid_post.1, 1024 latents, k 16, 900 steps of 1024 rows: held-out FVU 0.030 at 2e-3, 0.024 at 4e-3,
    # 0.022 at 8e-3 (17 dead). Long trainings and wide dictionaries want less: `auto`.
    lr: Annotated[float, Field(strict=True, gt=0.0, le=1e30)] | Literal["auto"] = 5e-3
    """The learning rate, held flat after the warm-up and brought to zero over the last `decay_share`. `auto`: by the number of
    latents, 2e-4 * (n_latents / 16384)^-1/2 with adam, 5e-3 * (n_latents / 16384)^-1/2 with signum, 2e-3 with muon; these are
    for long trainings, and low for short ones."""
    optimiser: AnyOptimiser = Adam()
    """What makes steps of gradients."""
    warmup_steps: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 50
    """Steps over which the rate rises from zero."""
    decay_share: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0, le=1.0)] = 0.3
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    auxk: Annotated[int, Field(strict=True, ge=0)] = 64
    """Dead latents that help to explain the residual each step (AuxK, Gao et al. 2024). 0 turns it off."""
    auxk_weight: Weight = 1 / 32
    """Weight of what the dead latents explain, in the loss."""
    pre_act_weight: Weight = 0.0
    """Weight of how far dead latents' pre-activations lie below their threshold (Circuits Updates January 2025: 3e-6)."""
    resample: Resample | None = None
    """How dead latents begin anew. None: they do not, and auxk alone may bring them back."""
    dead_after_rows: Count = 100_000
    """A latent is dead when it has been silent for this many rows."""
    clip_norm: PositiveFloat | None = 1.0
    """Gradients longer than this are shortened to it. All weights count as one vector. None: never."""
    average: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.0
    """The dictionary is a running mean of the weights, of which each step keeps this share (0.999, say). 0: the last weights."""
    screening: Flag = False
    """On an x86 CPU with AVX2, but for batchtopk, or topk on a GPU: codes are found with numbers rounded to 16 bits, and made
    from the numbers themselves. Rows that rounding leaves in doubt are encoded again, so the codes are the same, for less than
    the product costs (docs/training.md)."""
    products: Literal["float32", "bfloat16"] = "float32"
    """What rows and encoder are multiplied as to find codes. `bfloat16`: copies rounded to 16 bits, summed in float32; codes are
    those of the copies, and everything else stays float32. For GPUs, whose matrix units take 16 bits; no faster on a CPU."""
    tune: Flag = False
    """Before the first step the tiles in which codes are found are timed, once on each machine, and the choice is remembered in
    the user's cache (XDG_CACHE_HOME or ~/.cache, mohole/tiles.json). What is learned is the same to the bit. No gain on CPUs."""
    device: str = "cpu"
    """`cpu`, or `cuda` or `cuda:1`: where weights, moments and batches are. A GPU runs Triton's kernels with the extra `gpu`."""
    log_every: Count = 10
    """Steps between two lines of the record."""
    # Built-in model, 1024 latents: a look at 1024 tokens costs what 6 steps of 1024 rows do, the first one what 26 more do.
    evaluate_every: Whole = 100
    """Steps between two looks at what the model loses, on a little held-out text, with the dictionary so far in the place of its
    activation: ce_recovered and excess_ce, at the next line of the record. 0: never, and no model is needed. Only of `sae`."""
    evaluate_tokens: Count = 1024
    """Held-out tokens of such a look, in whole windows: the first of those that evaluate measures on."""
    checkpoint_every: Count | None = None
    """Steps between two checkpoints. None: as many as are made in ten minutes. A killed training goes on from the last one."""
    dictionary: tuple[dict[str, Any], ...] | None = Field(default=None, exclude=True)  # no part of what one training is
    """[[train.dictionary]] tables: members of a sweep, each with a `name` and the keys of [train] in which it differs."""

    @field_validator("nonlinearity", mode="before")
    @classmethod
    def _default_kind(cls, given: Any) -> Any:
        """`-o train.nonlinearity.k=32` alone means the default kind."""
        return {"kind": "topk"} | given if isinstance(given, dict) else given

    @field_validator("lr", mode="before")
    @classmethod
    def _rate(cls, given: Any) -> Any:
        """A message of its own: that of a union would name its parts."""
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if given != "auto" and not (is_number and 0.0 < given <= 1e30):
            raise PydanticCustomError("rate", "input should be a valid number above 0 and at most 1e30, or 'auto'")
        return given

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        nonlinearity = self.nonlinearity
        if isinstance(nonlinearity, TopK | BatchTopK) and nonlinearity.k > self.n_latents:
            raise ValueError(
                f"nonlinearity.k: {nonlinearity.k} is more than n_latents; the largest is {self.n_latents}"
            )
        if self.screening and isinstance(nonlinearity, BatchTopK):
            raise ValueError("screening: batchtopk goes without: what it keeps of a row depends on all rows")
        if self.screening and not isinstance(nonlinearity, TopK) and self.device != "cpu":
            raise ValueError(
                f"screening: on {self.device} it is for topk; {nonlinearity.kind} is screened on a CPU alone; leave it off"
            )
        if self.screening and self.products == "bfloat16":
            raise ValueError(
                "screening: products of bfloat16 cost what would screen them (docs/training.md); leave one of both off"
            )
        sizes = (*self.prefixes, self.n_latents)
        if any(low >= high for low, high in pairwise(sizes)):
            raise ValueError(f"prefixes: {list(self.prefixes)} must ascend and stay below n_latents, {self.n_latents}")
        allowed = _PENALTIES[type(nonlinearity)]
        if self.sparsity is not None and type(self.sparsity) not in allowed:
            kinds = (
                ", ".join(table.model_fields["kind"].default for table in allowed) or "none: k says how many are active"
            )
            raise ValueError(f"sparsity: {self.sparsity.kind} is not for {nonlinearity.kind}; it takes {kinds}")
        if self.pre_act_weight and not isinstance(nonlinearity, ReLU | JumpReLU):
            raise ValueError(
                f"pre_act_weight: {nonlinearity.kind} has silent latents above their threshold; it takes auxk instead"
            )
        if self.resample is not None and self.resample.every > self.last_flat_step():
            raise ValueError(
                f"resample.every: {self.resample.every} steps would be never; the rate begins to fall after step "
                f"{self.last_flat_step()}"
            )
        if self.initial_l0 is not None and self.initial_l0 > self.n_latents / 2:
            raise ValueError(
                f"initial_l0: {self.initial_l0} is more than half of the latents; the most is {self.n_latents / 2}"
            )
        return self

    def rate(self) -> float:
        """`lr`, as a number.

        Gao et al. 2024 (arXiv 2406.04093, section 3) find the best rate of Adam in proportion to n_latents^-1/2; the constants
        are sparsify's, which takes the same law for signum and one rate for muon. An `lr` that is a number is left as it is.
        """
        if self.lr != "auto":
            return self.lr
        width = math.sqrt(2**14 / self.n_latents)
        match self.optimiser:
            case Adam():
                return 2e-4 * width
            case Signum():
                return 5e-3 * width
            case Muon():
                return 2e-3
            case _:
                assert_never(self.optimiser)

    def last_flat_step(self) -> int:
        """The last step, counted from 1, before the rate falls."""
        return int(self.steps * (1.0 - self.decay_share))

    def first_l0(self) -> float:
        """`initial_l0`, or its default."""
        return self.initial_l0 if self.initial_l0 is not None else min(64.0, self.n_latents / 8)

    def penalty(self) -> Sparsity | None:
        """The penalty in force."""
        allowed = _PENALTIES[type(self.nonlinearity)]
        return self.sparsity if self.sparsity is not None or not allowed else allowed[0]()
