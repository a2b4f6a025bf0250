# SPDX-License-Identifier: Apache-2.0
"""The database of the rig: what counts as a reading of a meter."""

from __future__ import annotations

import re

import pytest

from tests.fault.rig.database import HEALTH


@pytest.mark.parametrize("point", ["host/load", "hwmon/coretemp-package", "buses/hall-requests"])
def test_what_a_gateway_tells_of_itself_is_no_reading_of_a_meter(point: str) -> None:
    assert re.match(HEALTH, point)


@pytest.mark.parametrize("point", ["main/voltage_l1", "hosting/active_power", "main/host"])
def test_a_meter_is_none_of_the_gateways_sources(point: str) -> None:
    assert not re.match(HEALTH, point)
