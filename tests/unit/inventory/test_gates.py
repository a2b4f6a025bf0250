# SPDX-License-Identifier: Apache-2.0
"""The fleet file's key `gates`, and that the controller reads it as the schema means it."""

from __future__ import annotations

import pytest
import yaml
from wattfleet.rollout.gate_settings import DEFAULTS, GateSettings, gate_settings

from .conftest import FLEET, FleetOnDisk


def write(fleet: FleetOnDisk, gates: object) -> None:
    fleet.file.write_text(FLEET + yaml.safe_dump({"gates": gates}), encoding="utf-8")


def test_schema_and_controller_have_the_same_defaults(fleet: FleetOnDisk) -> None:
    write(fleet, {name: {} for name in DEFAULTS})
    full = fleet.load().facts["gates"]
    assert set(full) == {"samples", "settle", *DEFAULTS}
    assert gate_settings(full) == GateSettings()


def test_what_is_given_holds_and_the_rest_is_as_ever(fleet: FleetOnDisk) -> None:
    write(fleet, {"samples": 80, "nulls": {"margin": 3, "dry_run": True}, "clock": {"enabled": False}})
    settings = gate_settings(fleet.load().facts["gates"])
    assert (settings.samples, settings.settle) == (80, 60)
    assert (settings["nulls"].margin, settings["nulls"].dry_run) == (3, True)
    assert not settings["clock"].enabled
    assert settings["readings"] == DEFAULTS["readings"]


def test_a_fleet_without_the_key(fleet: FleetOnDisk) -> None:
    assert gate_settings(fleet.load().facts.get("gates")) == GateSettings()


@pytest.mark.parametrize(
    ("gates", "fault"),
    [
        ("[readings]", "6: gates: found a list, expected a mapping of the checks of a gate"),
        ("{reading: {limit: 1}}", '6: gates.reading: unknown key, did you mean "readings"?'),
        ("{samples: 0}", "6: gates.samples: found 0, expected a whole number from 1 to 100000"),
        ("{readings: {limit: 95}}", "6: gates.readings.limit: found 95, expected a number from 0 to 1"),
        ("{nulls: {margin: 0.5}}", "6: gates.nulls.margin: found 0.5, expected a number from 1 to 100"),
        ("{services: {limit: 1}}", "6: gates.services.limit: unknown key, expected enabled or dry_run"),
        ("{version: {dry_run: yes}}", "6: gates.version.dry_run: found yes, expected true or false"),
        ("{clock: true}", '6: gates.clock: found true, expected a mapping such as "{dry_run: true}"'),
    ],
)
def test_bad_input_is_one_line(fleet: FleetOnDisk, gates: str, fault: str) -> None:
    fleet.file.write_text(f"{FLEET}gates: {gates}\n", encoding="utf-8")
    assert fleet.faults() == [f"fleet.sites.yml:{fault}"]
