"""Dictionaries written as folders that other libraries read, or as mohole's artifacts. A failure leaves no folder."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

from mohole import artifact
from mohole.dictionary import files
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.formats import circuit_tracer, dictionary_learning, saelens, sparsify
from mohole.dictionary.formats.imported import Imported
from mohole.dictionary.formats.known_batch import check_written, write_known_batch
from mohole.dictionary.formats.load import import_dictionary
from mohole.dictionary.transcoder import Transcoder
from mohole.errors import ArtifactError
from mohole.record import plain, read_json

Format = Literal["mohole", "saelens", "sparsify", "dictionary-learning", "circuit-tracer"]
WRITTEN: tuple[str, ...] = get_args(Format)


def export_dictionary(dictionary: AnyDictionary, folder: Path | str, to: Format) -> None:
    """Write a dictionary into a new folder, with a known batch beside it.

    Raises:
        ArtifactError: the folder is there already, or the library has no dictionary that computes the same.
    """
    if to == "mohole":
        _as_artifact(Imported(dictionary, "memory"), Path(folder), {}, {})
        return
    into_new_folder(Path(folder), lambda draft: write_as(dictionary, draft, to))


def convert(
    sources: Sequence[Path | str],
    target: Path,
    to: Format,
    *,
    hookpoint: str | None = None,
    allow_download: bool = False,
) -> list[Imported]:
    """Read dictionaries of any library and write them as one folder. Several only as a circuit-tracer set: one for each layer.

    Raises:
        ArtifactError: as `load_dictionary` and `export_dictionary`.
    """
    found = [import_dictionary(source, hookpoint=hookpoint, allow_download=allow_download) for source in sources]
    if len(found) == 1 and to == "mohole":
        _as_artifact(found[0], target, {"source": artifact.tree_digest(Path(sources[0]))}, remembered(Path(sources[0])))
    elif len(found) == 1:
        into_new_folder(target, lambda draft: write_as(found[0].dictionary, draft, to))
    else:
        transcoders = [item.dictionary for item in found if isinstance(item.dictionary, Transcoder)]
        if to != "circuit-tracer" or len(transcoders) != len(found):
            raise ArtifactError(
                f"{len(found)} sources: several go together only as transcoders, --to circuit-tracer; convert each alone"
            )
        into_new_folder(target, lambda draft: _write_set(transcoders, draft))
    return found


def write_as(dictionary: AnyDictionary, folder: Path, to: Format) -> None:
    """Write a format's files and the known batch into a folder that is there, and read them back.

    Raises:
        ArtifactError: the library has no dictionary that computes the same.
    """
    match to:
        case "mohole":
            files.save(dictionary, folder)
        case "saelens":
            saelens.write(dictionary, folder)
        case "sparsify":
            sparsify.write(dictionary, folder)
        case "dictionary-learning":
            dictionary_learning.write(dictionary, folder)
        case "circuit-tracer":
            circuit_tracer.write(dictionary, folder)
        case _:
            assert_never(to)
    write_known_batch(dictionary, folder)
    check_written(dictionary, import_dictionary(folder).dictionary, folder)


def _write_set(transcoders: Sequence[Transcoder], folder: Path) -> None:
    for transcoder, file in zip(transcoders, circuit_tracer.write_set(transcoders, folder), strict=True):
        check_written(transcoder, import_dictionary(file).dictionary, file)


def into_new_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder under another name, and give it its own when it is whole.

    Raises:
        ArtifactError: it is there already, or another process is making it.
    """
    _refuse_to_replace(folder)  # before anything is put beside it
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.partial"
    with artifact.lock(folder):
        _refuse_to_replace(folder)
        try:
            shutil.rmtree(draft, ignore_errors=True)  # left by a killed process: we hold the lock, so nobody is in it
            draft.mkdir()
            fill(draft)
            draft.rename(folder)
        except OSError as error:
            error.filename = error.filename or str(folder)  # a failed write does not say where
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _refuse_to_replace(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise ArtifactError(f"{folder}: already there; delete it or choose another folder")


def _as_artifact(found: Imported, target: Path, parents: dict[str, str], training: dict[str, Any]) -> None:
    inputs = artifact.Inputs(kind="dictionary", config={"imported": found.facts()}, seed=0, parents=parents)
    with artifact.create(target, inputs) as draft:
        fill(found, draft, training)


def fill(found: Imported, folder: Path, training: dict[str, Any]) -> None:
    """Write the files of mohole's own format and the known batch into a folder that is there, and read them back."""
    files.save(found.dictionary, folder, training=training | {"imported": found.facts()})
    write_known_batch(found.dictionary, folder)
    check_written(found.dictionary, files.read(folder), folder)


def remembered(source: Path) -> dict[str, Any]:
    """What mohole's own dictionaries remember of their making.

    Raises:
        ArtifactError: something that can be read and not written: half a letter, or tables in tables a thousand deep.
    """
    if not (source / files.FACTS_FILE).is_file():
        return {}
    training = read_json(source / files.FACTS_FILE).get("training", {})
    try:
        json.dumps(plain(training), ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise ArtifactError(
            f"{source / files.FACTS_FILE}: training: cannot be written again ({type(error).__name__}); take it out of there"
        ) from None
    return training if isinstance(training, dict) else {}
