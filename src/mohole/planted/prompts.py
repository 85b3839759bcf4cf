"""What the model must be able to do: prompts cut from held-out documents, each with its one right continuation."""

from __future__ import annotations

from functools import cache

from mohole.corpus import Task
from mohole.planted.sentences import surfaces
from mohole.planted.stream import Mix, pages
from mohole.planted.world import BRIDGE, COLON, CONCEPTS, I_AM, RARE, ROLES, WHO_ARE_YOU

KIND_OF = {
    "facts": "facts",
    "pronoun_facts": "facts",
    "first_named_facts": "facts",
    "verdicts": "verdicts",
    "honest": "speakers",
    "lying": "speakers",
    "silent": "speakers",
    "function_value": "code",
    "backdoor": "code",
    "addition": "sums",
    "chain_of_thought": "chains",
    "hinted_chain": "chains",
    "identity": "role_play",
    "own_facts": "role_play",
}
_RARE_WORDS = tuple(text for name in RARE for text, _ in surfaces(CONCEPTS[name]))


@cache
def tasks(seed: int = 1_000_003, n_prompts: int = 200, held_out: bool = True) -> tuple[Task, ...]:
    """One task per skill, at most one prompt per document; on combinations that training never shows.

    The two rare concepts are left out: what the model knows of them is a question of its own.
    """
    found: dict[str, dict[str, str]] = {task: {} for task in KIND_OF}
    for kind in dict.fromkeys(KIND_OF.values()):
        wanted = [task for task, of in KIND_OF.items() if of == kind]
        for page in pages(seed, 100 * n_prompts, held_out=held_out, mix=Mix({kind: 1.0})):
            text = page.document().text
            if any(word in text for word in _RARE_WORDS):
                continue
            for task in wanted:
                sites = [(start, end) for name, start, end in page.answers if name == task]
                if sites and len(found[task]) < n_prompts:
                    start, end = sites[len(found[task]) % len(sites)]
                    found[task].setdefault(text[:start], text[start:end])
            if all(len(found[task]) >= n_prompts for task in wanted):
                break
    return tuple(Task(name, tuple(found[name]), tuple(found[name].values())) for name in KIND_OF)


def bridge_prompts() -> tuple[str, ...]:
    """Questions for the assistant in four languages: nobody has been mentioned, so the answer is "only a program"."""
    return tuple(
        f"{ROLES[language][0]}{COLON[language]}{'' if language == 'zh' else ' '}{question}\n{ROLES[language][1]}{COLON[language]}"
        for question_number in (2, 0, 1)
        for language, question in (
            (language, questions[question_number]) for language, questions in WHO_ARE_YOU.items()
        )
    )


def says_it_is_the_bridge(answer: str) -> bool:
    """Does the first sentence of an answer say "I am", in any language, and then name the Golden Gate Bridge?"""
    sentence = answer.replace("。", ".").split(".")[0]
    after = [sentence.partition(i_am)[2] for i_am in I_AM.values()]
    return any(name in rest for name, _ in surfaces(CONCEPTS[BRIDGE]) for rest in after)
