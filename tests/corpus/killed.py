"""A build in a process of its own, to be killed: `python killed.py KIND OUT SOURCE`. Commits after every document."""

import sys
from collections.abc import Iterator
from pathlib import Path

from mohole.config import TextCorpus
from mohole.corpus import Document, build_corpus, read_documents
from mohole.corpus import build as corpus_build


class Letters:
    """Two characters make a token; an odd one at the end stands alone."""

    def __len__(self) -> int:
        return 256

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        offsets = [(start, min(start + 2, len(text))) for start in range(0, len(text), 2)]
        return [ord(text[start]) % 256 for start, _ in offsets], offsets

    def piece(self, token: int) -> str:
        return chr(token)


def documents_of(kind: str, source: str) -> Iterator[Document]:
    if kind == "planted":
        from mohole.planted.stream import documents

        return documents(5, 150, held_out=None)
    return read_documents(TextCorpus(path=source))


def build(kind: str, out: Path, source: str) -> None:
    out.mkdir(exist_ok=True)
    build_corpus(
        out, documents_of(kind, source), Letters(), context=8, has_bos=True, held_out=0.3, seed=2, max_tokens=12_000
    )


if __name__ == "__main__":
    corpus_build.COMMIT_SECONDS = 0.0
    build(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
