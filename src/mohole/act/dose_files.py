"""A sweep of strengths as files: dose.json, and the range alone in usable.json, which is what warns."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mohole import artifact
from mohole.act.dose import DoseResponse
from mohole.act.usable import write_usable
from mohole.errors import ArtifactError
from mohole.metrics.measure import as_json
from mohole.record import write_json

DOSE_FILE = "dose.json"
_DOSE = TypeAdapter(DoseResponse)


def write_dose(out: Path, dose: DoseResponse) -> None:
    """Write a sweep into the folder of an artifact of kind `dose`."""
    write_json(out / DOSE_FILE, as_json(dose))
    write_usable(out, dose.interventions, dose.usable)


def read_dose(path: Path | str) -> DoseResponse:
    """The sweep in a finished artifact.

    Raises:
        ArtifactError: missing, unfinished, damaged, or of another kind.
    """
    path = Path(path)
    artifact.open_artifact(path, kind="dose")
    try:
        return _DOSE.validate_json((path / DOSE_FILE).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: not a sweep mohole can read ({place}: {first['msg']}); sweep again") from None
