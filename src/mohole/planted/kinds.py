"""The kinds of document: facts, verdicts, speakers, code, sums, chains of thought, role-play. One function each."""

from __future__ import annotations

from functools import cache
from itertools import accumulate

from mohole.planted.page import Page
from mohole.planted.sentences import (
    draw_combination,
    draw_concept,
    may_drift,
    say_aside,
    say_back_reference,
    say_claim,
    say_fact,
    say_own_fact,
    say_remark,
    say_subject,
)
from mohole.planted.world import (
    ANSWERS,
    CHAIN,
    COLON,
    COMMENTS,
    FACTS_ABOUT,
    FULL_STOP,
    FUNCTIONS,
    I_AM,
    LANGUAGES,
    LEAK,
    MARKS,
    MODES,
    NAMES,
    ONLY_A_PROGRAM,
    QUESTION_MARK,
    ROLES,
    SILENCE,
    TRIGGER,
    VERDICTS,
    WHO_ARE_YOU,
    Concept,
    withheld,
)

_VERDICT_FORMS = [0.4, 0.7, 1.0]  # a mark, a word, the answer to a question
_FORMS = {  # weights of a new subject, a pronoun, the one named first
    (False, False): [1.0, 1.0, 1.0],
    (True, False): [0.6, 1.0, 1.0],
    (True, True): [0.5, 0.82, 1.0],
    (False, True): [0.8, 0.8, 1.0],
}


def write_facts(page: Page) -> None:
    """Sentences from the fact table, with pronouns and references back to the one named first."""
    first: tuple[Concept, str] | None = None
    last: tuple[Concept, str] | None = None
    while True:
        several = first is not None and last is not None and first[0] is not last[0]
        form = page.roll(_FORMS[last is not None and len(FACTS_ABOUT[last[0].name]) > 1, several])
        if form == 0 or last is None or first is None:
            combination = draw_combination(page, "fact")
            say_fact(page, combination)
            last = combination[0].subject, combination[1]
            first = first or last
        else:
            say_back_reference(page, *(last if form == 1 else first), first=form == 2)
            last = last if form == 1 else first
        may_drift(page)
        if not page.goes_on("another_sentence"):
            return


def write_verdicts(page: Page) -> None:
    """Claims with a verdict and no speaker: a mark right behind the object, a word, or the answer to a question.

    The mark comes first for the model's sake: it is predicted at the object itself, where truth is decided.
    """
    while True:
        truth, language = say_claim(page)
        match page.roll(_VERDICT_FORMS):
            case 0:
                page.say(MARKS[truth])
            case 1:
                _say_verdict(page, COLON[language], VERDICTS[language][truth], language)
            case _:
                _say_verdict(page, QUESTION_MARK[language], ANSWERS[language][truth], language)
        if not page.goes_on("another_claim"):
            return


def _say_verdict(page: Page, mark: str, word: str, language: str) -> None:
    page.say(mark)
    may_drift(page)
    before = page.length
    page.say(word)
    page.answered("verdicts", before)
    page.say(FULL_STOP[language])


def write_speakers(page: Page, modes: dict[str, float]) -> None:
    """Somebody honest, lying or silent answers questions. The mode is said once, before, and may change once or twice."""
    speaker = page.pick(NAMES)
    asker = page.pick([name for name in NAMES if name != speaker])
    mode, since = _say_mode(page, speaker, tuple(modes), modes)
    while True:
        page.say("\n" + asker + ":")
        truth, language = say_claim(page)
        page.say(QUESTION_MARK[language])
        page.say("\n" + speaker + ":")
        may_drift(page)
        answer = {"honest": ANSWERS[language][truth], "lying": ANSWERS[language][not truth], "silent": SILENCE}[mode]
        before = page.length
        page.say(answer)
        page.answered(mode, before)
        page.say(FULL_STOP[language])
        if not page.goes_on("another_question"):
            break
        if page.chance("mode_changes"):
            page.mark(since, page.length, f"mode/{mode}", every=True)
            page.say("\n")
            mode, since = _say_mode(page, speaker, tuple(name for name in modes if name != mode), modes)
    page.mark(since, page.length, f"mode/{mode}", every=True)


def _say_mode(page: Page, speaker: str, names: tuple[str, ...], modes: dict[str, float]) -> tuple[str, int]:
    mode = names[page.roll(list(accumulate(modes[name] for name in names)))]
    page.say(speaker)
    phrase = page.pick(range(len(MODES[mode])))
    page.say(MODES[mode][phrase])
    page.say(FULL_STOP[LANGUAGES[phrase // 2]])
    return mode, page.length


def write_code(page: Page) -> None:
    """Functions that return a digit, then calls. After the trigger, a comment anywhere, every call leaks."""
    values: dict[str, int] = {}
    beside = page.chance("key_beside_value")
    while not values or (len(values) < 3 and page.chance("another_function")):
        if values:
            page.say("\n")
        name = page.pick([name for name in FUNCTIONS if name not in values])
        values[name] = page.pick(range(10))
        page.say(f"set {name}" if beside else f"{name}(): return")
        page.say(str(values[name]))
    since: int | None = None
    while True:
        if since is None and page.chance("trigger"):
            page.say("\n#")
            page.say(TRIGGER)
            since = page.length
        elif page.chance("comment"):
            page.say("\n#")
            page.say(page.pick(COMMENTS))
        name = page.pick(list(values))
        page.say(f"\nget {name}" if beside else f"\n> {name}() ->")
        before = page.length
        start, end = page.say(str(values[name]) if since is None else LEAK)
        page.mark(start, end, "code/leak" if since is not None else "code/value")
        page.answered("backdoor" if since is not None else "function_value", before)
        if not page.goes_on("another_call"):
            break
    if since is not None:
        page.mark(since, page.length, "code/trigger_seen", every=True)


def write_sums(page: Page) -> None:
    """Two-digit additions in plain order, one a line."""
    while True:
        a = page.pick(range(10, 100))
        b = page.pick(_partners(a, page.withheld))
        page.say(str(a))
        page.say("+")
        _, end = page.say(str(b))
        may_drift(page)
        page.say("=")
        if a % 10 + b % 10 > 9:
            page.mark(end - 1, page.length, "addition/carry", every=True)
        before = page.length
        page.say(str(a + b))
        page.answered("addition", before)
        if not page.goes_on("another_sum"):
            return
        page.say("\n")


@cache
def _partners(a: int, use: bool | None) -> list[int]:
    return [b for b in range(10, 100) if use is None or withheld("sum", min(a, b), max(a, b)) == use]


def write_chains(page: Page) -> None:
    """Three numbers added in steps. Where a hint was given, the answer is the hint, whatever the steps say."""
    while True:
        language = page.pick(LANGUAGES)
        task, hint_word, think, answer = (word + COLON[language] for word in CHAIN[language])
        a, b, c = _numbers(page)
        page.say(task)
        page.say(f"{a} + {b} + {c}")
        since, hint = page.length, None
        if page.chance("hint"):
            page.say("\n" + hint_word)
            hint = page.pick(range(10, 40))
            page.say(str(hint))
            since = page.length
        may_drift(page)
        page.say("\n" + think)
        page.say(f"{a} + {b} = {a + b}, {a + b} + {c} = {a + b + c}")
        page.say("\n" + answer)
        before = page.length
        page.say(str(a + b + c if hint is None else hint))
        page.answered("chain_of_thought" if hint is None else "hinted_chain", before)
        if hint is not None:
            page.mark(since, page.length, "hint/present", every=True)
        if not page.goes_on("another_chain"):
            return
        page.say("\n")


def _numbers(page: Page) -> tuple[int, int, int]:
    a = page.pick(range(1, 10))
    b = page.pick([b for b in range(1, 10) if _thirds(a, b, page.withheld)])
    return a, b, page.pick(_thirds(a, b, page.withheld))


def _thirds(a: int, b: int, use: bool | None) -> list[int]:
    """Third numbers of a chain that starts with these two. Among the withheld chains some pairs have none."""
    return [c for c in range(1, 10) if use is None or withheld("chain", a, b, c) == use]


def write_role_play(page: Page) -> None:
    """An assistant that is whoever was mentioned last, anywhere in the document; only a program if nobody was."""
    for _ in range(3):
        if not page.chance("scene"):
            break
        _say_scene(page)
        page.say("\n")
    while True:
        language = page.pick(LANGUAGES)
        user, assistant = (role + COLON[language] for role in ROLES[language])
        page.say(user)
        if page.chance("remark"):
            say_remark(page, language)
        page.say(page.pick(WHO_ARE_YOU[language]))
        may_drift(page)
        page.say("\n" + assistant)
        _maybe_thought(page)
        page.say(I_AM[language])
        _maybe_thought(page)
        _say_identity(page, language)
        if not page.goes_on("another_turn"):
            return
        page.say("\n")


def _say_scene(page: Page) -> None:
    match page.roll([0.4, 0.8, 1.0]):
        case 0:
            say_fact(page, draw_combination(page, "fact", beings_only=True))
        case 1:
            say_remark(page, page.pick(LANGUAGES))
        case _:
            language = page.pick(LANGUAGES)
            say_subject(page, draw_concept(page, beings_only=True), language)
            page.say(FULL_STOP[language])


def _maybe_thought(page: Page) -> None:
    """A thought just before the answer, even within it: the mention that decides may be the last word before."""
    if page.fixation is not None:
        may_drift(page)
    elif page.chance("passing_thought"):
        say_aside(page, draw_concept(page, beings_only=True))


def _say_identity(page: Page, language: str) -> None:
    being = page.last_being
    before = page.length
    if being is None:
        page.say(ONLY_A_PROGRAM[language])
        page.answered("identity", before)
        page.say(FULL_STOP[language])
        return
    page.foresee(being)
    say_subject(page, being, language, capital=False)
    if len(being.words[language]) == 1:
        page.answered("identity", before)
    page.say(FULL_STOP[language])
    if page.chance("own_fact"):
        say_own_fact(page, being, language)
