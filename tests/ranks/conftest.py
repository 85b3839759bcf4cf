"""Processes that several tests of a file share."""

from collections.abc import Iterator

import pytest
from tests.ranks.processes import Processes, processes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("ranks")) as found:
        yield found
