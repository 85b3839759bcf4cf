"""Texts out of records: lines of JSON, rows of Parquet. One field of each record is its text; null is no text."""

import difflib
import json
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from mohole.corpus.files import File, blocks
from mohole.errors import CorpusError

_MAX_LINE_BYTES = 1 << 28
"""A line of JSON is held whole; a longer one is rather no JSON lines."""
_BATCH_ROWS = 64


def read_json_lines(file: File, field: str) -> Iterator[str]:
    """The texts of a file with one JSON object in each line; empty lines are passed over.

    Raises:
        CorpusError: a line that is no object, or without a text in `field`; names the line.
    """
    with file.open() as data:
        start = 0
        for number, line in zip(count(1), _lines(blocks(data), file.name), strict=False):
            where = f"{file.name}: line {number}"
            if line.strip():
                text = text_of(_parse(line, where, file.name, start), field, where)
                if text is not None:
                    yield text
            start += len(line) + 1


def read_parquet(file: File, field: str) -> Iterator[str]:
    """The texts of a Parquet file's column, a few rows in memory at a time.

    Raises:
        CorpusError: no such column (names those there are), not a Parquet file, or the package pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise CorpusError(f"{file.name}: to read Parquet needs pyarrow; pip install 'mohole[parquet]'") from None
    with file.open() as data:
        try:
            # By itself pyarrow reads a whole column of a row group at once: 200 MB of text cost 265 MB that way, 80 MB this way.
            table = ParquetFile(data, pre_buffer=False, buffer_size=1 << 20)
            check_field(table.schema_arrow.names, field, file.name)
            rows = count(1)
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[field]):
                for value, row in zip(batch.column(0).to_pylist(), rows, strict=False):
                    text = checked(value, field, f"{file.name}: row {row}")
                    if text is not None:
                        yield text
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise CorpusError(f"{file.name}: not a readable Parquet file ({reason}); write it again") from error


def text_of(record: Any, field: str, where: str) -> str | None:
    """The text of a record, or None where it is null.

    Raises:
        CorpusError: not an object, or no text in that field.
    """
    if not isinstance(record, dict):
        raise CorpusError(f"{where}: {type(record).__name__}, not an object with a key {field!r}")
    check_field(record, field, where)
    return checked(record[field], field, where)


def check_field(names: Iterable[str], field: str, where: str) -> None:
    """Refuse a field that is not among `names`, with the nearest one."""
    names = list(names)
    if field in names:
        return
    near = difflib.get_close_matches(field, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise CorpusError(f"{where}: no field {field!r}; {hint}it has {listed or 'none'}; set corpus.field")


def checked(value: Any, field: str, where: str) -> str | None:
    """A field's value, if it is text or null. Half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes U+FFFD."""
    if value is None or (isinstance(value, str) and value.isascii()):
        return value
    if not isinstance(value, str):
        raise CorpusError(f"{where}: {field!r} holds {type(value).__name__}, not text; set corpus.field")
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _lines(data: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Lines without their ends, the last one whether it is ended or not."""
    held: list[bytes] = []
    for block in data:
        *whole, rest = block.split(b"\n")
        for line in whole:
            yield b"".join([*held, line])
            held = []
        held.append(rest)
        if len(held) * len(block) > _MAX_LINE_BYTES and sum(map(len, held)) > _MAX_LINE_BYTES:
            raise CorpusError(
                f"{name}: a line of more than {_MAX_LINE_BYTES >> 20} MiB; JSON lines hold one object in each line"
            )
    yield b"".join(held)


def _parse(line: bytes, where: str, name: str, start: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig" if start == 0 else "utf-8"))
    except UnicodeDecodeError as error:
        mark = 3 if start == 0 and line.startswith(b"\xef\xbb\xbf") else 0
        raise CorpusError(
            f"{where}: not UTF-8 text (byte {start + mark + error.start} of the file); convert it"
        ) from None
    except json.JSONDecodeError as error:
        what = f"{error.msg}, column {error.colno}"
        raise CorpusError(f"{where}: not JSON ({what}); a .jsonl file holds one object in each line") from None
    except ValueError as error:
        raise CorpusError(f"{where}: not JSON that can be read ({error})") from None
    except RecursionError:
        raise CorpusError(f"{where}: not JSON that can be read (nested too deeply)") from None
