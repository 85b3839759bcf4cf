"""What people write about a run: labels, notes and lists, in one SQLite file beside its artifacts. Never in an artifact.

    RUN/people.sqlite    appears with the first thing written; write-ahead log, so readers do not wait and a killed server loses
                         nothing that it has acknowledged

What is written belongs to the dictionary that was looked at, by its manifest's digest: latent 7 of a dictionary that is trained
again is another latent, and has none of its notes. They are kept, and are there again when that dictionary is.
"""

import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mohole.errors import ArtifactError
from mohole.serve.errors import Refusal
from mohole.serve.shapes import MOST_MEMBERS

PEOPLE_FILE = "people.sqlite"

_SCHEMA = 1
_BUSY_SECONDS = 5.0
_TABLES = """
CREATE TABLE IF NOT EXISTS edition (number INTEGER NOT NULL);
INSERT INTO edition SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM edition);
CREATE TABLE IF NOT EXISTS labels (
    dictionary TEXT NOT NULL, latent INTEGER NOT NULL, hookpoint TEXT NOT NULL, text TEXT NOT NULL, written TEXT NOT NULL,
    PRIMARY KEY (dictionary, latent)
);
CREATE TABLE IF NOT EXISTS notes (
    note INTEGER PRIMARY KEY AUTOINCREMENT, dictionary TEXT NOT NULL, latent INTEGER NOT NULL, hookpoint TEXT NOT NULL,
    text TEXT NOT NULL, written TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS notes_of_latent ON notes (dictionary, latent);
CREATE TABLE IF NOT EXISTS lists (name TEXT PRIMARY KEY, written TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS members (
    name TEXT NOT NULL REFERENCES lists (name) ON DELETE CASCADE, place INTEGER NOT NULL, dictionary TEXT NOT NULL,
    hookpoint TEXT NOT NULL, latent INTEGER NOT NULL, PRIMARY KEY (name, place)
);
"""


@dataclass(frozen=True, slots=True)
class WrittenNote:
    """A note as it stands in the file."""

    note: int
    hookpoint: str
    latent: int
    text: str
    written: str


@dataclass(frozen=True, slots=True)
class Member:
    """A feature in a list."""

    dictionary: str
    hookpoint: str
    latent: int


@dataclass(frozen=True)
class _Edition:
    """What is kept in memory, as of one moment: every page shows labels."""

    number: int = 0
    labels: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """By dictionary and latent."""


class People:
    """The file of one run. Any number of threads, and of processes, may read and write it at once."""

    def __init__(self, run: Path) -> None:
        """Raises: ArtifactError: what lies there is not such a file."""
        self.path = run / PEOPLE_FILE
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._seen_change = -1
        self._edition = _Edition()
        self._copy: TemporaryDirectory[str] | None = None
        try:
            self._now()
        except Refusal as refusal:
            raise ArtifactError(f"{refusal.error}; {refusal.next_step}") from None

    def close(self) -> None:
        """Close the file; it opens again when it is asked for."""
        with self._reading, self._writing:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None
            if self._copy is not None:
                self._copy.cleanup()
                self._copy = None

    @property
    def edition(self) -> int:
        """A number that rises with everything written. 0: nothing ever was."""
        return self._now().number

    def labels(self, dictionary: str) -> Mapping[int, str]:
        """People's labels of a dictionary's latents."""
        return self._now().labels.get(dictionary, {})

    def notes(self, dictionary: str, latent: int) -> list[WrittenNote]:
        """Of one latent, oldest first."""
        asked = (
            "SELECT note, hookpoint, latent, text, written FROM notes WHERE dictionary = ? AND latent = ? ORDER BY note"
        )
        return [WrittenNote(*row) for row in self._rows(asked, dictionary, latent)]

    def all_lists(self) -> dict[str, list[Member]]:
        """Every list with its members, by name."""
        asked = """SELECT lists.name, dictionary, hookpoint, latent FROM lists LEFT JOIN members ON members.name = lists.name
                   ORDER BY lists.name, place"""
        return _grouped(self._rows(asked))

    def members_of(self, name: str) -> list[Member] | None:
        """One list's members; None: no such list."""
        asked = """SELECT lists.name, dictionary, hookpoint, latent FROM lists LEFT JOIN members ON members.name = lists.name
                   WHERE lists.name = ? ORDER BY place"""
        return _grouped(self._rows(asked, name)).get(name)

    def put_label(self, dictionary: str, hookpoint: str, latent: int, text: str) -> None:
        """Set a person's label, in place of an earlier one."""
        with self._change() as file:
            file.execute(
                "INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?)", (dictionary, latent, hookpoint, text, _now())
            )

    def delete_label(self, dictionary: str, latent: int) -> bool:
        """Was there one to take away?"""
        if not self.path.exists():
            return False
        with self._change() as file:
            gone = file.execute("DELETE FROM labels WHERE dictionary = ? AND latent = ?", (dictionary, latent))
            return gone.rowcount > 0

    def add_note(self, dictionary: str, hookpoint: str, latent: int, text: str) -> WrittenNote:
        """Append a note."""
        written = _now()
        with self._change() as file:
            added = file.execute(
                "INSERT INTO notes (dictionary, latent, hookpoint, text, written) VALUES (?, ?, ?, ?, ?)",
                (dictionary, latent, hookpoint, text, written),
            )
            number = added.lastrowid
        assert number is not None
        return WrittenNote(number, hookpoint, latent, text, written)

    def delete_note(self, note: int) -> bool:
        """Was there one to take away?"""
        if not self.path.exists():
            return False
        with self._change() as file:
            return file.execute("DELETE FROM notes WHERE note = ?", (note,)).rowcount > 0

    def put_list(self, name: str, members: Sequence[Member]) -> None:
        """Set a list, in place of an earlier one of that name."""
        rows = [(name, place, each.dictionary, each.hookpoint, each.latent) for place, each in enumerate(members)]
        with self._change() as file:
            file.execute("INSERT OR REPLACE INTO lists VALUES (?, ?)", (name, _now()))
            file.execute("DELETE FROM members WHERE name = ?", (name,))
            file.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?)", rows)

    def lists_with(self, dictionary: str, latent: int) -> list[tuple[str, int, bool]]:
        """Every list by name: its name, how many members it has, and whether this latent is one of them."""
        asked = """SELECT lists.name, COUNT(latent), COALESCE(MAX(dictionary = ? AND latent = ?), 0)
                   FROM lists LEFT JOIN members ON members.name = lists.name GROUP BY lists.name ORDER BY lists.name"""
        return [(str(name), int(n), bool(is_in)) for name, n, is_in in self._rows(asked, dictionary, latent)]

    def add_member(self, name: str, member: Member) -> bool:
        """Append to a list, which is made where there is none. Was it not in it yet?

        Raises:
            Refusal: the list is full.
        """
        with self._change() as file:
            file.execute("INSERT OR IGNORE INTO lists VALUES (?, ?)", (name, _now()))
            known = "SELECT 1 FROM members WHERE name = ? AND dictionary = ? AND latent = ?"
            if file.execute(known, (name, member.dictionary, member.latent)).fetchone():
                return False
            n, last = file.execute("SELECT COUNT(*), MAX(place) FROM members WHERE name = ?", (name,)).fetchone()
            if n >= MOST_MEMBERS:
                raise Refusal(422, f"the list has {n} features, and no room for more", "begin another list")
            place = 0 if last is None else last + 1
            row = (name, place, member.dictionary, member.hookpoint, member.latent)
            file.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?)", row)
            return True

    def delete_member(self, name: str, dictionary: str, latent: int) -> bool:
        """Was it in the list?"""
        if not self.path.exists():
            return False
        with self._change() as file:
            asked = "DELETE FROM members WHERE name = ? AND dictionary = ? AND latent = ?"
            return file.execute(asked, (name, dictionary, latent)).rowcount > 0

    def delete_list(self, name: str) -> bool:
        """Was there one to take away?"""
        if not self.path.exists():
            return False
        with self._change() as file:
            file.execute("DELETE FROM members WHERE name = ?", (name,))
            return file.execute("DELETE FROM lists WHERE name = ?", (name,)).rowcount > 0

    def _now(self) -> _Edition:
        """As the file stands: read again only where another connection, of this process or not, has changed it."""
        with self._reading, _said(self.path):
            reader = self._open_reader()
            if reader is None:
                return self._edition
            (change,) = reader.execute("PRAGMA data_version").fetchone()
            if change != self._seen_change:
                reader.execute("BEGIN")  # all of one moment
                try:
                    self._edition = _read_edition(reader)
                finally:
                    reader.execute("COMMIT")
                self._seen_change = change
            return self._edition

    def _rows(self, asked: str, *values: object) -> list[tuple[Any, ...]]:
        with self._reading, _said(self.path):
            reader = self._open_reader()
            return [] if reader is None else reader.execute(asked, values).fetchall()

    def _open_reader(self) -> sqlite3.Connection | None:
        if self._reader is None and self.path.exists():
            reader = _connect(self._readable())
            try:
                (schema,) = reader.execute("PRAGMA user_version").fetchone()
                if schema != _SCHEMA:
                    raise sqlite3.DatabaseError(f"of schema {schema}, where this mohole has {_SCHEMA}")
            except BaseException:
                reader.close()
                raise
            self._reader, self._seen_change = reader, -1
        return self._reader

    def _readable(self) -> Path:
        """The file; or, in a folder that takes no files, a copy: even to be read, a write-ahead log wants one beside it."""
        if os.access(self.path.parent, os.W_OK):
            return self.path
        self._copy = TemporaryDirectory(prefix="mohole-people-")
        for end in ("", "-wal"):  # the log last: what it holds goes into the copy when that is opened
            with suppress(FileNotFoundError):
                shutil.copyfile(
                    self.path.with_name(self.path.name + end), Path(self._copy.name) / (self.path.name + end)
                )
        return Path(self._copy.name) / self.path.name

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction; on the disk when the block has ended, not at all when it fails."""
        with self._writing, _said(self.path):
            if self._writer is None:
                if not self.path.exists():
                    _make(self.path)
                self._writer = _connect(self.path)
            writer = self._writer
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("UPDATE edition SET number = number + 1")
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged is there after a power cut, too
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    """Put an empty file with its tables there, if there is none; whole from the first moment, whoever else makes it too.

    Made in its place, two servers would be in each other's way: the change to a write-ahead log does not wait for a lock.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with closing(_connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in (*_TABLES.split(";"), f"PRAGMA user_version = {_SCHEMA}"):
                connection.execute(statement)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links: whoever comes second replaces an empty file, or loses one note
            if not path.exists():
                draft.rename(path)
    finally:
        for leftover in (draft, *(draft.with_name(draft.name + end) for end in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)


def _read_edition(reader: sqlite3.Connection) -> _Edition:
    (number,) = reader.execute("SELECT number FROM edition").fetchone()
    labels: dict[str, dict[int, str]] = {}
    for dictionary, latent, text in reader.execute("SELECT dictionary, latent, text FROM labels"):
        labels.setdefault(dictionary, {})[latent] = text
    return _Edition(number, labels)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """SQLite's errors as refusals that name the file."""
    try:
        yield
    except OSError as error:
        raise Refusal(
            503, f"{path.name}: {error.strerror}", "see that its folder can be written and has room"
        ) from error
    except sqlite3.OperationalError as error:
        is_busy = "locked" in str(error) or "busy" in str(error)
        step = "somebody else is writing; ask again" if is_busy else "see that its folder can be written and has room"
        raise Refusal(503, f"{path.name}: {error}", step, {"Retry-After": "2"}) from error
    except sqlite3.DatabaseError as error:
        raise Refusal(503, f"{path}: {error}", "move it away, or use the mohole that wrote it") from error


def _grouped(rows: list[tuple[Any, ...]]) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for name, dictionary, hookpoint, latent in rows:
        members = found.setdefault(str(name), [])
        if isinstance(latent, int):
            members.append(Member(str(dictionary), str(hookpoint), latent))
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
