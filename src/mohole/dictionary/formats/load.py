"""Open a dictionary of any library: a folder, a file, or a repository on the Hugging Face hub."""

import re
from dataclasses import replace
from pathlib import Path

from mohole import artifact
from mohole.dictionary.files import FACTS_FILE, WEIGHTS_FILE, AnyDictionary, open_dictionary, read, tensors_of
from mohole.dictionary.foreign import AGAIN
from mohole.dictionary.formats.imported import Imported
from mohole.dictionary.formats.known_batch import FILE, check_known_batch
from mohole.dictionary.formats.recognise import recognise
from mohole.dictionary.laws import fits_float32, is_text
from mohole.dictionary.normalised import NormalisedAutoencoder, at
from mohole.dictionary.sae import SparseAutoencoder
from mohole.errors import ArtifactError, ConfigError
from mohole.progress import tell
from mohole.visible import visible

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w.=+-]+)*")


def load_dictionary(place: Path | str, *, hookpoint: str | None = None, allow_download: bool = False) -> AnyDictionary:
    """The dictionary at a place, in mohole's classes and the model's own units, whoever made it.

    Args:
        place: a folder or file of mohole's, SAELens, sparsify, dictionary_learning, circuit-tracer, Gemma Scope, Llama Scope,
            llamascopium, OpenAI, Goodfire or Qwen Scope; or a hub id, `user/name` or `user/name/folder/in/it`.
        hookpoint: where a sparse autoencoder belongs, where its files do not say, or in other words than mohole's.
        allow_download: fetch from the hub what is not in the local cache. The network is not used without it.

    What the files leave open, and what was taken instead, is told on standard error.

    Raises:
        ArtifactError: nothing there, damaged, hostile, or something that mohole has no dictionary for; it says which and why.
    """
    found = import_dictionary(place, hookpoint=hookpoint, allow_download=allow_download)
    for note in found.notes:
        tell(visible(f"{place}: note: {note}"))
    return found.dictionary


def import_dictionary(place: Path | str, *, hookpoint: str | None = None, allow_download: bool = False) -> Imported:
    """As `load_dictionary`, with the format, what has been folded into the weights, and notes on what the files leave open."""
    path = Path(place)
    if not path.exists():
        path = _from_hub(str(place), allow_download)
    found = _open(path)
    if path.is_dir():  # beside a file that was named, it may be another's
        check_known_batch(found.dictionary, path)
    return found if hookpoint is None else replace(found, dictionary=_named(found.dictionary, hookpoint))


def _open(path: Path) -> Imported:
    if (path / artifact.MANIFEST).is_file():
        return Imported(open_dictionary(path), "mohole")
    if (path / FACTS_FILE).is_file() and (path / WEIGHTS_FILE).is_file():
        if not (path / FILE).is_file():  # from the hub it comes without a manifest, and is proved by its known batch
            open_dictionary(path)  # says that it is not finished
        return Imported(read(path), "mohole")
    library = recognise(path)
    try:
        found: Imported = library.read(path)
    except ValueError as error:  # what a dictionary's class asks, where its reader has not
        raise ArtifactError(f"{path}: {error}; {AGAIN}") from None
    _refuse_overflow(found.dictionary, path)
    return found


def _refuse_overflow(dictionary: AnyDictionary, path: Path) -> None:
    """Each number of the file was finite; what scales and lengths have made of them in float32 may not be.

    Raises:
        ArtifactError: a tensor holds NaN or infinity.
    """
    for name, tensor in tensors_of(dictionary).items():
        if not fits_float32(tensor):
            raise ArtifactError(
                f"{path}: {name} comes to NaN or infinity once scales and lengths are in it: one of them, or a weight, is too "
                f"large or too small; {AGAIN}"
            )


def _named(dictionary: AnyDictionary, hookpoint: str) -> AnyDictionary:
    if not is_text(hookpoint):
        raise ConfigError(f"hookpoint={hookpoint!r}: half a letter, which no file can hold; write it in UTF-8")
    if not isinstance(dictionary, SparseAutoencoder | NormalisedAutoencoder):
        raise ConfigError(f"hookpoint={hookpoint!r}: only a sparse autoencoder has one; leave it out")
    return at(dictionary, hookpoint)


def _from_hub(place: str, allow_download: bool) -> Path:
    """The local copy of a repository, or of a folder or file in it.

    Raises:
        ArtifactError: no hub id either, or not in the cache and not to be fetched, or not on the hub.
    """
    if not _HUB_ID.fullmatch(place) or ".." in place.split("/"):
        raise ArtifactError(
            f"{place}: no artifact there, no file, and no hub id (user/name, user/name/folder); check the spelling"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    user, name, *inner = place.split("/")
    try:
        wanted = _wanted(f"{user}/{name}", "/".join(inner)) if allow_download else None
        root = Path(snapshot_download(f"{user}/{name}", allow_patterns=wanted, local_files_only=not allow_download))
    except LocalEntryNotFoundError:
        hint = "it could not be reached" if allow_download else "allow_download=True fetches it (--allow-download)"
        raise ArtifactError(f"{place}: no such folder, and not in the local Hugging Face cache; {hint}") from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ArtifactError(
            f"{place}: the hub does not give it ({str(error).splitlines()[0]}); check the name, or log in"
        ) from None
    path = root.joinpath(*inner)
    if not path.exists():
        raise ArtifactError(f"{place}: the repository is here, {'/'.join(inner)} in it is not; check the spelling")
    return path


def _wanted(repository: str, inner: str) -> list[str]:
    """Which files to fetch: those of the folder that is named, else those at the top, for a repository may hold thousands."""
    if inner:
        return [f"{inner}/*", inner]
    from huggingface_hub import HfApi

    return [file for file in HfApi().list_repo_files(repository) if "/" not in file or file.startswith("checkpoints/")]
