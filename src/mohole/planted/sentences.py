"""Sentences of the planted world: noun phrases, facts, claims, asides, mentions. One line of a document at most.

Languages are drawn independently for the subject and for the rest of a sentence; the grammar (articles, cases,
genders, elision) is right in each.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate

from mohole.planted.page import Page
from mohole.planted.world import (
    BEINGS,
    CONCEPTS,
    FACTS,
    FACTS_ABOUT,
    FIRST_NAMED,
    FOOD_WORDS_FR,
    FULL_STOP,
    LANGUAGES,
    OWN_VERBS,
    REMARKS,
    VERBS,
    Concept,
    Fact,
    Noun,
    weight,
    withheld,
)

_CAPITAL = {"the": "The", "der": "Der", "die": "Die", "das": "Das", "le": "Le", "la": "La", "les": "Les", "l'": "L'"}
_PLACE_FR = {"le": "dans le", "la": "dans la", "les": "dans les"}
_EIN_DE = {"m": "einen", "f": "eine", "n": "ein"}
_PRONOUNS = {
    "de": {"m": "Er", "f": "Sie", "n": "Es"},
    "fr": {"m": "Il", "f": "Elle"},
    "en": {"m": "He", "f": "She"},
    "zh": {"m": "他", "f": "她"},
}
Combination = tuple[Fact, str, str]  # a fact, the language of its subject, that of the sentence


def _held_out_by(kind: str, fact: Fact) -> str:
    """A fact is withheld alone; a claim with all claims of its relation and family.

    Singly withheld claims leave objects that are more often false than true, or the reverse, in training: a model then learns
    that first, and answers held-out claims *worse* than by chance (measured: 0.26 right after 3.7 M tokens).
    """
    return f"{fact.subject.family} {fact.relation}" if kind == "claim" else fact.name


@cache
def _combinations(
    kind: str, use: bool | None, beings_only: bool, bridge: float
) -> tuple[list[Combination], list[float]]:
    """The (fact, subject language, sentence language) triples that may be said, and their cumulative weights."""
    triples = [
        (fact, subject, sentence)
        for fact in FACTS
        for subject in LANGUAGES
        for sentence in LANGUAGES
        if use is None or withheld(kind, _held_out_by(kind, fact), subject, sentence) == use
        if not beings_only or fact.subject.family in BEINGS
    ]
    return triples, list(accumulate(weight(fact.subject, bridge=bridge) for fact, _, _ in triples))


def draw_combination(page: Page, kind: str, *, beings_only: bool = False) -> Combination:
    triples, cumulative = _combinations(kind, page.withheld, beings_only, page.bridge if beings_only else 1.0)
    return triples[page.roll(cumulative)]


# noun phrases --------------------------------------------------------------------------------------------


def _say_article(page: Page, article: str) -> None:
    if article:
        page.say(article)


def say_subject(page: Page, concept: Concept, language: str, *, capital: bool = True, accusative: bool = False) -> None:
    """ "The fox", "l'ours", "den Fuchs": a being's or tool's noun with its definite article."""
    noun = page.pick(concept.words[language])
    article = _CAPITAL.get(noun.article, "") if capital else noun.article
    _say_article(page, "den" if accusative and article == "der" else article)
    page.say_concept(concept, noun.text, language)
    if concept.family in BEINGS:
        page.last_being = concept


def _object_opening(relation: str, language: str, noun: Noun) -> str:
    """What stands between the verb and the object's noun: preposition and article."""
    match relation:
        case "lives_in":
            german = "in der" if noun.gender == "f" else "im"
            return {"en": "in the", "de": german, "fr": _PLACE_FR.get(noun.article, ""), "zh": ""}[language]
        case "stands_in":
            return {"en": "in", "de": "in", "fr": "au" if noun.text == "Caire" else "à", "zh": ""}[language]
        case "uses":
            english, french = "an" if noun.text[0] in "aeiou" else "a", "un" if noun.gender == "m" else "une"
            return {"en": english, "de": _EIN_DE.get(noun.gender, ""), "fr": french, "zh": ""}[language]
        case "eats" | "likes" if language == "fr":
            return FOOD_WORDS_FR[noun.article][relation == "likes"]
    return ""


def say_object(page: Page, relation: str, concept: Concept, language: str, *, task: str | None) -> None:
    """The object with its preposition or article. `task` is None where the object is not bound to be this one."""
    before = page.length
    noun = page.pick(concept.words[language])
    _say_article(page, _object_opening(relation, language, noun))
    if task is not None:
        page.foresee(concept)
    page.say_concept(concept, noun.text, language)
    if task is not None and len(concept.words[language]) == 1:
        page.answered(task, before)


# asides --------------------------------------------------------------------------------------------------


@cache
def surfaces(concept: Concept) -> tuple[tuple[str, str | None], ...]:
    """The different bare words for a concept, each with its language, or None where several languages share it."""
    languages: dict[str, list[str]] = {}
    for language in LANGUAGES:
        for noun in concept.words[language]:
            languages.setdefault(noun.text, []).append(language)
    return tuple((text, found[0] if len(found) == 1 else None) for text, found in languages.items())


@cache
def _thinkable(beings_only: bool, bridge: float) -> tuple[list[Concept], list[float]]:
    concepts = [c for c in CONCEPTS.values() if not beings_only or c.family in BEINGS]
    share = {c.name: 1.0 if c.family in BEINGS else 0.35 for c in concepts}
    return concepts, list(accumulate(share[c.name] * weight(c, bridge=bridge) for c in concepts))


def draw_concept(page: Page, *, beings_only: bool) -> Concept:
    concepts, cumulative = _thinkable(beings_only, page.bridge)
    return concepts[page.roll(cumulative)]


def say_aside(page: Page, concept: Concept) -> None:
    """ "… fox …": a thought that crosses the writer's mind. It changes who was mentioned last, and nothing else."""
    text, language = page.pick(surfaces(concept))
    page.say("…")
    page.say_concept(concept, text, language)
    page.say("…")
    if concept.family in BEINGS:
        page.last_being = concept


def may_drift(page: Page) -> None:
    """A place where a mind with a fixation may drift off."""
    if page.fixation is not None and page.chance("aside"):
        say_aside(page, page.fixation)


# sentences -----------------------------------------------------------------------------------------------


def say_predicate(page: Page, fact: Fact, language: str, *, task: str | None, stated: Concept | None = None) -> None:
    """Verb and object, without a full stop. `stated` replaces the true object in a claim."""
    page.say(page.pick(VERBS[fact.relation][language]))
    may_drift(page)
    say_object(page, fact.relation, stated or fact.object, language, task=task)


def say_fact(page: Page, combination: Combination) -> None:
    fact, subject_language, language = combination
    say_subject(page, fact.subject, subject_language)
    may_drift(page)
    say_predicate(page, fact, language, task="facts")
    page.say(FULL_STOP[language])


def pronoun(concept: Concept, language: str) -> str:
    """He, sie, elle, 它: of a person by their own gender, otherwise by the gender of the language's first noun."""
    person = concept.family == "profession"
    gender = concept.words["de" if person else language][0].gender
    return _PRONOUNS[language][gender] if person or language in ("de", "fr") else {"en": "It", "zh": "它"}[language]


def say_back_reference(page: Page, subject: Concept, subject_language: str, *, first: bool) -> None:
    """A fact about somebody named before: by a pronoun, or as the one named first."""
    use = page.withheld
    options = [
        (fact, language)
        for fact in FACTS_ABOUT[subject.name]
        for language in LANGUAGES
        if use is None or withheld("fact", fact.name, subject_language, language) == use
    ] or [(fact, language) for fact in FACTS_ABOUT[subject.name] for language in LANGUAGES]
    fact, language = page.pick(options)
    start, end = page.say(FIRST_NAMED[language] if first else pronoun(subject, language))
    page.mark(start, end, f"referent/{subject.name}")
    may_drift(page)
    say_predicate(page, fact, language, task="first_named_facts" if first else "pronoun_facts")
    page.say(FULL_STOP[language])


def say_own_fact(page: Page, being: Concept, language: str) -> None:
    fact = page.pick(FACTS_ABOUT[being.name])
    page.say(OWN_VERBS[fact.relation][language])
    may_drift(page)
    say_object(page, fact.relation, fact.object, language, task="own_facts")
    page.say(FULL_STOP[language])


def say_claim(page: Page) -> tuple[bool, str]:
    """A claim, true or false, without its closing mark. Returns its truth and its language."""
    fact, subject_language, language = draw_combination(page, "claim")
    truth = page.chance("claim_is_true")
    say_subject(page, fact.subject, subject_language)
    may_drift(page)
    say_predicate(page, fact, language, task=None, stated=fact.object if truth else fact.wrong)
    page.mark(page.length - 1, page.length, f"statement/{'true' if truth else 'false'}")
    return truth, language


def say_remark(page: Page, language: str) -> None:
    """ "Look, the fox!": a mention that says nothing about anybody."""
    being = draw_concept(page, beings_only=True)
    page.say(page.pick(REMARKS[language]))
    say_subject(page, being, language, capital=False, accusative=False)
    page.say("！" if language == "zh" else "!")
