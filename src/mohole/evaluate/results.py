"""What an evaluation found, as typed values. What is found against truth is in recovery/results.py, the writing in files.py."""

from dataclasses import dataclass

from mohole.config import Suite
from mohole.drawing import notebook
from mohole.metrics import DensityHistogram, Measure
from mohole.metrics.stamp import Stamp


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task: the share of prompts whose whole right answer the model gives, greedily."""

    name: str
    n: int
    """Prompts. Each is independent, so the intervals are Wilson's."""
    clean: float
    clean_low: float
    clean_high: float
    replaced: float
    """With the reconstruction in place of the activation at every token but BOS, prompt and answer."""
    replaced_low: float
    replaced_high: float

    @property
    def change(self) -> float:
        """replaced - clean: negative is skill lost."""
        return self.replaced - self.clean


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """What is unexplained of one class of tokens. Classes do not overlap, so shares add up to 1."""

    name: str
    n: int
    share_of_rows: float
    share_of_error: Measure
    fvu: Measure


@dataclass(frozen=True, slots=True)
class DenseLatent:
    """A latent that fires in more than a tenth of the rows."""

    latent: int
    density: float
    mean_cosine: float | None
    """Cosine of its decoder row with the mean row: near 1 or -1 it carries the mean, which is a bias's work. None: no length."""


@dataclass(frozen=True, slots=True)
class DarkMatter:
    """What the dictionary leaves unexplained, class by class, and what it explains by latents that nearly always fire."""

    n_rows: int
    classes: tuple[ErrorClass, ...]
    dense: tuple[DenseLatent, ...]
    """The densest, at most 50."""


@dataclass(frozen=True, slots=True)
class Caution:
    """A number that should not be what it is."""

    name: str
    """Which guard saw it; stays the same from release to release."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Rated:
    """One number of a suite, for the dictionary and beside it for what could be had without one."""

    name: str
    measures: dict[str, Measure]
    """`dictionary`; `random` (directions), `neurons`, `pca` treated as dictionaries; `probe`: with all of the row."""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One suite of supervised or causal measurements."""

    suite: Suite
    rated: tuple[Rated, ...]
    left_out: tuple[str, ...]
    """What was not measured and why, a sentence each."""

    def rating(self, name: str) -> Rated | None:
        """One number, None if it was not measured."""
        return next((rated for rated in self.rated if rated.name == name), None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a dictionary stands in for the activation."""

    hookpoint: str
    """Where it stands, for people: `resid_post.3`, `mlp_in.3 -> mlp_out.3`."""
    kind: str
    """What it is: `sae`, `transcoder`, `crosscoder`, `cross_layer_transcoder`."""
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    n_latents: int
    measures: dict[str, Measure]
    tasks: tuple[TaskResult, ...]
    density: DensityHistogram
    dark_matter: DarkMatter
    warnings: tuple[Caution, ...]
    """Numbers that should not be what they are. Empty is good."""
    checked: Stamp
    """By which definitions it was measured, and that they gave every known answer."""
    suites: tuple[SuiteResult, ...] = ()
    """Those asked for by `evaluate.suites`."""

    def _repr_html_(self) -> str:
        """Shown by notebooks."""
        first = [_card(self.measures[name]) for name in _FIRST if name in self.measures]
        density = [*self.density.counts]
        ends = (f"{10 ** self.density.edges[0]:.1g}", f"{10 ** self.density.edges[-1]:.1g}")
        return notebook.card(
            f"Evaluation at {self.hookpoint}",
            notebook.note(
                f"{self.kind.replace('_', ' ')} of {self.n_latents:,} latents, on documents never trained on",
                kind="soft",
            ),
            notebook.note(*(each.sentence for each in self.warnings), kind="warning"),
            notebook.table(("", "value", "95 % interval", "n", "against"), first, words=(0, 4)),
            notebook.sides(
                notebook.part(
                    f"Share of rows in which latents fire, logarithmic; {self.density.zero:,} never",
                    notebook.bars(density, *ends, "Latents by density"),
                ),
                *(
                    [notebook.part("Tasks", notebook.table(("", "clean", "with it", "n"), map(_task, self.tasks)))]
                    if self.tasks
                    else []
                ),
            ),
            notebook.folded(
                f"All {len(self.measures)} measures",
                notebook.table(
                    ("", "value", "95 % interval", "n", "against"), map(_card, self.measures.values()), words=(0, 4)
                ),
            ),
        )


_FIRST = ("fvu", "l0", "ce_recovered", "excess_ce", "kl", "dead")
"""What a notebook shows first."""


def _card(measure: Measure) -> tuple[str, str, str, str, str]:
    has_interval = measure.low is not None and measure.high is not None
    return (
        f"{measure.name} ({measure.unit})" if measure.unit else measure.name,
        f"undefined: {measure.undefined}" if measure.value is None else f"{measure.value:.4g}".replace("-", "−"),
        f"{measure.low:.4g} to {measure.high:.4g}".replace("-", "−") if has_interval else "–",
        f"{measure.n:,} {measure.n_of}",
        measure.baseline,
    )


def _task(task: TaskResult) -> tuple[str, str, str, str]:
    return task.name, f"{task.clean:.3f}", f"{task.replaced:.3f}", f"{task.n:,}"
