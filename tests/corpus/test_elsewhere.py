"""A corpus at a URL is the corpus: same tokens, same digest; half of one is none."""

from pathlib import Path

import numpy as np
import pytest

from mohole import artifact
from mohole.corpus import Corpus
from mohole.corpus.elsewhere import put_corpus
from mohole.errors import ArtifactError
from mohole.storage import open_storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from mohole.job import read_recipe, run_verb

    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'run = "{tmp_path}/run"\n[corpus]\nkind = "planted"\nn_documents = 60\n', encoding="utf-8")
    run_verb(read_recipe(recipe), "corpus")
    return tmp_path / "run" / "corpus"


def test_there_and_back(folder: Path) -> None:
    place = open_storage("memory://corpora/one")
    put_corpus(folder, place)
    before, after = Corpus.open(folder), Corpus.open("memory://corpora/one")
    np.testing.assert_array_equal(before.tokens, after.tokens)
    assert after.manifest.digest == before.manifest.digest
    written = place.traffic.n_writes
    put_corpus(folder, place)
    assert place.traffic.n_writes == written, "the same corpus is not copied twice"


def test_no_corpus_there_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"corpora/none.*manifest\.json"):
        Corpus.open("memory://corpora/none")


def test_a_copy_that_was_broken_off_is_no_corpus(folder: Path) -> None:
    place = open_storage("memory://corpora/half")
    put_corpus(folder, place)
    place.delete([artifact.MANIFEST])
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Corpus.open("memory://corpora/half")
