# SPDX-License-Identifier: Apache-2.0
"""Whose connection is whose, by what Mosquitto and ss write, and what is done about it. The scenario hub_broker cuts
real ones, by a kernel that can."""

from __future__ import annotations

from typing import Any

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


class FailedError(Exception):
    """fail_json was called."""


class Machine:
    """A hub: its broker's connections, what ss, journalctl and systemctl say of them, and a clock that `sleep` moves.

    A client that connects again does so from another port, as a real one; the revoked one is refused."""

    def __init__(self, *, kills: bool, **params: Any) -> None:
        self.params = {
            "name": "lab-01",
            "port": 8883,
            "unit": "mosquitto.service",
            "settle": 3.0,
            "timeout": 30.0,
            "restart": True,
            **params,
        }
        self._kills = kills
        self._now = 1000.0
        self.connected = {
            "198.18.0.11:43212": "lab-01",
            "198.18.0.12:50000": "lab-02",
            "2001:db8::7:40001": "lab-07",
        }
        self.starts = 1
        self.asked: list[list[str]] = []

    # What AnsibleModule does.
    def get_bin_path(self, name: str, **_options: object) -> str:
        return name

    def fail_json(self, **result: Any) -> None:
        raise FailedError(result["msg"])

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        self.asked.append(command)
        match command:
            case ["ss", "-Htn", "--kill", "state", "established", which]:
                self._kill(which)
            case ["ss", "-Htn", "state", "established", "sport", "=", ":8883"]:
                return 0, "".join(f"0 0 198.18.0.2:8883 {written(one)}\n" for one in self.connected), ""
            case ["journalctl", "--sync"]:
                pass
            case ["journalctl", *_options, "_SYSTEMD_INVOCATION_ID=run-1" | "_SYSTEMD_INVOCATION_ID=run-2"]:
                # Of this run of the broker alone.
                assert command[-1].endswith(f"-{self.starts}")
                lines = (
                    f"New client connected from {peer} as {name} (p5, c0, k60, u'{name}').\n"
                    for peer, name in self.connected.items()
                )
                return 0, "".join(lines), ""
            case ["systemctl", "show", "--value", "--property=InvocationID", "--", "mosquitto.service"]:
                return 0, f"run-{self.starts}\n", ""
            case ["systemctl", "restart", "--", "mosquitto.service"]:
                self._restart()
            case _:
                raise AssertionError(command)
        return 0, "", ""

    def _kill(self, which: str) -> None:
        """`ss` ends well whether or not the kernel has done it."""
        if self._kills:
            for peer in [one for one in self.connected if f"dst {written(one)} " in which]:
                del self.connected[peer]

    def _restart(self) -> None:
        self.starts += 1
        self.connected = {
            f"{peer[:-1]}9": name for peer, name in self.connected.items() if name != self.params["name"]
        }

    # What the module needs of `time`.
    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


def written(peer: str) -> str:
    """A peer as ss writes it, an address of IPv6 in brackets."""
    address, _colon, port = peer.rpartition(":")
    return f"[{address}]:{port}" if ":" in address else peer


def cut(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(module, "time", machine)
    return module.cut(module.Broker(machine))


def test_one_connection_is_cut_and_the_broker_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(kills=True)
    told = cut(machine, monkeypatch)
    assert (told["cut"], told["kept"], told["restarted"]) == (["198.18.0.11:43212"], 2, False)
    assert sorted(machine.connected.values()) == ["lab-02", "lab-07"]
    assert machine.starts == 1


def test_a_kernel_that_cannot_cut_has_the_broker_restarted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(kills=False)
    told = cut(machine, monkeypatch)
    assert (told["cut"], told["unnamed"], told["restarted"]) == (["198.18.0.11:43212"], 0, True)
    assert told["kept"] == 0, "everybody's connection has ended"
    assert sorted(machine.connected.values()) == ["lab-02", "lab-07"], "the others have come back"
    assert machine.asked.count(["systemctl", "restart", "--", "mosquitto.service"]) == 1
    # First the one connection was tried.
    first = next(one for one in machine.asked if "--kill" in one or "restart" in one)
    assert first[-1] == "( sport = :8883 and dst 198.18.0.11:43212 )"


def test_where_a_restart_is_not_allowed_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(kills=False, restart=False)
    with pytest.raises(FailedError) as failure:
        cut(machine, monkeypatch)
    assert str(failure.value) == (
        "the kernel does not end 198.18.0.11:43212; a restart of mosquitto.service would"
    )
    assert machine.starts == 1


def test_who_comes_back_after_the_restart_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker has not taken the new list."""
    machine = Machine(kills=False)
    restart = machine._restart

    def take_everybody() -> None:
        restart()
        machine.connected["198.18.0.11:43299"] = "lab-01"

    monkeypatch.setattr(machine, "_restart", take_everybody)
    with pytest.raises(
        FailedError, match=r"lab-01 is still connected after 30 s \(198\.18\.0\.11:43299\): has "
    ):
        cut(machine, monkeypatch)
    assert machine.starts == 2, "one restart, and no second one"
