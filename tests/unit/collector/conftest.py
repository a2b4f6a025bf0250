# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

log = logging.getLogger("energy")


@pytest.fixture(autouse=True)
def journal_left_as_it_was() -> Iterator[None]:
    """A service that runs within a test sends its lines to that test's standard error, and nowhere else.

    The tests after it would find a closed stream, and pytest each line twice.
    """
    handlers, propagate = list(log.handlers), log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
