# SPDX-License-Identifier: Apache-2.0
"""The keys of rollouts: what is filled in, and one clear line for each fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import FLEET, SITE, FleetOnDisk

Broken = Callable[[str, str], list[str]]
WINDOW = "maintenance: {days: [sat, sun], start: 22:00, end: 04:00}\n"


def test_a_window_needs_no_quotes(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", SITE + WINDOW)
    assert fleet.load().sites["plant-a"]["maintenance"] == {
        "days": ["sat", "sun"],
        "start": "22:00",
        "end": "04:00",
    }


def test_a_site_has_the_fleets_window_unless_it_has_its_own(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET + "defaults: {maintenance: {start: 22:00, end: 05:00}}\n", encoding="utf-8")
    assert fleet.load().sites["plant-a"]["maintenance"] == {"start": "22:00", "end": "05:00"}
    fleet.write("plant-a", SITE + WINDOW)
    assert fleet.load().sites["plant-a"]["maintenance"]["end"] == "04:00"


def test_limits_that_are_left_out_are_not_filled_in(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET + "rollout: {max_offline: 5}\n", encoding="utf-8")
    assert fleet.load().facts["rollout"] == {"max_offline": 5}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "maintenance: {start: 22:00, end: 22:00}",
            (
                'maintenance.end: found "22:00", equal to start, expected another time; for a site that may be '
                "interrupted at any time leave maintenance out"
            ),
        ),
        (
            "maintenance: {start: 25:00, end: 04:00}",
            'maintenance.start: found 25:00, expected a time of the day such as "22:00"',
        ),
        (
            "maintenance: {days: [saturday], start: 22:00, end: 04:00}",
            'maintenance.days[0]: found "saturday", expected mon, tue, wed, thu, fri, sat or sun',
        ),
        (
            "maintenance: {start: 22:00}",
            'maintenance.end: missing, expected a time of the day such as "22:00"',
        ),
    ],
)
def test_a_window_that_is_none(fleet: FleetOnDisk, text: str, fault: str) -> None:
    fleet.write("plant-a", SITE + text + "\n")
    (found,) = fleet.faults()
    assert found.split(": ", 1)[1] == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "rollout: {max_offline: 2, max_failed: 2}",
            "rollout.max_failed: found 2 with max_offline 2, expected less: sites that failed count as offline",
        ),
        (
            "rollout: {max_offline: 0}",
            "rollout.max_offline: found 0, expected a whole number from 1 to 100000",
        ),
        (
            "rollout: {soak: 60}",
            (
                "rollout.soak: found 60, expected at least 240: what the buses count is told every 60 s "
                "(collector.sources.buses), and crc_errors and timeouts of the gates need it"
            ),
        ),
        (
            (
                "defaults: {collector: {sources: {buses: {interval: 20}}}}\nrollout: {soak: 79.5}\n"
                "gates: {timeouts: {dry_run: true}}"
            ),
            (
                "rollout.soak: found 79.5, expected at least 80: what the buses count is told every 20 s "
                "(collector.sources.buses), and crc_errors of the gates need it"
            ),
        ),
        (
            "rollout: {nodes: [{name: a, host: x}, {name: a, host: y}]}",
            'rollout.nodes[1].name: found "a", as in nodes[0], expected a name of its own',
        ),
        (
            "rollout: {nodes: [{name: a, host: -oProxyCommand=x}]}",
            (
                'rollout.nodes[0].host: found "-oProxyCommand=x", expected a host as ssh is given it, such as '
                '"node-1.example" or "ops@10.1.0.7"'
            ),
        ),
    ],
)
def test_limits_that_are_none(fleet: FleetOnDisk, text: str, fault: str) -> None:
    fleet.file.write_text(FLEET + text + "\n", encoding="utf-8")
    (found,) = fleet.faults()
    assert found.split(": ", 1)[1] == fault


@pytest.mark.parametrize(
    "text",
    [
        "rollout: {soak: 240}",
        "defaults: {collector: {sources: {buses: {interval: 20}}}}\nrollout: {soak: 80}",
        "rollout: {soak: 60}\ngates: {timeouts: {enabled: false}, crc_errors: {enabled: false}}",
        "rollout: {max_offline: 5}",
    ],
)
def test_a_soak_in_which_the_buses_are_seen(fleet: FleetOnDisk, text: str) -> None:
    fleet.file.write_text(FLEET + text + "\n", encoding="utf-8")
    assert fleet.faults() == []


def test_a_fault_of_the_fleets_window_is_told_once(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET + "defaults: {maintenance: {start: 22:00, end: 22:00}}\n", encoding="utf-8")
    (found,) = fleet.faults()
    assert found.startswith("fleet.sites.yml:6: defaults.maintenance.end:")
