"""Text: documents into tokens with a global index, windows to run, and truth about tokens where there is any. No model.

The token index is the address of everything: a row of activations, an example, a truth mark all name a token by its
place in the corpus. A document never touches another: it is cut into windows, and every window is run alone.
"""

from mohole.corpus.build import Tokenizer, build_corpus
from mohole.corpus.corpus import Corpus
from mohole.corpus.documents import Document, Span, Task
from mohole.corpus.sample import first_twins, keyed_order, within_budget
from mohole.corpus.sources import read_documents
from mohole.corpus.windows import Windows, batches

__all__ = [
    "Corpus",
    "Document",
    "Span",
    "Task",
    "Tokenizer",
    "Windows",
    "batches",
    "build_corpus",
    "first_twins",
    "keyed_order",
    "read_documents",
    "within_budget",
]
