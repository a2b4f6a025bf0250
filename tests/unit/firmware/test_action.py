# SPDX-License-Identifier: Apache-2.0
"""The controller's side of a transfer, against a gateway that takes its chunks and a link that loses some of them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.wattfleet.energy.plugins.action import firmware as action
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import program
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.incoming import Incoming

from .gateway import FakeGateway, envelope

IMAGE = bytes(range(256)) * 4000
SHA = hashlib.sha256(IMAGE).hexdigest()


class Gateway(action.ActionModule):  # type: ignore[misc]  # Ansible has no types
    """The action, with a gateway in place of a connection. `loses` names the chunks that are lost, from 1 on."""

    def __init__(self, host: FakeGateway, folder: Path, loses: set[int], **arguments: Any) -> None:
        (folder / "image.bin").write_bytes(IMAGE)
        self.host = host
        self.loses = loses
        self.chunks = 0
        self.reconnects = 0
        self.incoming = Incoming(host, SHA)
        self.incoming.prepare(envelope(IMAGE), len(IMAGE))
        self.arguments = {"image": str(folder / "image.bin"), **arguments}
        self._connection = SimpleNamespace(transport="local")

    def _reconnect(self) -> None:
        self.reconnects += 1

    def _low_level_execute_command(self, cmd: str, in_data: bytes | None = None) -> dict[str, Any]:
        words = shlex.split(cmd)[4:]
        if words[0] == "offset":
            return {"rc": 0, "stdout": json.dumps({"offset": self.incoming.offset()}), "stderr": ""}
        assert in_data is not None
        self.chunks += 1
        lost = self.chunks in self.loses
        # Half of a chunk arrives before the link goes.
        self._take(in_data[: len(in_data) // 2] if lost else in_data, int(words[3]))
        if lost:
            raise AnsibleConnectionFailure("the link is gone")
        told: dict[str, Any] = {
            "offset": self.incoming.offset(),
            "whole": self.incoming.offset() == len(IMAGE),
        }
        if told["whole"]:
            told |= program.verify(self.host, self.incoming)
        return {"rc": 0, "stdout": f"noise\n{json.dumps(told)}\n", "stderr": ""}

    def _take(self, data: bytes, offset: int) -> None:
        reading, writing = os.pipe()

        def write() -> None:
            with os.fdopen(writing, "wb") as stream:
                stream.write(data)

        thread = threading.Thread(target=write)
        thread.start()
        self.incoming.receive(reading, offset, len(IMAGE))
        thread.join()
        os.close(reading)

    def go(self) -> dict[str, Any]:
        data = {"offset": self.incoming.offset(), "length": len(IMAGE), "sent": 0}
        result = {"changed": False, "seen": {"kind": "transferring", "why": "", "data": data}}
        receiver = {"python": "python3", "program": "energy-firmware.pyz", "sha256": SHA}
        self._transfer(result, self.arguments, receiver, action.time.monotonic())
        return result


@pytest.fixture
def host(place: Path) -> FakeGateway:
    return FakeGateway.make(place / "root")


def test_an_image_arrives_and_every_byte_is_counted(host: FakeGateway, place: Path) -> None:
    one = Gateway(host, place, set())
    result = one.go()
    assert (result["seen"]["kind"], result["changed"]) == ("transferred", True)
    assert result["seen"]["data"] == {
        "offset": len(IMAGE),
        "length": len(IMAGE),
        "sent": len(IMAGE),
        "drops": 0,
    }
    assert one.incoming.image.read_bytes() == IMAGE


def test_lost_chunks_are_gone_on_with_where_the_gateway_is(host: FakeGateway, place: Path) -> None:
    one = Gateway(host, place, set(range(2, 40, 3)))
    data = one.go()["seen"]["data"]
    assert data["drops"] == one.reconnects >= 3
    assert len(IMAGE) < data["sent"] < 2 * len(IMAGE)
    assert one.incoming.image.read_bytes() == IMAGE


def test_a_budget_ends_it_and_the_next_execution_goes_on(host: FakeGateway, place: Path) -> None:
    one = Gateway(host, place, set(), budget=300_000)
    seen = one.go()["seen"]
    assert (seen["kind"], seen["why"]) == ("transferring", "the budget of 300000 bytes is spent")
    assert seen["data"]["sent"] == seen["data"]["offset"] == 300_000
    assert [one.go()["seen"]["kind"] for _time in range(3)] == ["transferring", "transferring", "transferred"]


def test_the_time_ends_it(host: FakeGateway, place: Path) -> None:
    seen = Gateway(host, place, set(), seconds=0.001).go()["seen"]
    assert (seen["kind"], seen["why"]) == ("transferring", "0.001 s have passed")


def test_chunks_that_are_all_lost_end_it(
    host: FakeGateway, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Gateway(host, place, set(range(1000)))
    monkeypatch.setattr(one, "_take", lambda data, offset: None)
    result = one.go()
    assert result["seen"]["why"] == "20 chunks in a row were lost; 0 bytes are there"
    assert (result["seen"]["kind"], result["changed"]) == ("transferring", False)


def test_a_link_that_does_not_come_back_is_left_to_the_next_execution(
    host: FakeGateway, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action, "PATIENCE", 0.2)
    monkeypatch.setattr(action, "AGAIN", (0.05,))
    one = Gateway(host, place, {1})
    take = one._low_level_execute_command

    def away(cmd: str, in_data: bytes | None = None) -> dict[str, Any]:
        if in_data is None:
            raise AnsibleConnectionFailure("nobody there")
        return take(cmd, in_data)

    monkeypatch.setattr(one, "_low_level_execute_command", away)
    assert "no connection for" in one.go()["seen"]["why"]


def test_an_image_that_is_another_one_is_not_sent(host: FakeGateway, place: Path) -> None:
    one = Gateway(host, place, set())
    (place / "image.bin").write_bytes(IMAGE[:-1] + b"x")
    assert one.go()["seen"]["why"] == "image.bin is not what was signed: nothing was sent"
    (place / "image.bin").write_bytes(IMAGE[:-1])
    assert "has 1023999 bytes, and the manifest says 1024000" in one.go()["seen"]["why"]
    assert one.chunks == 0


def test_what_the_gateway_says_is_told(
    host: FakeGateway, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Gateway(host, place, set())
    answer = {"rc": 1, "stdout": "", "stderr": "Warning\nenergy-firmware: the disk is full"}
    monkeypatch.setattr(one, "_low_level_execute_command", lambda cmd, in_data=None: answer)
    result = one.go()
    assert (result["failed"], result["msg"]) == (True, "energy-firmware: the disk is full")
