"""Makes the collection importable from the working tree."""

from __future__ import annotations

import sys
from pathlib import Path

COLLECTIONS = Path(__file__).resolve().parents[3] / ".collections"
if str(COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS))

import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, where there is one: each of these tests waits for the disk thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="firmware.", dir=memory if memory.is_dir() else None
    ) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does not tell its version is not waited for."""
    from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import engine

    monkeypatch.setattr(engine, "TELL_WITHIN", 0.0)
    monkeypatch.setattr(engine, "RESTART_WITHIN", 0.0)
