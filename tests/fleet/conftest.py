# SPDX-License-Identifier: Apache-2.0
"""One fleet for all tests of this folder, brought up as `make demo` does, in a lab of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fleet.fleet import Fleet


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fleet-sites", type=int, default=3, help="how many lab sites the fleet test brings up")


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A lab that is up, with an authority, and nothing provisioned yet. Ends with nothing left behind."""
    one = Fleet(os.environ.get("WATTFLEET_LAB", "fleet"), request.config.getoption("--fleet-sites"))
    one.down()
    one.up()
    yield one
    one.down()


@pytest.fixture(scope="session")
def provisioned(fleet: Fleet) -> Fleet:
    """The same fleet in service, whichever tests ran before."""
    result = fleet.play("site")
    assert result.ok, result.failures
    return fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The main path begins with a fleet that nobody has touched, and its last test takes the fleet down."""

    def place(item: pytest.Item) -> int:
        if item.name == "test_the_lab_leaves_nothing_behind":
            return 3
        if item.get_closest_marker("rollout"):
            return 2  # they change what the fleet's file says
        return 0 if item.path.stem == "test_main_path" else 1

    items.sort(key=place)
