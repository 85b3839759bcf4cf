"""What a corpus of one's own is made from: its content, not the place it lies in, nor how it may be fetched."""

from pathlib import Path
from typing import Any

from mohole.config import parse
from mohole.job import plan


def corpus_inputs(corpus: dict[str, Any]) -> str:
    whole = plan(parse({"run": "nowhere", "corpus": corpus}))
    return whole.inputs(whole.stages[0]).digest()


def test_a_text_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text('{"text": "one"}\n', encoding="utf-8")
    made = [corpus_inputs({"kind": "text", "path": str(tmp_path / folder / "x.jsonl")}) for folder in ("a", "b")]
    assert made[0] == made[1]
    (tmp_path / "b" / "x.jsonl").write_text('{"text": "two"}\n', encoding="utf-8")
    assert made[0] != corpus_inputs({"kind": "text", "path": str(tmp_path / "b" / "x.jsonl")})
    assert made[0] != corpus_inputs({"kind": "text", "path": str(tmp_path / "a" / "x.jsonl"), "field": "story"})


def test_a_dataset_is_its_content_whether_the_hub_may_be_asked_or_not(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n', encoding="utf-8")
    corpus: dict[str, Any] = {"kind": "dataset", "name": str(tmp_path)}
    made = corpus_inputs(corpus)
    assert made == corpus_inputs({**corpus, "allow_download": True})
    assert made != corpus_inputs({**corpus, "split": "test"})
    (tmp_path / "train.jsonl").write_text('{"text": "two"}\n', encoding="utf-8")
    assert made != corpus_inputs(corpus)


def test_a_commit_of_the_hub_needs_no_question() -> None:
    corpus = {"kind": "dataset", "name": "nobody/nothing", "revision": "0" * 40}
    assert corpus_inputs(corpus) != corpus_inputs({**corpus, "revision": "1" * 40})
