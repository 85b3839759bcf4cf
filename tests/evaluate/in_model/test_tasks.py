"""Task accuracy is what generating the answers gives, clean and replaced; impossible tasks are refused by name."""

import pytest
import torch

from mohole import config
from mohole.corpus import Task
from mohole.dictionary import SparseAutoencoder
from mohole.errors import StageError
from mohole.evaluate.in_model.tasks import measure_tasks
from mohole.evaluate.standin import stand_in
from mohole.model import Edit, LanguageModel

HOOKPOINT = "resid_post.0"
D = 32


def continued(model: LanguageModel, prompt: str, n: int, edits: tuple[Edit, ...] = ()) -> str:
    tokens = model.generate(model.tokenizer.prompt(prompt), max_new_tokens=n, edits=edits)
    return model.tokenizer.decode(tokens[0, -n:])


def prompts(model: LanguageModel, n: int) -> list[str]:
    words = [model.tokenizer.piece(token).strip() for token in range(1, len(model.tokenizer))]
    chosen = torch.randint(len(words), (n, 4), generator=torch.Generator().manual_seed(0)).tolist()
    return [" ".join(words[word] for word in row[: 2 + i % 3]) for i, row in enumerate(chosen)]


@pytest.fixture(scope="module")
def lossy(identity: SparseAutoencoder) -> SparseAutoencoder:
    return SparseAutoencoder(
        HOOKPOINT, config.TopK(k=6), identity.W_enc, identity.b_enc, identity.W_dec, identity.b_dec
    )


def test_greedy_answers_are_right_and_a_wrong_last_token_is_wrong(
    model: LanguageModel, identity: SparseAutoencoder
) -> None:
    texts = [prompt for prompt in prompts(model, 12) if "<s>" not in continued(model, prompt, 2)]
    answers = [" " + continued(model, prompt, 2) for prompt in texts]
    wrong = [answer.rsplit(" ", 1)[0] + (" the" if not answer.endswith(" the") else " of") for answer in answers]
    tasks = [Task("right", tuple(texts), tuple(answers)), Task("wrong", tuple(texts), tuple(wrong))]
    right, false = measure_tasks(model, stand_in(identity), tasks, config.Evaluate(), has_bos=True)
    assert (right.n, right.clean, right.replaced, right.change) == (len(texts), 1.0, 1.0, 0.0)
    assert (false.clean, false.replaced) == (0.0, 0.0)
    assert right.clean_low < 1.0 == right.clean_high


def test_an_answer_that_begins_wrong_and_ends_right_is_wrong(model: LanguageModel, identity: SparseAutoencoder) -> None:
    """Its second token is the likeliest one after the wrong first: no single token may speak for the answer."""
    texts, answers = [], []
    for prompt in prompts(model, 12):
        first = " the" if continued(model, prompt, 1).strip() != "the" else " of"
        last = continued(model, prompt + first, 1).strip()
        if last != "<s>":
            texts.append(prompt)
            answers.append(f"{first} {last}")
    assert len(texts) > 6
    task = Task("half", tuple(texts), tuple(answers))
    tail = Task(
        "tail",
        tuple(p + a.rsplit(" ", 1)[0] for p, a in zip(texts, answers, strict=True)),
        tuple(" " + a.rsplit(" ", 1)[1] for a in answers),
    )
    half, last_alone = measure_tasks(model, stand_in(identity), [task, tail], config.Evaluate(), has_bos=True)
    assert (half.n, half.clean, half.replaced) == (len(texts), 0.0, 0.0)
    assert (last_alone.clean, last_alone.replaced) == (1.0, 1.0)


def test_replaced_answers_are_those_generated_with_the_reconstruction_in_place(
    model: LanguageModel, lossy: SparseAutoencoder
) -> None:
    def change(rows: torch.Tensor, first_position: int) -> torch.Tensor:
        flat = lossy.decode(lossy.encode(rows.reshape(-1, D))).reshape(rows.shape)
        return torch.cat([rows[:, :1], flat[:, 1:]], dim=1) if first_position == 0 else flat

    texts = prompts(model, 40)
    edit = (Edit(HOOKPOINT, change),)
    texts = [text for text in texts if "<s>" not in continued(model, text, 1) + continued(model, text, 1, edit)]
    answers = tuple(" " + continued(model, prompt, 1) for prompt in texts)
    same = sum(" " + continued(model, prompt, 1, edit) == answer for prompt, answer in zip(texts, answers, strict=True))
    (result,) = measure_tasks(
        model, stand_in(lossy), [Task("own", tuple(texts), answers)], config.Evaluate(), has_bos=True
    )
    assert result.clean == 1.0
    assert result.replaced == same / len(texts)
    assert 0 < same < len(texts)
    (small,) = measure_tasks(
        model, stand_in(lossy), [Task("own", tuple(texts), answers)], config.Evaluate(batch_tokens=1), has_bos=True
    )
    assert small == result


def test_only_the_first_prompts_are_asked(model: LanguageModel, identity: SparseAutoencoder) -> None:
    task = Task("many", ("the", "a", "of"), (" the", " a", " of"))
    (result,) = measure_tasks(model, stand_in(identity), [task], config.Evaluate(task_prompts=2), has_bos=True)
    assert result.n == 2


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("none", (), ()), "task none: 0 prompts and 0 answers"),
        (Task("odd", ("the", "a"), (" a",)), "task odd: 2 prompts and 1 answers"),
        (Task("mute", ("the",), ("",)), "task mute: .* has no answer"),
    ],
)
def test_a_task_that_cannot_be_asked_is_named(
    model: LanguageModel, identity: SparseAutoencoder, task: Task, message: str
) -> None:
    with pytest.raises(StageError, match=message):
        measure_tasks(model, stand_in(identity), [task], config.Evaluate(), has_bos=True)
