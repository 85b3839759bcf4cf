"""The page: one HTML file with its style, script and data inside. It opens from a disk, asks no network, and may not.

The content-security policy forbids every connection and every script and style but the two whose hashes it names. Data is
JSON in a script element that is never run; the script puts it on the page as text nodes only, so a hostile text stays text.
"""

import hashlib
import json
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from string import Template

from mohole.report.findings import Findings
from mohole.report.payload import page_data
from mohole.storage.files import write_whole
from mohole.visible import visible

_SCRIPTS = ("dom.js", "quality.js", "recovery.js", "features.js", "page.js")  # in this order, as one
_HEAD_BYTES = 4096
_UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def write_page(out: Path, findings: Findings, made_from: str = "") -> None:
    """Write the page of a run to `out`, whole or not at all. `made_from` is a checksum of all it shows, for `is_current`."""
    write_whole(out, render_page(findings, made_from))


def is_current(page: Path, made_from: str) -> bool:
    """Is there a page, and was it made from what has this checksum?"""
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return f'name="mohole-made-from" content="{made_from}"'.encode() in file.read(_HEAD_BYTES)


def render_page(findings: Findings, made_from: str = "") -> str:
    """The page as text. Equal findings give equal bytes."""
    style = _asset("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "\n})();"
    return Template(_asset("page.html")).substitute(
        title=_escaped(f"{visible(findings.name)} · mohole"),
        made_from=_escaped(made_from),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_inert_json(page_data(findings)),
    )


def _asset(name: str) -> str:
    return (files("mohole.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert_json(data: object) -> str:
    """JSON in which nothing can end a script element or begin a comment or an entity."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
