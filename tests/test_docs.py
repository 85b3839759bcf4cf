"""The documents are true: what they name exists, what exists is documented, and the project speaks of itself alone."""

import re
import subprocess
from pathlib import Path

import pytest

from mohole import config
from mohole.cli.app import command_names
from mohole.config import Table

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    return [ROOT / name for name in listed.stdout.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_paths_and_verbs_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    verbs = command_names()
    for verb in re.findall(r"(?:`|^    )mohole ([a-z][a-z-]*)\b", text, re.MULTILINE):
        assert verb in verbs, f"{page.name} names `mohole {verb}`"
    for path in re.findall(r"`((?:src|tests|docs|recipes|benchmarks|examples)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in command_names():
        assert f"`mohole {name}" in text, f"README.md does not mention `mohole {name}`"


def test_every_setting_says_what_it_is() -> None:
    """A setting whose name says it all still says its unit or its meaning, or its table's docstring does."""
    bare = {"kind", "revision", "warmup_steps", "auxk_weight", "dead_after_rows", "hookpoint", "interval_examples"}
    tables = [value for value in vars(config).values() if isinstance(value, type) and issubclass(value, Table)]
    for table in tables:
        assert table.__doc__
        for name, field in table.model_fields.items():
            is_table = isinstance(field.annotation, type) and issubclass(field.annotation, Table)
            assert field.description or name in bare or is_table or name == "corpus", (
                f"{table.__name__}.{name} says nothing"
            )


def test_every_file_of_the_package_says_what_it_is_for() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        assert path.read_text(encoding="utf-8").startswith('"""'), (
            f"{path.relative_to(ROOT)} does not say what it is for"
        )


def test_no_path_of_a_machine_is_in_the_project() -> None:
    machine = re.compile(r"/(?:home|root|Users|work)/\w+")
    for path in tracked_files():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".html", ".js", ".css", ".json"} and path != Path(__file__):
            found = machine.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.relative_to(ROOT)} holds {found and found[0]}"


def test_no_file_is_large() -> None:
    for path in tracked_files():
        assert path.stat().st_size < 4 * 2**20, f"{path.relative_to(ROOT)} is larger than 4 MiB"
