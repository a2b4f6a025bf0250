# SPDX-License-Identifier: Apache-2.0
"""Whose connection is whose, by what Mosquitto and ss write. The scenario hub_broker cuts real ones."""

from __future__ import annotations

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import session_cut as module

JOURNAL = """\
New connection from 198.18.0.11:43212 on port 8883.
New client connected from 198.18.0.11:43212 as lab-01 (p5, c0, k60, u'lab-01').
New client connected from 198.18.0.12:50000 as lab-01 (p5, c0, k60, u'lab-01').
Client lab-01 closed its connection.
New client connected from 198.18.0.12:50000 as lab-02 (p5, c0, k60, u'lab-02').
New client connected from 2001:db8::7:40001 as lab-07 (p5, c0, k240, u'lab-07').
"""
# With an address of IPv4 on a socket of IPv6, too.
LISTING = """\
0      0      198.18.0.2:8883   198.18.0.11:43212
0      0      198.18.0.2:8883   198.18.0.12:50000
0      0      [2001:db8::1]:8883   [2001:db8::7]:40001
0      0      [::ffff:198.18.0.2]:8883   [::ffff:198.18.0.13]:40002
"""


def test_who_came_last_from_an_address_has_it() -> None:
    assert module.names_in(JOURNAL) == {
        "198.18.0.11:43212": "lab-01",
        "198.18.0.12:50000": "lab-02",
        "2001:db8::7:40001": "lab-07",
    }


def test_addresses_are_those_of_the_journal() -> None:
    assert module.peers_in(LISTING) == [
        "198.18.0.11:43212",
        "198.18.0.12:50000",
        "2001:db8::7:40001",
        "198.18.0.13:40002",
    ]


@pytest.mark.parametrize(
    ("name", "unnamed", "expected"),
    [
        ("lab-01", False, ["198.18.0.11:43212"]),
        ("lab-01", True, ["198.18.0.11:43212", "198.18.0.13:40002"]),
        ("lab-07", False, ["2001:db8::7:40001"]),
        ("lab-0", False, []),
    ],
)
def test_the_others_are_left_alone(name: str, unnamed: bool, expected: list[str]) -> None:
    assert module.chosen(module.peers_in(LISTING), module.names_in(JOURNAL), name, unnamed) == expected
