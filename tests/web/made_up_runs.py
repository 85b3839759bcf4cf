"""Made-up runs for the app's tests, in the shapes of serve/shapes.py: every number follows from the latent, nothing is stored.

Two runs: "demo" (1,024 latents at two hookpoints) and "million" (a million at one). Texts are in several scripts, and as hostile
as strangers' texts are.
"""

import hashlib
import itertools
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np

from mohole.serve import shapes
from mohole.serve.tiles import Tiles, tile_columns

SIZES = {("demo", "resid_post.1"): 1024, ("demo", "resid_post.2"): 1024, ("million", "resid_post.11"): 1_000_000}
HOSTILE = "<script>document.title='owned'</script>"
HOSTILE_LATENT, DEAD_LATENT = 7, 13
SENTENCES = (
    "The Golden Gate Bridge opened in 1937 and spans the strait between San Francisco and Marin County .",
    "金门 大桥 横跨 旧金山 湾 , 于 1937 年 通车 。",
    "افتتح جسر البوابة الذهبية عام 1937 ويربط سان فرانسيسكو بمقاطعة مارين .",
    "ゴールデン ゲート ブリッジ は 、 1937 年 に 開通 した 吊り橋 です 。",
    "Мост Золотые Ворота был открыт в 1937 году через пролив .",
    "def add ( a : int , b : int ) -> int : \n \t return a + b",
    "36 + 59 = 95 , 17 + 28 = 45 , and 60 + 40 = 100 .",
    "She said she had never seen the letter , but her hands were shaking .",
    f"<b>bold</b> {HOSTILE} &amp; <img src=x onerror=alert(1)> \u202e dlrow \u202c "
    "\x1b[31m \x00 <0xE2> <0x82> <0xAC> café 🏳️‍🌈 नमस्ते",
)
NOUNS = (
    "bridges",
    "San Francisco",
    "two-digit sums",
    "the end of a sentence",
    "closing brackets",
    "Arabic place names",
    "金门大桥",
    "לשון עברית",
    "Python type hints",
    "someone who hides what they know",
    "years of the 1930s",
    "suspension cables",
    "numbers that carry",
    "coastal fog",
    "polite refusals",
    "French articles",
    "chemical formulas",
    "dates",
    "the second word of a name",
    "legal boilerplate",
)
MANNERS = ("", "mentions of ", "words before ", "after ", "in headings: ", "quoted ", "lists of ", "translations of ")
STATUSES: tuple[Literal["good", "partial", "none", "few"], ...] = ("good", "good", "partial", "good", "none", "few")


class Columns:
    """What lists, filters and the map need of every latent."""

    def __init__(self, n: int) -> None:
        random = np.random.default_rng(n)
        latents = np.arange(n)
        n_families = max(12, min(900, n // 40))
        self.family = random.zipf(1.35, n).astype(np.int64) % n_families
        angle, distance = random.uniform(0, 2 * np.pi, n_families), np.sqrt(random.uniform(0, 1, n_families)) * 10
        spread = random.gamma(2.0, 0.16, n_families) + 0.08
        centre = np.stack([distance * np.cos(angle) * 1.35, distance * np.sin(angle)])
        around = random.standard_normal((2, n)) * spread[self.family] * (1 + 0.8 * random.standard_exponential(n))
        x, y = centre[:, self.family] + around
        loose = random.uniform(size=n) < 0.18
        self.x = np.where(loose, random.normal(0, 7, n), x).astype("<f4")
        self.y = np.where(loose, random.normal(0, 5, n), y).astype("<f4")
        self.family[loose] = -1
        self.dead = (random.uniform(size=n) < 0.02) | (latents == DEAD_LATENT)
        self.dead[HOSTILE_LATENT] = False
        log_density = np.clip(random.normal(-3.2, 0.7, n) + 0.4 * np.sin(self.x), -6, -0.3)
        self.density = np.where(self.dead, 0.0, 10**log_density)
        self.maximum = np.where(self.dead, 0.0, random.gamma(6, 1.4, n))
        self.status = random.integers(0, len(STATUSES), n)
        self.f1 = np.where((self.status < 4) & ~self.dead, random.beta(5, 2, n), np.nan)
        self.word = (self.family + 1 + random.integers(0, 3, n)) % (len(NOUNS) * len(MANNERS))

    def map_bytes(self) -> bytes:
        with np.errstate(divide="ignore"):
            density = np.log10(self.density).astype("<f4")
        return b"".join(
            column.tobytes() for column in (self.x, self.y, density, self.f1.astype("<f4"), self.family.astype("<i4"))
        )

    @cached_property
    def tiles(self) -> Tiles:
        xy = np.stack([self.x, self.y], axis=1)
        return Tiles(tile_columns(xy, self.density, self.f1, self.family))


@cache
def columns(n: int) -> Columns:
    return Columns(n)


def words_of(word: int) -> str:
    return MANNERS[word // len(NOUNS)] + NOUNS[word % len(NOUNS)]


def label_of(at: Columns, latent: int) -> str:
    if latent == HOSTILE_LATENT:
        return f"{HOSTILE} \u202elabel\u202c"
    return "never fires" if at.dead[latent] else words_of(int(at.word[latent]))


def line(at: Columns, latent: int, written: dict[int, str]) -> shapes.FeatureLine:
    f1, family = float(at.f1[latent]), int(at.family[latent])
    status = "person" if latent in written else "dead" if at.dead[latent] else STATUSES[at.status[latent]]
    return shapes.FeatureLine(
        latent=latent,
        label=written.get(latent) or label_of(at, latent),
        status=status,
        f1=None if np.isnan(f1) or latent in written else f1,
        count=int(at.density[latent] * 2_000_000),
        density=float(at.density[latent]),
        maximum=float(at.maximum[latent]),
        family=None if family < 0 else family,
    )


def number(*key: object) -> float:
    """A fixed number in [0, 1) for any key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=6).digest()) / 2**48


def tokens_of(text: str) -> tuple[str, ...]:
    parts = text.split(" ")
    return tuple(part if i == 0 or part.startswith("<0x") else " " + part for i, part in enumerate(parts))


def firing(latent: int, tokens: tuple[str, ...], maximum: float) -> tuple[float, ...]:
    """It likes some words, whichever text they stand in."""
    return tuple(
        round(maximum * number(token, latent), 4) if number(latent, token, "on") < 0.16 else 0.0 for token in tokens
    )


def example(at: Columns, latent: int, seed: int, strength: float, *, around: int = 0) -> shapes.ExampleFacts:
    own = SENTENCES[-1] if latent == HOSTILE_LATENT else SENTENCES[int(number(latent, seed, "text") * len(SENTENCES))]
    before, after = SENTENCES[seed % len(SENTENCES)], SENTENCES[(seed + 3) % len(SENTENCES)]
    text = " ".join(itertools.chain([before] * around, [own], [after] * around))
    tokens = tokens_of(text)
    place = len(tokens_of(before)) * around + int(number(latent, seed, "place") * len(tokens_of(own)))
    activations = [value * strength for value in firing(latent, tokens, float(at.maximum[latent]))]
    activations[place] = float(at.maximum[latent]) * strength
    return shapes.ExampleFacts(
        document=seed * 17 + latent % 90,
        token=seed * 1000 + latent % 977,
        at=place,
        tokens=tokens,
        activations=tuple(activations),
        begins_document=around > 1 or seed % 4 == 0,
        ends_document=around > 1,
    )


def feature(run: str, hookpoint: str, at: Columns, latent: int, written: dict[int, str]) -> shapes.FeatureFacts:
    facts, n = line(at, latent, written), len(at.x)
    alive = not at.dead[latent]
    maximum = facts.maximum
    edges = tuple(maximum * i / 24 for i in range(25))
    counts = tuple(int(facts.count * 0.3 * np.exp(-i / 5) * (0.6 + 0.8 * number(latent, i))) for i in range(24))
    others = [int(number(latent, i, "near") * n) for i in range(12)]
    members = np.flatnonzero(at.family == at.family[latent])[:50] if facts.family is not None else []
    near_words = [token for text in SENTENCES for token in tokens_of(text)]
    pieces = [
        shapes.Piece(token=near_words[int(number(latent, i) * len(near_words))], logit=4.2 - i * 0.31)
        for i in range(10)
    ]
    intervals = tuple(
        shapes.IntervalFacts(
            low=maximum * i / 5,
            high=maximum * (i + 1) / 5,
            count=sum(counts[i * 5 : i * 5 + 5]),
            examples=tuple(example(at, latent, 10 * i + j, (i + 0.6) / 5) for j in range(4 if i < 4 else 0)),
        )
        for i in range(5)
    )
    return shapes.FeatureFacts(
        latent=latent,
        hookpoint=hookpoint,
        label=shapes.LabelFacts.model_validate(
            {
                "text": facts.label,
                "status": facts.status,
                "kind": "" if latent in written else "token set",
                "f1": facts.f1,
                "precision": None if facts.f1 is None else min(1.0, facts.f1 + 0.08),
                "recall": None if facts.f1 is None else facts.f1 - 0.05,
                "n_positive": None if facts.f1 is None else facts.count // 5,
                "n_scored": None if facts.f1 is None else 400_000,
            }
        ),
        count=facts.count,
        n_tokens=2_000_000,
        density=facts.density,
        maximum=maximum,
        mean=maximum * 0.31,
        is_dead=not alive,
        histogram=shapes.HistogramFacts(edges=edges, counts=counts) if alive else None,
        top=tuple(example(at, latent, 50 + j, 1 - j * 0.03) for j in range(8)) if alive else (),
        intervals=intervals if alive else (),
        promoted=tuple(pieces) if alive else (),
        suppressed=tuple(piece.model_copy(update={"logit": -piece.logit}) for piece in pieces[::-1]) if alive else (),
        neighbours=tuple(
            shapes.Neighbour(latent=o, label=label_of(at, o), cosine=0.83 - 0.06 * i) for i, o in enumerate(others)
        ),
        together=tuple(
            shapes.Together(latent=o, label=label_of(at, o), n_together=900 - 70 * i, phi=0.6 - 0.05 * i)
            for i, o in enumerate(others[::-1])
        )
        if alive
        else (),
        family=shapes.FamilyFacts(
            family=facts.family,
            size=int((at.family == facts.family).sum()),
            members=tuple(line(at, int(m), written) for m in members),
        )
        if facts.family is not None
        else None,
    )


def matches(run: str, hookpoint: str, latent: int) -> tuple[shapes.DictionaryMatches, ...]:
    """In every other dictionary but the million, which is too large; the third match of each is no better than chance."""
    near = [(latent * 7 + i) % 1024 for i in (1, 2, 3)]
    return tuple(
        shapes.DictionaryMatches(
            run=other_run,
            hookpoint=other,
            n_latents=n,
            is_same_model=other_run == run,
            chance=None if n > 1024 else 0.3,
            matches=()
            if n > 1024
            else tuple(
                shapes.Match(latent=o, label=label_of(columns(n), o), cosine=cosine, correlation=correlation)
                for o, cosine, correlation in zip(near, (0.91, 0.42, 0.28), (0.88, 0.05, None), strict=True)
            ),
            left_out="768,000,000 numbers of directions are too many to be read for one feature" if n > 1024 else None,
        )
        for (other_run, other), n in SIZES.items()
        if (other_run, other) != (run, hookpoint)
    )


def effect(at: Columns, latent: int, token: int) -> shapes.EffectFacts:
    """Of the example about this token: every other token behind it is foretold better with the feature, the others worse."""
    shown = example(at, latent, token // 1000, 0.9)
    start = token - shown.at
    changes = [
        None if i == 0 else 0.0 if i <= shown.at else (0.37 if (i - shown.at) % 2 else -0.06)
        for i in range(len(shown.tokens))
    ]
    pieces = (" Gate", "<0xE2>", " 大桥", " الذهبية", "\n", " <b>")
    raised = tuple(
        shapes.LogitChangeFacts(token=piece, logit=3.1 - 0.4 * i, probability=0.31 / (i + 1), probability_without=0.02)
        for i, piece in enumerate(pieces)
    )
    lowered = tuple(each.model_copy(update={"logit": -each.logit, "probability": 0.001}) for each in raised[::-1])
    return shapes.EffectFacts(
        document=shown.document,
        token=token,
        start=start,
        tokens=shown.tokens,
        activations=shown.activations,
        loss=tuple(None if change is None else 1.2 for change in changes),
        loss_change=tuple(changes),
        loss_change_random=tuple(None if change is None else change / 20 for change in changes),
        promoted=raised,
        suppressed=lowered,
        n_removed=len(shown.tokens),
    )


def passing(at: Columns, written: dict[int, str], query: dict[str, str]) -> np.ndarray[Any, Any]:
    which = query.get("which", "alive")
    keep = np.ones(len(at.x), bool) if which == "all" else at.dead if which == "dead" else ~at.dead
    if q := query.get("q", "").lower():
        vocabulary = np.array([q in words_of(word).lower() for word in range(len(NOUNS) * len(MANNERS))])
        found = vocabulary[at.word]
        found[HOSTILE_LATENT] = q in label_of(at, HOSTILE_LATENT).lower()
        for latent, text in written.items():
            found[latent] = q in text.lower()
        keep = keep & found
    if status := query.get("status"):
        keep = keep & (np.isin(np.array(STATUSES)[at.status], [status]))
    if "family" in query:
        keep = keep & (at.family == int(query["family"]))
    for name, column, sign in (
        ("least_density", at.density, 1),
        ("most_density", at.density, -1),
        ("least_f1", at.f1, 1),
    ):
        if name in query:
            keep = keep & (sign * column >= sign * float(query[name]))
    found = np.flatnonzero(keep)
    sort = query.get("sort", "latent")
    key = {"density": at.density, "maximum": at.maximum, "f1": np.nan_to_num(at.f1, nan=-1), "label": at.word}.get(sort)
    if key is not None:
        found = found[np.argsort(key[found], kind="stable")]
    return found[::-1] if query.get("descending") == "true" else found


def facts_of(run: str) -> shapes.RunFacts:
    hookpoints = tuple(
        shapes.HookpointFacts(
            hookpoint=h,
            n_latents=n,
            n_dead=int(columns(n).dead.sum()),
            n_labelled=int((columns(n).status < 4).sum()),
            n_tokens=2_000_000,
            n_documents=9_000,
            n_counted_together=300_000,
            firing_share=0.3,
        )
        for (r, h), n in SIZES.items()
        if r == run
    )
    return shapes.RunFacts(
        run=run, model="planted" if run == "demo" else "gpt2", hookpoints=hookpoints, can_xray=run == "demo"
    )


def run_page(run: str) -> shapes.RunPage:
    steps = tuple(range(0, 3000, 25))
    facts = facts_of(run)
    curves = {
        h.hookpoint: tuple(
            shapes.Curve(
                name=name,
                steps=steps,
                values=tuple(float(scale * (0.02 + np.exp(-s / 260)) * (1 + 0.1 * number(s, name))) for s in steps),
            )
            for name, scale in (("fvu", 0.6), ("loss", 1.4), ("dead", 0.2), ("l0", 32.0))
        )
        for h in facts.hookpoints
    }
    measures = {
        h.hookpoint: tuple(
            shapes.MeasureFacts(
                name=name,
                value=value,
                unit=unit,
                low=low,
                high=high,
                n=52_479,
                baseline=baseline,
                definition=f"how {name} is reckoned",
            )
            for name, value, unit, low, high, baseline in (
                ("fvu", 0.0213, "share of variance", 0.0209, 0.0218, "the mean row over all counted rows"),
                ("l0", 16.0, "latents per row", 16.0, 16.0, ""),
                ("ce_recovered", 0.994, "share of the ablation's damage", 0.991, 0.996, "mean ablation"),
                ("ce_increase", 0.0041, "nats per token", -0.0003, 0.0092, "the model untouched"),
                ("dead", 13.0, "latents", None, None, ""),
                ("probing", None, "accuracy", None, None, "logistic regression on the row"),
            )
        )
        for h in facts.hookpoints
    }
    parents: dict[str, dict[str, str]] = {"corpus": {}, "activations": {"corpus": "b2c" * 8}}
    for h in facts.hookpoints:
        parents |= {
            f"{h.hookpoint}/dictionary": {"activations": "a11" * 8},
            f"{h.hookpoint}/catalogue": {"dictionary": "d1c" * 8},
        }
    artifacts = tuple(
        shapes.ArtifactFacts(
            name=name,
            kind=name.split("/")[-1],
            digest=hashlib.sha256(name.encode()).hexdigest(),
            code="0.6.0+15ce95f",
            seed=0,
            parents=of,
            config={"k": 16, "d_latent": 1024, "optim": {"lr": 3e-4}},
        )
        for name, of in parents.items()
    )
    costs = (
        ("corpus", 3.1, 1.7),
        ("harvest", 41.0, 21.4),
        ("train", 180.2, 92.0),
        ("evaluate", 22.0, 12.4),
        ("catalogue", 31.9, 17.0),
        ("label", 8.2, 4.4),
    )
    return shapes.RunPage(run=facts, curves=curves, measures=measures, costs=costs, artifacts=artifacts)


def xray(at: Columns, hookpoint: str, ask: shapes.XrayAsk) -> shapes.Xray:
    tokens = ("<bos>", *tokens_of(ask.text))
    n = len(at.x)

    def strongest(token: str) -> tuple[shapes.XrayFeature, ...]:
        latents = {int(number(token, i, "fires") * n) for i in range(ask.top)}
        found = [
            shapes.XrayFeature(
                latent=i,
                label=label_of(at, i),
                activation=float(at.maximum[i]) * (share := 0.2 + 0.8 * number(token, i)),
                of_maximum=share if at.maximum[i] else None,
            )
            for i in latents
        ]
        return tuple(sorted(found, key=lambda f: -f.activation))

    rows = tuple(
        shapes.XrayToken(token=token, features=() if token == "<bos>" else strongest(token)) for token in tokens
    )
    best: dict[int, shapes.XrayFeature] = {}
    for f in (f for row in rows for f in row.features):
        if (f.of_maximum or 0) > ((best[f.latent].of_maximum or 0) if f.latent in best else 0):
            best[f.latent] = f
    along = None
    if ask.latent is not None:
        own = {
            i: next((f.activation for f in row.features if f.latent == ask.latent), 0.0) for i, row in enumerate(rows)
        }
        likes = firing(ask.latent, tokens, float(at.maximum[ask.latent]))
        along = tuple(0.0 if i == 0 else own[i] or likes[i] for i in range(len(tokens)))
    top = sorted(best.values(), key=lambda f: -(f.of_maximum or 0))[:12]
    return shapes.Xray(hookpoint=hookpoint, tokens=rows, strongest=tuple(top), along=along)
