"""The tables of a recipe: every setting with its default, its bounds and, once, what it means. No reading, no stage logic."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mohole.config.given import Given
from mohole.config.sizes import a_size
from mohole.config.sweep import Sweep
from mohole.config.synthetic import Synthetic
from mohole.config.tables import Count, Flag, Listed, Name, Number, Share, Table
from mohole.config.train import Train

Suite = Literal["sparse_probing", "absorption", "scr", "tpp", "ravel", "unlearning"]


class Machine(Table):
    """What a job may use, and where it runs. processes x threads never exceeds the cores."""

    processes: Annotated[int, Field(strict=True, ge=0)] = 0
    """Worker processes for independent tasks (one dictionary each). 0: one for every core, as many as there are tasks."""
    threads: Annotated[int, Field(strict=True, ge=0)] = 0
    """Threads of each process. 0: the cores divided by the processes."""
    executor: Literal["auto", "inline", "process", "ray"] = "auto"
    """What runs harvest and shuffle tasks: this process, worker processes, or Ray Core. `auto`: worker processes where there
    is work for more than one, else this process. The result is the same."""
    address: str | None = None
    """Of a Ray cluster that runs already. None: one of its own, on this machine."""
    watch: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the record of trainings goes besides record.jsonl: `tensorboard --logdir RUN/tensorboard` draws it while it grows;
    `wandb` keeps a run of Weights & Biases in RUN/wandb, and sends nothing anywhere unless your WANDB_MODE says `online`."""
    memory: Annotated[str, Field(strict=True), AfterValidator(a_size)] = "2GiB"
    """What a shuffle's workers together, or the loader of a training, may hold."""


class Model(Table):
    """The language model under study."""

    path: Name = "planted"
    """`planted` for the built-in model, a folder in Hugging Face format, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the model computes in. float32 is fastest on most CPUs: bfloat16 products measured 4x slower without AMX."""
    device: str = "cpu"
    """Any torch device. `cuda` gives each worker of a harvest a GPU of its own (machine.processes as many as there are)."""
    allow_download: Flag = False
    """May the hub be asked for a model that is not on this machine? Nothing touches the network otherwise."""


class PlantedCorpus(Table):
    """Documents of the built-in world, generated at run time, with the truth about every token."""

    kind: Literal["planted"] = "planted"
    n_documents: Count = 6000
    """How many documents to write."""


class TextCorpus(Table):
    """Text of one's own, from files: read as a stream, so a text may be larger than the memory."""

    kind: Literal["text"] = "text"
    path: Name
    """A file, a folder, a pattern such as `books/*.txt`, or a URL (`s3://...`, `https://...`): UTF-8 text, JSON lines (.jsonl)
    or Parquet (.parquet), told by the name's end. .gz is unpacked, .zst where the package zstandard is installed."""
    separator: str = "\n\n"
    """What stands between two documents in a text file. An empty string makes each file one document."""
    field: Name = "text"
    """The key (JSON lines) or column (Parquet) that holds a document's text."""
    max_document_chars: Count = 1_000_000
    """A document longer than this is cut into several, after the last newline before the limit, else after the last space, else
    at the limit. A cut ends a document: no window spans it, and its parts may fall on both sides of the held-out split."""
    max_tokens: Count | None = None
    """Stop after the document in which this many tokens are reached. None: everything."""


class DatasetCorpus(Table):
    """A Hugging Face dataset, read as a stream. Needs the extra `datasets`."""

    kind: Literal["dataset"] = "dataset"
    name: Name
    """A hub id, or a folder or file that the package `datasets` can read."""
    subset: str | None = None
    """Which configuration of the dataset, where it has several."""
    split: Name = "train"
    """Which split of it."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    field: Name = "text"
    """The column that holds a document's text."""
    max_document_chars: Count = 1_000_000
    """As for text: a longer document is cut into several, at a newline or a space where it has one."""
    max_tokens: Count | None = None
    """Stop after the document in which this many tokens are reached. None: everything."""
    allow_download: Flag = False
    """May the hub be asked? Otherwise the dataset must be on this machine: a folder, a file, or in the local cache."""


Corpus = Annotated[PlantedCorpus | TextCorpus | DatasetCorpus, Field(discriminator="kind")]


class Windows(Table):
    """How documents are cut and which are kept away from training."""

    context: Annotated[int, Field(strict=True, ge=2)] = 128
    """Tokens of a window, a begin-of-text token included where the tokenizer has one. A window is run alone."""
    held_out: Share = 0.1
    """Share of documents never trained on: evaluation measures on them alone. Chosen by keyed hash of the document."""


class Harvest(Table):
    """Which activations to collect."""

    hookpoints: Annotated[tuple[str, ...], Field(min_length=1)] = ("resid_post.1",)
    """Names such as `resid_post.1`; TransformerLens names are understood. `mohole show hookpoints MODEL` lists them."""
    batch_tokens: Count = 8192
    """Tokens of one forward pass. Changes speed and memory, never the rows beyond rounding."""
    dtype: Literal["bfloat16", "float32", "float16", "int8"] = "bfloat16"
    """What rows are stored in. bfloat16 loses nothing of a bfloat16 model and 3e-6 of the variance of others; int8 has one
    scale for each dimension, from the first rows, half the bytes, and loses 1e-4 of the variance."""
    shard_tokens: Count = 131_072
    """Tokens that a harvest task runs and keeps in memory. A worker that dies loses at most these."""
    place: Name | None = None
    """A folder or URL (such as s3://bucket/name) that takes the rows. None: the run's folder."""


class Shuffle(Table):
    """The order of rows for training: the order of a keyed pseudo-random function of (document, position)."""

    epoch: Annotated[int, Field(strict=True, ge=0, lt=2**16)] = 0
    """Another epoch is another order of the same rows."""
    stored: Flag = False
    """false: rows are sorted where they are made, and merged by the loader of the training, so that each byte is written once
    and read once. true: the order is written out as a store of its own, for rows that do not fit the loader's memory in few
    enough piles, or that are read by others."""
    levels: Annotated[int, Field(strict=True, ge=0, le=8)] | None = None
    """Passes of a stored shuffle before the last one. None: as few as the memory allows."""


class Evaluate(Table):
    """Quality on held-out documents."""

    max_documents: Count = 250
    """Held-out documents run through the model with the reconstruction spliced in, for CE and KL. Drawn by keyed hash."""
    max_tokens: Count = 60_000
    """... and tokens of them: a document may be a whole book."""
    batch_tokens: Count = 2048
    """Tokens of one forward pass. Changes speed and memory, never the numbers beyond rounding. Small batches hold windows of
    like length, so less padding: 8192 cost 5.6 CPU-seconds where 2048 costs 3.9. A GPU wants more."""
    task_prompts: Count = 100
    """Prompts of each task, the first ones."""
    max_rows: Count = 200_000
    """Held-out rows for FVU, L0, densities and recovery, drawn as whole documents by keyed hash."""
    dark_matter_rows: Count = 20_000
    """Held-out rows for what is unexplained: by class of token, and by a linear map fitted on half of their documents."""
    recovery: Flag = True
    """Score latents against the corpus's truth, where it has any."""
    selection_rows: Count = 60_000
    """Rows of training documents on which the best latent, neuron, threshold and probe of a label are chosen."""
    min_positives: Count = 8
    """A label with fewer marked tokens, to choose on or to score on, is listed as not scored."""
    min_language_tokens: Count = 5
    """A language counts for a concept when so many held-out tokens are the concept in that language."""
    suites: tuple[Suite, ...] = ()
    """Supervised and causal measurements that need labels, each of them opt-in: see docs/supervised-metrics.md."""
    suite_rows: Count = 4000
    """Rows that a suite looks at on each side of the split for one family of labels, as many of each class."""
    suite_windows: Count = 100
    """Windows on each side of the split that are run through the model for each edit of a suite."""
    unlearn: Name | None = None
    """The task that the suite `unlearning` makes the model forget; else the first that it can do well."""
    causal_labels: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 6
    """Labels of which the best latent is clamped and ablated in the model, to see whether it causes what it detects: the best
    found of each family in turn, words first. 0: none."""
    causal_tokens: Count = 800
    """Tokens of held-out text run through the model for each of them, once as it is and once for each of four edits. More make
    narrower intervals: their cost is a forward pass each."""


class Catalogue(Table):
    """What each latent fires on."""

    max_tokens: Count = 300_000
    """Tokens encoded for statistics and examples, drawn as whole documents by keyed hash."""
    top_examples: Listed = 12
    """Strongest distinct documents kept for a latent."""
    intervals: Listed = 5
    """Half-open activation intervals of equal width between 0 and the maximum, each with its own examples."""
    interval_examples: Listed = 3
    """Documents drawn from each interval, by keyed hash."""
    context_tokens: Listed = 16
    """Tokens shown on either side of an example's strongest token."""
    promoted: Listed = 8
    """Vocabulary entries listed as promoted and as suppressed."""
    neighbours: Listed = 8
    """Latents listed whose directions are nearest."""
    together: Listed = 8
    """Latents listed that fire at the same tokens."""
    together_tokens: Count = 300_000
    """Tokens, of those looked at, over which that is counted: whole documents, drawn as those are."""


class Label(Table):
    """Names for latents, found by rule, without a language model."""

    max_tokens: Count = 120_000
    """Tokens the rules may look at (to find a rule) plus tokens used to score it, from different documents."""
    min_firings: Count = 8
    """A latent with fewer firings among the tokens looked at is left unlabelled, and says so."""
    firing_share: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0, lt=1.0)] = 0.3
    """Above this share of its maximum a latent counts as firing. 0 counts every positive activation, weak noise included."""


class Clamp(Table):
    """Hold one latent at a multiple of its maximum: x' = x + (c - f(x)) d."""

    hookpoint: str
    """Which dictionary the latent is of."""
    latent: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The latent by number, or None to take the best one for `concept`."""
    concept: str | None = None
    """A label of the corpus's truth, such as `landmark/golden_gate_bridge`. Of the six latents most active where it holds, the
    one is clamped that most often makes the model write the concept's words, and of equal ones the one that harms other text
    least: which latent detects a thing and which one causes it to be said are two questions."""
    times_max: Number = 1.0
    """Strength in units of the largest activation seen on the corpus. 0 ablates."""

    @model_validator(mode="after")
    def _one_source(self) -> "Clamp":
        if (self.latent is None) == (self.concept is None):
            raise ValueError("latent, concept: give exactly one of the two")
        return self


class Steer(Table):
    """One generation without and one with latents clamped."""

    prompts: tuple[str, ...] = ()
    """What the model continues. Empty: the built-in model's own question, else the first words of a held-out document."""
    clamp: Clamp | None = None
    """None: a latent of the first hookpoint, that of the twelve best labelled whose clamp does most and harms least."""
    max_new_tokens: Count = 40
    """Tokens written after each prompt, at most."""
    temperature: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0)] = 0.0
    """0 always takes the likeliest token."""
    variant: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")] = ""
    """Keep the clamp under this name, too: `mohole chat RUN --variant NAME`, `RUN::NAME` for clients. Empty: it is not kept."""


class Report(Table):
    """The self-contained page."""

    max_features: Count = 400
    """Features of each hookpoint that can be browsed in the page, the best labelled first."""


class Recipe(Table):
    """A whole job: from a model and a text to a page of labelled, steerable features."""

    run: Name
    """The folder that holds every artifact of this job."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """The one seed. Everything random is drawn from it and from what it is for."""
    machine: Machine = Machine()
    model: Model = Model()
    corpus: Corpus = PlantedCorpus()
    windows: Windows = Windows()
    harvest: Harvest = Harvest()
    rows_of: Name | None = None
    """The folder of another run, whose text and rows are used. None: this one makes its own, as [corpus] and [harvest] say."""
    shuffle: Shuffle = Shuffle()
    dictionary: tuple[Given, ...] = ()
    """Dictionaries that are there already, of any library; each stands where one would be trained. They say the hookpoints."""
    train: Train = Train()
    sweep: Sweep = Sweep()
    evaluate: Evaluate = Evaluate()
    catalogue: Catalogue = Catalogue()
    label: Label = Label()
    steer: Steer = Steer()
    report: Report = Report()
    synthetic: Synthetic = Synthetic()
