"""Showing what a run found: in a terminal, and as one HTML page that stands alone. Reads artifacts only."""

from mohole.report.contents import print_contents
from mohole.report.findings import Findings
from mohole.report.page import is_current, write_page
from mohole.report.read import read_findings
from mohole.report.terminal import print_findings

__all__ = ["Findings", "is_current", "print_contents", "print_findings", "read_findings", "write_page"]
