"""Sweeps of strengths: each number by another way, the same alone or among others, and the range that follows from them."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.act.test_clamp import CATALOGUE
from tests.act.test_interventions import A
from tests.act.tiny import HOOKPOINT, N_LATENTS, random_sae, tiny_model

from mohole import artifact
from mohole.act import (
    Ablate,
    Add,
    Bounds,
    Cap,
    Clamp,
    Concept,
    DoseResponse,
    Intervention,
    Latent,
    Named,
    Orthogonalise,
    Scale,
    Sources,
    StrengthWarning,
    Trial,
    Where,
    at_strength,
    latents_of,
    make_plan,
    measure_dose,
    read_dose,
    steer,
    steer_rows,
    write_dose,
)
from mohole.act.usable import Swept, longest_run, read_swept
from mohole.corpus import Task
from mohole.errors import ArtifactError, ConfigError
from mohole.metrics import Masks, Measure
from mohole.report.dose import dose_text, write_dose_page

CLAMP = Clamp(5, times_max=1.0, hookpoint=HOOKPOINT)
SOURCES = Sources({HOOKPOINT: random_sae()}, {HOOKPOINT: CATALOGUE.maximum})
STRENGTHS = (0.0, 1.0, 6.0)


def words(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


def likeliest(prompt: str) -> str:
    """The tiny model's own next word."""
    token = int(tiny_model().logits(tiny_model().tokenizer.prompt(prompt))[0, -1].argmax())
    return f" {tiny_model().tokenizer.piece(token).strip()}"


def trial() -> Trial:
    draw = torch.Generator().manual_seed(4)
    texts = tuple(
        torch.cat([torch.tensor([[1]]), torch.randint(3, 96, (1, n), generator=draw)], dim=1) for n in (9, 4, 12)
    )
    asked = tuple(words(i, i + 1) for i in range(4))
    tasks = (Task("own", asked, tuple(map(likeliest, asked))), Task("other", asked[:3], (f" {words(7)}",) * 3))
    return Trial((words(1, 2, 3), words(9), words(4, 5)), texts, tasks, n_samples=2, max_new_tokens=8, batch_rows=7)


CONCEPT = Concept((Latent(5),), frozenset(range(3, 40)), "made up")


def swept(interventions: tuple[Intervention, ...] = (CLAMP,), **more: object) -> DoseResponse:
    options = {"strengths": STRENGTHS, "of": "5", "unit": "times its maximum"} | more
    given_trial = options.pop("trial", trial())
    concept = options.pop("concept", CONCEPT)
    return measure_dose(tiny_model(), SOURCES, interventions, concept, given_trial, **options)


@pytest.fixture(scope="module")
def dose() -> DoseResponse:
    return swept()


def values(point) -> dict[str, tuple[float | None, ...]]:
    return {name: (each.value, each.low, each.high, each.n) for name, each in point.measures.items()}


def test_a_strength_is_the_same_alone_and_among_others_and_in_batches_of_any_size(dose: DoseResponse) -> None:
    for other in (swept(strengths=(6.0,)), swept(trial=replace(trial(), batch_rows=200))):
        assert other.points[-1].texts == dose.points[-1].texts
        for point, same in ((dose.unsteered, other.unsteered), (dose.points[-1], other.points[-1])):
            for name, found in values(point).items():
                assert values(same)[name] == pytest.approx(found, rel=1e-4, abs=1e-6), name
            assert same.tasks == point.tasks


def test_each_number_is_what_one_text_after_another_gives(dose: DoseResponse) -> None:
    """Written alone, read alone, in float64, by the dictionary's own encode."""
    model, given_trial = tiny_model(), trial()
    steered = steer(model, [replace(CLAMP, times_max=6.0)], sources=SOURCES)
    nats, active, said, item = [], [], [], 0
    for prompt in given_trial.prompts:
        for _ in range(given_trial.n_samples):
            asked = model.tokenizer.prompt(prompt)
            whole = steered.generate(asked, max_new_tokens=8, temperature=1.0, seed=[item], stop_tokens=[2]).tokens
            own = whole[0, asked.shape[1] :].tolist()
            own = own[: own.index(2)] if 2 in own else own
            tokens = torch.cat([asked, torch.tensor([own], dtype=torch.int64)], dim=1)
            first = asked.shape[1]
            odds = torch.log_softmax(model.logits(tokens)[0].double(), -1)
            nats += [-float(odds[place - 1, tokens[0, place]]) for place in range(first, tokens.shape[1])]
            rows = model.read(tokens, [HOOKPOINT])[HOOKPOINT][0]
            active += (random_sae().encode(rows).column(5)[first:] != 0).tolist()
            said += own
            item += 1
    found = dose.points[-1].measures
    assert found["perplexity"].value == pytest.approx(np.exp(np.mean(nats)), rel=1e-4)
    assert found["perplexity"].n == found["active"].n == len(nats)
    assert found["active"].value == pytest.approx(np.mean(active))
    assert 0.0 < np.mean(active) < 1.0
    assert found["active"].n_documents == 3  # samples of one prompt are not independent: prompts are resampled
    assert found["words"].value == pytest.approx(np.mean([token in CONCEPT.words for token in said]))
    assert dose.points[-1].texts[0].split() == [
        f"w{token - 3}" for token in said[: len(dose.points[-1].texts[0].split())]
    ]


def test_kl_is_of_the_second_half_of_other_text(dose: DoseResponse) -> None:
    model, total, n = tiny_model(), 0.0, 0
    steered = steer(model, [replace(CLAMP, times_max=6.0)], sources=SOURCES)
    for text in trial().texts:
        length = text.shape[1]
        first = (length + 1) // 2
        p, q = (
            torch.log_softmax(each[0, first - 1 : length - 1].double(), -1)
            for each in (model.logits(text), steered.logits(text))
        )
        total, n = total + float((p.exp() * (p - q)).sum()), n + length - first
    found = dose.points[-1].measures["kl"]
    assert (found.value, found.n) == (pytest.approx(total / n, rel=1e-4), n)
    assert dose.unsteered.measures["kl"].value == 0.0


def test_the_first_half_of_other_text_is_no_response() -> None:
    model, total, n = tiny_model(), 0.0, 0
    held = replace(CLAMP, where=Where("response"))
    steered = steer(model, [replace(held, times_max=6.0)], sources=SOURCES)
    for text in trial().texts:
        first = (text.shape[1] + 1) // 2
        logits = (model.logits(text), steered.logits(text, n_prompt=[first]))
        p, q = (torch.log_softmax(each[0, first - 1 : -1].double(), -1) for each in logits)
        total, n = total + float((p.exp() * (p - q)).sum()), n + len(p)
    found = swept((held,), strengths=(6.0,), trial=replace(trial(), tasks=())).points[-1].measures["kl"]
    assert (found.value, found.n) == (pytest.approx(total / n, rel=1e-4), n)


def test_a_task_is_right_where_the_answer_is_the_likeliest(dose: DoseResponse) -> None:
    model, right = tiny_model(), []
    for task in trial().tasks:
        for prompt, answer in zip(task.prompts, task.answers, strict=True):
            tokens = model.tokenizer.prompt(prompt + answer)
            right.append(int(model.logits(tokens)[0, -2].argmax()) == int(tokens[0, -1]))
    found = dose.unsteered.measures["tasks"]
    assert (found.value, found.n) == (np.mean(right), 7)
    assert sum(right) >= 4
    assert dose.unsteered.tasks[0].value == 1.0
    assert found.low < found.value < found.high
    assert dose.points[-1].measures["tasks"].value < found.value


def test_only_the_answer_is_the_response() -> None:
    """What acts at prompts alone moves no prediction of an answer's later tokens but through the prompt; at responses alone, none
    of the first: a one-token answer is chosen from the prompt's last row."""
    at_response = swept((replace(CLAMP, where=Where("response")),), strengths=(50.0,))
    assert at_response.points[0].tasks == at_response.unsteered.tasks
    assert at_response.points[0].measures["kl"].value > 0.0


def test_an_addition_at_strength_0_is_the_unsteered_model() -> None:
    found = swept((Add(A, value=3.0),), strengths=(0.0,), concept=Concept((), CONCEPT.words, "made up"))
    assert found.points[0].texts == found.unsteered.texts
    # Equal rows of one batch differ in their last bit on some processors.
    for name, own in values(found.points[0]).items():
        assert values(found.unsteered)[name] == pytest.approx(own, rel=1e-6), name
    assert "active" not in found.unsteered.measures
    assert found.effect == "words"


# strengths ------------------------------------------------------------------------------------------------

STRONG: tuple[Intervention, ...] = (
    Clamp(5, value=3.0), Clamp(5, times_max=-2.0), Add(Latent(5), value=2.0), Add(A, times_norm=0.5), Scale(5, 4.0), Ablate(5),
)  # fmt: skip


@pytest.mark.parametrize("each", STRONG, ids=lambda each: each.kind)
def test_at_1_times_its_strength_it_does_what_it_says(each: Intervention) -> None:
    model = tiny_model()
    tokens = model.tokenizer.prompt(words(*range(8)))
    plans = [make_plan(model, what, SOURCES) for what in ([each], at_strength([each], 1.0))]
    alone, scaled = (steer_rows(model, [plan]).logits(tokens) for plan in plans)
    assert torch.equal(alone, scaled)
    nothing = at_strength([each], 0.0)
    if not isinstance(each, Clamp):
        assert torch.equal(steer_rows(model, [make_plan(model, nothing, SOURCES)]).logits(tokens), model.logits(tokens))


@pytest.mark.parametrize("each", [*STRONG[:5]], ids=lambda each: each.kind)
@given(times=st.sampled_from([-2.0, 0.5, 1.0, 4.0]), more=st.sampled_from([-1.0, 0.25, 2.0]))
def test_strengths_multiply(each: Intervention, times: float, more: float) -> None:
    assert at_strength(at_strength([each], times), more) == at_strength([each], times * more)


@pytest.mark.parametrize("each", [Cap(Latent(5), high=1.0), Orthogonalise(A)], ids=lambda each: each.kind)
def test_what_has_no_strength_is_not_swept(each: Intervention) -> None:
    with pytest.raises(ConfigError, match=f"{each.kind}: has no strength to sweep"):
        at_strength([each], 2.0)


def test_the_latents_that_are_acted_on() -> None:
    given_list = [
        Clamp(1, value=1.0),
        Add(Named("calm"), value=1.0),
        Add(Latent(2), value=1.0),
        Ablate(1),
        Cap(Latent(3), high=1.0),
    ]
    assert latents_of(given_list) == (Latent(1), Latent(2))


# the range ------------------------------------------------------------------------------------------------


def measure(value: float | None, low: float | None = None, high: float | None = None) -> Measure:
    return Measure(
        name="x", value=value, unit="", low=value if low is None else low, high=value if high is None else high, n=1, n_of="",
        n_documents=2, masks=Masks(), baseline="", definition="",
    )  # fmt: skip


UNSTEERED = {
    "active": measure(0.1, 0.05, 0.15),
    "perplexity": measure(4.0),
    "repeated": measure(0.3),
    "kl": measure(0.0),
    "tasks": measure(0.9),
}
GOOD = {
    "active": measure(0.2, 0.16, 0.3),
    "perplexity": measure(11.9),
    "repeated": measure(0.49),
    "kl": measure(0.49),
    "tasks": measure(0.66),
}


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, ()),
        ({"active": measure(0.5, 0.14, 0.9)}, ("no clear effect",)),
        ({"active": measure(None)}, ("no clear effect",)),
        ({"perplexity": measure(12.1)}, ("perplexity",)),
        ({"repeated": measure(0.51)}, ("repetition",)),
        ({"kl": measure(0.51)}, ("KL",)),
        ({"tasks": measure(0.64)}, ("tasks",)),
        ({"kl": measure(9.0), "tasks": measure(0.0)}, ("KL", "tasks")),
        ({"perplexity": measure(None), "repeated": measure(None)}, ()),
    ],
)  # fmt: skip
def test_what_of_the_rule_does_not_hold(changed: dict[str, Measure], broken: tuple[str, ...]) -> None:
    assert Bounds().broken(GOOD | changed, UNSTEERED, "active") == broken
    without = {name: each for name, each in (GOOD | changed).items() if name != "tasks"}
    assert Bounds().broken(without, UNSTEERED, "active") == tuple(each for each in broken if each != "tasks")


@given(holds=st.lists(st.booleans(), min_size=1, max_size=9))
def test_the_longest_run_is_the_first_of_the_longest(holds: list[bool]) -> None:
    """Against every stretch, tried one by one."""
    strengths = [0.5 * place for place in range(len(holds))]
    runs = [
        (last - first, -first)
        for first in range(len(holds))
        for last in range(first, len(holds))
        if all(holds[first : last + 1])
    ]
    found = longest_run(strengths, holds)
    if not runs:
        assert found is None
    else:
        length, first = max(runs)
        assert found == (strengths[-first], strengths[-first + length])


def usable(low: float | None, high: float | None):
    return replace(SWEPT.usable, low=low, high=high)


SWEPT = swept(strengths=(1.0,), trial=replace(trial(), tasks=()))


def test_a_strength_outside_of_the_range_is_warned_of_and_one_inside_is_not() -> None:
    sources = replace(SOURCES, swept=(Swept((CLAMP,), usable(2.0, 4.0)),))

    def said(clamp: Clamp) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            steer(tiny_model(), [clamp], sources=sources)
        assert all(each.category is StrengthWarning for each in caught)
        return [str(each.message) for each in caught]

    assert said(replace(CLAMP, times_max=2.0)) == said(replace(CLAMP, times_max=4.0)) == []
    assert said(replace(CLAMP, times_max=1.9)) == [
        f"latent 5 at {HOOKPOINT}: 1.9 times its maximum is below its usable range, 2 to 4"
    ]
    assert "above" in said(replace(CLAMP, times_max=4.1))[0]
    assert "above" in said(Clamp(5, value=5.0 * 4.1))[0]  # the latent reaches 5
    assert said(Clamp(5, value=5.0 * 3.0)) == []
    assert said(replace(CLAMP, times_max=9.0, where=Where("response"))) == []  # nobody has swept that
    assert said(replace(CLAMP, latent=6, times_max=9.0)) == []
    none = replace(SOURCES, swept=(Swept((CLAMP,), usable(None, None)),))
    assert none.objections([CLAMP]) == (f"latent 5 at {HOOKPOINT}: no strength of the 1 that were tried is usable",)


# files ----------------------------------------------------------------------------------------------------


def test_a_sweep_is_read_as_it_was_written_and_damage_is_found(dose: DoseResponse, tmp_path) -> None:
    with artifact.create(tmp_path / "dose", artifact.Inputs(kind="dose", config={}, seed=0)) as out:
        write_dose(out, dose)
        write_dose_page(out / "dose.html", dose)
    assert read_dose(tmp_path / "dose") == dose
    page = (tmp_path / "dose" / "dose.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert "<script" not in page
    assert page.count("<figure>") == 6
    (tmp_path / "dose" / "dose.json").write_text("{}")
    with pytest.raises(ArtifactError, match="2 bytes"):
        read_dose(tmp_path / "dose")


def test_a_sweep_of_a_dictionary_that_was_made_again_says_nothing_and_a_damaged_one_is_named(
    dose: DoseResponse, tmp_path
) -> None:
    place, here = f"{HOOKPOINT}/dictionary", tmp_path / "doses" / "x"
    inputs = artifact.Inputs(kind="dose", config={}, seed=0, parents={place: "then", "corpus": "any"})
    with artifact.create(here, inputs) as out:
        write_dose(out, dose)
    (found,) = read_swept(tmp_path, {place: "then"})
    assert (found.interventions, found.usable) == ((CLAMP,), dose.usable)
    assert read_swept(tmp_path, {place: "now"}) == ()
    whole = (here / "usable.json").read_bytes()
    (here / "usable.json").write_bytes(whole.replace(b'"kind": "clamp"', b'"kind": "scale"'))
    with pytest.raises(ArtifactError, match=r"usable\.json: damaged"):
        read_swept(tmp_path, {place: "then"})


def test_texts_that_look_like_markup_are_text(dose: DoseResponse, tmp_path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J\u202e"
    hostile = replace(
        dose,
        label=evil,
        prompts=(evil,) * 3,
        words=(evil,),
        points=tuple(replace(each, texts=(evil,) * 6) for each in dose.points),
    )
    write_dose_page(tmp_path / "dose.html", hostile)
    page = (tmp_path / "dose.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert dose_text(hostile)


def test_the_table_is_whole_in_a_terminal_of_80_letters(dose: DoseResponse) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(dose_text(dose))
    assert "…" not in screen.getvalue().split("Usable:")[0]
    for point in dose.points:
        assert f"{point.strength:g}×" in screen.getvalue()


def test_the_widest_verdict_is_whole_too_and_where_nothing_is_usable_it_says_what_to_try(dose: DoseResponse) -> None:
    """As the demo's latent at 8 times its maximum."""
    wide = {"active": measure(0.932, 0.912, 0.951), "perplexity": measure(14_441.0), "tasks": measure(0.997)}
    broken = ("perplexity", "repetition", "KL", "tasks")
    points = tuple(replace(each, measures=each.measures | wide, broken=broken) for each in dose.points)
    unsteered = replace(dose.unsteered, measures=dose.unsteered.measures | wide)
    none = replace(dose, unsteered=unsteered, points=points, usable=replace(dose.usable, low=None, high=None))

    def printed(shown: DoseResponse) -> str:
        screen = io.StringIO()
        Console(file=screen, width=80).print(dose_text(shown))
        return screen.getvalue()

    said = printed(none)
    table = said.split("\n", 4)[4].split("No strength")[0]
    assert table.count("perplexity,") == table.count("repetition, KL,") == table.count("tasks   ") == len(points)
    assert "answers alone may cost less of other tasks: --where response" in " ".join(said.split())
    at_answers = tuple(each | {"where": {"part": "response"}} for each in dose.interventions)
    assert "--where response" not in printed(replace(none, interventions=at_answers))
    assert "--where response" not in printed(replace(none, usable=replace(dose.usable, low=1.0, high=2.0)))


@pytest.mark.parametrize(
    ("what", "words_"),
    [
        (lambda: swept(strengths=()), "one at least"),
        (lambda: swept(strengths=(1.0, float("nan"))), "finite"),
        (lambda: replace(trial(), prompts=()), "a prompt is needed"),
        (lambda: replace(trial(), texts=(torch.tensor([[1, 2]]),)), "three tokens"),
        (lambda: replace(trial(), n_samples=0), "1 at least"),
        (lambda: Concept((), frozenset(), "nothing"), "--word TEXT"),
        (lambda: swept((replace(CLAMP, latent=N_LATENTS),)), "latents 0 to 39"),
    ],
)  # fmt: skip
def test_sweeps_that_cannot_be_meant(what, words_: str) -> None:
    with pytest.raises(ConfigError, match=words_):
        what()
