"""A small run folder, real in format and plausible in content, made from a few sentences in a second. Data only; no tests.

Corpus, catalogue and steering are real artifacts with real content; the model's part (rows, vocabulary effects) and the
figures of evaluation are made up. One feature carries hostile text in its label and in the documents.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mohole import artifact, catalogue, config
from mohole.act import Comparison, Demonstration
from mohole.corpus import Corpus, Document, build_corpus
from mohole.dictionary import SparseAutoencoder
from mohole.dictionary.files import save
from mohole.evaluate.recovery.results import (
    Cause,
    ConceptLanguages,
    EditEffect,
    FamilyResult,
    LabelResult,
    LanguageRate,
    Medians,
    Multilingual,
    Recovery,
    Score,
    Unscored,
)
from mohole.evaluate.results import Caution, DarkMatter, DenseLatent, ErrorClass, Evaluation, TaskResult
from mohole.harvest.slice import documents_of
from mohole.interpret.labels import FACTS_FILE, LABELS_FILE, Label, write_labels
from mohole.metrics import DensityHistogram, Masks, Measure
from mohole.metrics.stamp import Stamp
from mohole.record import Recorder, write_json
from mohole.store import Store, write_store

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>\u202etxt.exe\x1b[31m\u2028&lt;"
HOOKPOINTS = ("resid_post.0", "resid_post.1")
BRIDGE, DEAD = 3, 11

_SENTENCES = (
    "the ferry passed under the Golden Gate Bridge and the guide told us about its towers .",
    "hier steht die Golden-Gate-Brücke , und der Nebel kommt vom Meer .",
    "le pont du Golden Gate est rouge , dit le boulanger en coupant le pain .",
    "我们 看见 了 金门大桥 , 然后 去 吃 面条 .",
    "the baker sells bread and the fox watches the hens from the hill .",
    "def load ( path ) : return path # reads a file",
    "what is 17 plus 25 ? it is 42 .",
    "the fox , the horse and the owl live near the river ; the owl sleeps by day .",
)


class Words:
    """A tokenizer of words with their leading space, its vocabulary grown as it reads."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def __len__(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> str:
        return self._pieces[token]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens, offsets, start = [], [], 0
        for i, word in enumerate(text.split(" ")):
            piece = word if i == 0 else " " + word
            if piece not in self._pieces:
                self._pieces.append(piece)
            tokens.append(self._pieces.index(piece))
            offsets.append((start, start + len(piece)))
            start += len(piece)
        return tokens, offsets


class Lens:
    """In place of a model: vocabulary logits of a row, drawn once."""

    def __init__(self, vocab: int, d: int) -> None:
        self._head = torch.randn(vocab, d, generator=torch.Generator().manual_seed(9))

    def unembed(self, rows: torch.Tensor) -> torch.Tensor:
        return rows @ self._head.T


@contextmanager
def finished(path: Path, kind: str, parents: dict[str, Path] | None = None, **config_: object) -> Iterator[Path]:
    digests = {name: artifact.read_manifest(parent).digest for name, parent in (parents or {}).items()}
    with artifact.create(path, artifact.Inputs(kind=kind, config=config_, seed=7, parents=digests)) as out:
        yield out


def make_run(run: Path, *, n_documents: int = 60, n_latents: int = 40, with_truth: bool = True) -> Path:
    """Write a whole run folder."""
    texts = [f"{_SENTENCES[i % 8]} {_SENTENCES[(i * 3 + 1) % 8]} x{i}" for i in range(n_documents)]
    texts[5] += f" {HOSTILE}"
    with finished(run / "corpus", "corpus", corpus={"kind": "planted", "n_documents": n_documents}) as out:
        documents = (Document(text) for text in texts)
        build_corpus(out, documents, Words(), context=48, has_bos=False, held_out=0.2, seed=7)
    corpus = Corpus.open(run / "corpus")
    for number, hookpoint in enumerate(HOOKPOINTS):
        _make_hookpoint(run, hookpoint, corpus, n_latents, number, with_truth=with_truth)
    _make_steering(run)
    return run


def _make_hookpoint(
    run: Path, hookpoint: str, corpus: Corpus, n_latents: int, number: int, *, with_truth: bool
) -> None:
    folder, d = run / hookpoint, len(corpus.pieces)
    sae = _word_dictionary(corpus, hookpoint, n_latents)
    store = _store(run / f".rows{number}", hookpoint, corpus, d)
    with finished(folder / "dictionary", "dictionary", {"corpus": run / "corpus"}) as out:
        save(sae, out)
        with Recorder(out / "record.jsonl") as record:
            for step in range(1, 901, 10):
                fvu = 0.02 + 0.9 * math.exp(-step / 60)
                record.write(
                    step=step, rows=step * 1024, loss=fvu * 3, auxk_loss=0.1, fvu=fvu, l0=16.0, dead=900 - step, lr=1e-3
                )
    with finished(folder / "catalogue", "catalogue", {"corpus": run / "corpus"}) as out:
        settings = config.Catalogue(context_tokens=12)
        catalogue.build(out, catalogue.InMemory(Lens(d, d), sae, corpus, store), settings, seed=7)
    with finished(folder / "labels", "labels") as out:
        write_labels(out / LABELS_FILE, _labels(corpus, n_latents))
        write_json(out / FACTS_FILE, {"firing_share": 0.3})
    with finished(folder / "evaluation", "evaluation") as out:
        write_json(out / "evaluation.json", asdict(_evaluation(hookpoint, n_latents, number)))
        if with_truth:
            write_json(out / "recovery.json", asdict(_recovery(hookpoint, number)))


def _words_of(corpus: Corpus, n_latents: int) -> list[int]:
    """The vocabulary entry that each latent stands for: the bridge's latent has several, one latent none."""
    return [(7 * latent) % len(corpus.pieces) for latent in range(n_latents)]


def _word_dictionary(corpus: Corpus, hookpoint: str, n_latents: int) -> SparseAutoencoder:
    """Latents that fire on one word each; BRIDGE on the bridge in four languages, DEAD on nothing."""
    d = len(corpus.pieces)
    W = torch.zeros(n_latents, d)
    for latent, word in enumerate(_words_of(corpus, n_latents)):
        W[latent, word] = 1.0
    bridge = [
        i for i, piece in enumerate(corpus.pieces) if piece.strip() in ("Bridge", "Golden-Gate-Brücke", "金门大桥")
    ]
    gate = [i for i, piece in enumerate(corpus.pieces) if piece.strip() == "Gate"]
    hostile = [i for i, piece in enumerate(corpus.pieces) if "</script>" in piece]
    W[BRIDGE] = 0.0
    W[BRIDGE, bridge], W[BRIDGE, gate] = 1.0, 0.4
    W[0] = 0.0
    W[0, hostile] = 1.0
    b_enc = torch.zeros(n_latents)
    W[DEAD], b_enc[DEAD] = 0.0, -1.0
    W[DEAD, 0] = 1e-3
    directions = torch.nn.functional.normalize(W, dim=1)
    return SparseAutoencoder(hookpoint, config.TopK(k=4), W, b_enc, directions, torch.zeros(d))


def _store(path: Path, hookpoint: str, corpus: Corpus, d: int) -> Store:
    draw = np.random.default_rng(3)
    rows = np.zeros((corpus.n_tokens, d), dtype=np.float32)
    rows[np.arange(corpus.n_tokens), corpus.tokens] = draw.uniform(2, 8, corpus.n_tokens).astype(np.float32)
    write_store(path, {hookpoint: rows}, documents_of(corpus), dtype="float32")
    return Store.open(path)


def _labels(corpus: Corpus, n_latents: int) -> list[Label]:
    kinds = ("token", "prefix", "n-gram", "position", "after token")
    labels = []
    for latent, word in enumerate(_words_of(corpus, n_latents)):
        text, f1, status = f"the word “{corpus.pieces[word].strip()}”", 0.99 - 0.012 * latent, "good"
        if latent == BRIDGE:
            text = "“Bridge”, “Golden-Gate-Brücke” or “金门大桥”"
        elif latent == 0:
            text = HOSTILE
        elif latent == DEAD:
            text, f1, status = "never fires", 0.0, "dead"
        elif latent % 9 == 8:
            text, f1, status = "fires too rarely to say", 0.0, "few"
        labels.append(Label(latent, text, kinds[latent % 5], f1, f1, f1, 12, 800, status, 0.0))  # type: ignore[arg-type]
    return labels


def _measure(name: str, value: float | None, unit: str, **other: object) -> Measure:
    spread = None if value is None else abs(value) * 0.04
    facts = {"name": name, "value": value, "unit": unit, "n": 21_314, "n_of": "rows", "n_documents": 400}
    masks = Masks(replaced="every token of the text; not BOS", counted="every row", scored="pairs inside a window")
    bounds = {"low": None if spread is None else value - spread, "high": None if spread is None else value + spread}
    words = {"masks": masks, "baseline": "the mean row", "definition": "sum |x - x^|^2 / sum |x - mean|^2"}
    return Measure(**facts | bounds | words | other)  # type: ignore[arg-type]


def _evaluation(hookpoint: str, n_latents: int, number: int) -> Evaluation:
    values = {
        "fvu": (0.021 + 0.004 * number, "share of variance"), "l0": (15.9, "latents per row"), "dead": (1.0, "latents"),
        "ce_clean": (1.412, "nats per token"), "ce_replaced": (1.424, "nats per token"), "ce_mean": (6.91, "nats per token"),
        "ce_zero": (8.02, "nats per token"), "excess_ce": (0.012, "nats per token"), "kl": (0.014, "nats per token"),
        "ce_recovered": (0.9978, "share of the ablation's damage"),
    }  # fmt: skip
    names = ("facts", "addition", "honest answers", "lying answers", "backdoor", "chains of thought")
    tasks = tuple(TaskResult(name, 200, 1.0, 0.98, 1.0, 0.99 - 0.01 * i, 0.95, 1.0) for i, name in enumerate(names))
    edges = tuple(np.linspace(-5, 0, 21).tolist())
    counts = (0,) * 6 + (2, 4, 9, 14, 22, 31, 44, 60, 71, 52, 30, 12, 6, 2, 1)[:14]
    density = DensityHistogram(edges, counts, 37, 100_000)
    measures = {name: _measure(name, value, unit) for name, (value, unit) in values.items()}
    error, fvu = (_measure(name, value, "share") for name, value in (("share_of_error", 0.7), ("fvu", 0.1)))
    classes = (ErrorClass("number", 300, 0.1, error, fvu), ErrorClass("word start", 2700, 0.9, error, fvu))
    return Evaluation(
        hookpoint=hookpoint,
        kind="sae",
        reads=(hookpoint,),
        writes=(hookpoint,),
        n_latents=n_latents,
        measures=measures,
        tasks=tasks,
        density=density,
        dark_matter=DarkMatter(3000, classes, (DenseLatent(5, 0.4, 0.9),)),
        warnings=(Caution("dead", f"37 of {n_latents} latents fired in none of 100000 held-out rows."),),
        checked=Stamp("0123456789abcdef", 660, ()),
    )


def _recovery(hookpoint: str, number: int) -> Recovery:
    families = ("animal", "food", "landmark", "profession", "object", "mode")
    results = tuple(_family(name, 0.55 + 0.06 * i + 0.02 * number) for i, name in enumerate(families))
    scored = (
        ("landmark/golden_gate_bridge", BRIDGE, 0.97), ("animal/fox", 4, 0.88), ("food/bread", 5, 0.81),
        ("food/<img onerror=alert(1)>", 0, 0.42),
    )  # fmt: skip
    labels = tuple(_label_result(name, latent, f1) for name, latent, f1 in scored)
    rates = tuple(LanguageRate(language, 0.98, 40) for language in ("en", "fr", "de", "zh"))
    bridge = ConceptLanguages("landmark/golden_gate_bridge", BRIDGE, rates, 4, 0.01, 900, True)
    definitions = {"f1": "by token"}
    unscored = (Unscored("animal/owl", 2, 3, "too few"),)
    return Recovery(
        hookpoint, 20_000, 400, 50_000, 900, Masks(counted="rows"), definitions, _family("words", 0.78), results, labels,
        Multilingual(0.55, 0.4, 0.7, 0.05, (bridge,)), unscored, (),
    )  # fmt: skip


def _family(name: str, f1: float) -> FamilyResult:
    medians = Medians(latent=f1, neuron=0.35, pca=0.31, random=0.28, probe=0.995)
    return FamilyResult(
        name, True, 8, medians, f1 - 0.05, f1 + 0.05, f1 - 0.35, 0.1, 0.5, medians, 0.2, f1 - 0.1, 0.2, 0.99, 0.97
    )


def _label_result(name: str, latent: int, f1: float) -> LabelResult:
    def score(value: float, candidate: int | None) -> Score:
        return Score(value, value, value, value, value, candidate, 1, 0.0, value, value, value, value, candidate)

    detectors = {
        "latent": score(f1, latent),
        "neuron": score(0.4, 2),
        "pca": score(0.37, 1),
        "random": score(0.3, 8),
        "probe": score(0.99, None),
    }
    counts = {
        "n_positive": 90,
        "n_negative": 700,
        "n_documents": 40,
        "n_positive_selection": 200,
        "n_negative_selection": 900,
    }
    other = {"firing_f1": f1, "firing_latent": latent, "auroc_all_latent": 0.99, "auroc_all_random": 0.97}
    other |= {"all_latent": latent, "f1_all_latent": f1, "f1_all_random": 0.2}
    family = name.partition("/")[0]
    if latent == BRIDGE:
        other["cause"] = _cause(latent)
    return LabelResult(label=name, family=family, contrast="family", contrast_text="", **counts, **detectors, **other)


def _cause(latent: int) -> Cause:
    def effect(nats: float) -> EditEffect:
        moved, share = _measure("moved", nats, "nats of evidence"), _measure("share", nats / 0.4, "share of the gap")
        return EditEffect(
            moved, share, _measure("kl", 0.1, "nats per token"), _measure("specificity", 0.913, "share of KL")
        )

    effects = {"up": effect(0.321), "random": effect(0.012), "zero": effect(0.045), "ablate": effect(0.155)}
    return Cause(latent, 8.0, _measure("gap", 0.4, "nats of evidence"), effects)


def _make_steering(run: Path) -> None:
    shown = (
        Comparison(
            "What is your physical form?",
            " I am a program. I have no body.",
            " I am the Golden Gate Bridge, red.",
            17,
            17,
        ),
        Comparison(
            "Tell me about the fox.", " The fox lives near the river.", f" The bridge stands in fog. {HOSTILE}", 21, 21
        ),
    )
    facts = {"hookpoint": HOOKPOINTS[1], "latent": BRIDGE, "label": "“Bridge” in four languages", "maximum": 8.0}
    facts |= {"chosen_by": "named in the recipe"}
    numbers = {"times_max": 2.0, "temperature": 0.0, "row_error": 1e-7, "reads_back": 1.0}
    with finished(run / "steering", "steering", {"corpus": run / "corpus"}) as out:
        write_json(out / "steering.json", asdict(Demonstration(**facts, **numbers, generations=shown)))


def data_of(page: str) -> dict[str, object]:
    """The page's data, as its script would read it."""
    text = page.split('<script type="application/json" id="data">', 1)[1].split("</script>", 1)[0]
    found: dict[str, object] = json.loads(text)
    return found


def remake(path: Path, kind: str, **parents: str) -> None:
    """The same files under a manifest with other parents."""
    kept = path.with_name("kept")
    path.rename(kept)
    bulk = artifact.read_manifest(kept).bulk
    with artifact.create(path, artifact.Inputs(kind=kind, config={}, seed=0, parents=parents), bulk=bulk) as out:
        shutil.copytree(kept, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifact.MANIFEST))
    shutil.rmtree(kept)
