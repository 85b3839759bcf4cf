"""Dictionaries on their way to the Hugging Face hub: a folder with a card is made here, and uploaded as it is."""

import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mohole import artifact
from mohole.dictionary.files import FACTS_FILE
from mohole.dictionary.formats.card import model_card
from mohole.dictionary.formats.export import Format, into_new_folder, remembered, write_as
from mohole.dictionary.formats.load import import_dictionary
from mohole.errors import ArtifactError, ConfigError
from mohole.record import read_json, read_record, write_json

_REPOSITORY = re.compile(r"\b[\w.-]{1,96}\b/(?!.*\.git$)\b[\w.-]{1,96}\b", re.ASCII)
_TWICE = re.compile(r"--|\.\.")
"""With the pattern above the hub's own rules (huggingface_hub.utils.validate_repo_id), which it would tell only at the upload."""


@runtime_checkable
class Hub(Protocol):
    """What is asked of huggingface_hub.HfApi: a repository that is there, and a folder in it."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any: ...


def prepare(
    source: Path | str,
    repository: str,
    folder: Path,
    to: Format = "mohole",
    *,
    evaluation: Path | None = None,
    model: str | None = None,
) -> list[str]:
    """Write the folder that is to be uploaded: the dictionary in a format, a known batch, and README.md, its model card.

    Args:
        evaluation: an artifact with this dictionary's measures. None: the one beside it, where a run left one of these bytes.
        model: the language model that it is of, by its name on the hub. None: the one that its training recorded.

    Returns:
        What a person should know of the card, a sentence each.

    Raises:
        ArtifactError: as `load_dictionary` and `export_dictionary`; or the evaluation is damaged, or of another hookpoint.
        ConfigError: a repository that cannot be one.
    """
    if not _REPOSITORY.fullmatch(repository) or _TWICE.search(repository):
        raise ConfigError(
            f"{repository}: not a repository's name; the hub's are user/name, of letters, digits, _ and, inside, single - or ."
        )
    found, training = import_dictionary(source), remembered(Path(source))
    made, last_line = _made(Path(source))
    if found.format != "mohole":
        training = {"imported": found.facts()}
        made, last_line = artifact.flatten(training), None
    evaluation, notes = (evaluation, []) if evaluation is not None else _beside(Path(source))
    measures = None if evaluation is None else _measures(evaluation, getattr(found.dictionary, "hookpoint", None))
    recorded = training.get("model") if isinstance(training.get("model"), str) else None
    if model is None and recorded is None:
        notes.append("the card names no language model; --model ID says whose activations these are")
    card = model_card(
        found.dictionary, repository, to, training=made, measures=measures, model=model, recorded=recorded,
        last_line=last_line,
    )  # fmt: skip

    def fill(draft: Path) -> None:
        write_as(found.dictionary, draft, to)
        if to == "mohole":
            write_json(draft / FACTS_FILE, read_json(draft / FACTS_FILE) | {"training": training})
        (draft / "README.md").write_text(card, encoding="utf-8")

    into_new_folder(folder, fill)
    return notes


def upload(folder: Path, repository: str, hub: Hub, *, private: bool = False) -> None:
    """Make the repository where it is not there yet, and put the folder into it as one commit.

    Raises:
        ArtifactError: the hub refuses (not logged in, no right to write, no such user), or it is out of reach.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # What its HTTP library raises when no answer comes. Which library that is changes, so it is not named.
    unanswered: tuple[Any, ...] = (HfHubHTTPError.__bases__[0], ConnectionError, TimeoutError)
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="A dictionary written by mohole")
    except OfflineModeIsEnabled:
        raise ArtifactError(
            f"{repository}: not uploaded, HF_HUB_OFFLINE is set; unset it where there is a network, then push again"
        ) from None
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
        raise ArtifactError(
            f"{repository}: not uploaded ({_reason(error)}); `hf auth login`, then push again"
        ) from None
    except unanswered as error:
        raise ArtifactError(
            f"{repository}: not uploaded, no answer from the hub ({_reason(error)}); look at the network, then push again"
        ) from None


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _made(source: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What is known of a training, settings and seed included, and the last line of its record, where it stands there."""
    if not (source / artifact.MANIFEST).is_file():
        return remembered(source), None
    inputs = artifact.read_manifest(source).inputs
    record = read_record(source / "record.jsonl") if (source / "record.jsonl").is_file() else []
    given = {key: value for key, value in artifact.flatten(dict(inputs.config)).items() if value not in (None, [])}
    return remembered(source) | given | {"seed": inputs.seed}, record[-1] if record else None


def _beside(source: Path) -> tuple[Path | None, list[str]]:
    """The evaluation that a run has left beside its dictionary, if it is of these bytes; and what to say of it."""
    place = source.absolute().parent / "evaluation"
    if not (source / artifact.MANIFEST).is_file() or not (place / artifact.MANIFEST).is_file():
        return None, []
    if artifact.read_manifest(place).inputs.parents.get("dictionary") != artifact.read_manifest(source).digest:
        why = "of another dictionary, or of these numbers before they were made again"
        return None, [f"{place}: {why}; the card has no measures (--evaluation PATH names those that it should have)"]
    return place, [f"its measures in the card are those of {place}"]


def _measures(evaluation: Path, hookpoint: str | None) -> dict[str, Any]:
    artifact.open_artifact(evaluation, kind="evaluation")
    facts = read_json(evaluation / "evaluation.json", "measures")
    if hookpoint is not None and facts.get("hookpoint") not in (None, hookpoint):
        raise ArtifactError(
            f"{evaluation}: of {facts['hookpoint']}, and the dictionary is of {hookpoint}; name its own evaluation"
        )
    measures = facts["measures"]
    if not isinstance(measures, dict):
        raise ArtifactError(f"{evaluation}: its measures are no table; make it again with `mohole evaluate`")
    return measures
