# SPDX-License-Identifier: Apache-2.0
"""A site with a Zigbee and a LoRaWAN meter: a real broker, the real service, simulated devices."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from energy_collector import control
from energy_collector.reading import Reading
from energy_collector.storage.buffer import Buffer
from wattfleet_lab.radio import Message, Plug, Publisher, Socket, Truth

from tests.ports import free_port

from .collector_support import Service, document, wait_for

PASSWORD = "s3cret-of-the-test"
EUI = "24e124148b000001"
# The name has a slash, and the configuration writes the DevEUI in the other case.
PLUG = "hall/plug"


class PlainBroker:
    """mosquitto as zigbee2mqtt's and ChirpStack's pages set it up: user and password, no TLS, what waits is kept."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        users = folder / "users"
        users.touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", users, "wattfleet", PASSWORD], check=True)
        subprocess.run(["mosquitto_passwd", "-b", users, "server", PASSWORD], check=True)
        (folder / "acl").write_text(
            "user server\ntopic readwrite #\n"
            "user wattfleet\ntopic read zigbee2mqtt/#\ntopic read application/+/device/+/event/up\n"
        )
        (folder / "plain.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\nacl_file {folder}/acl\n"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\nuser root\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", self._folder / "plain.conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def listens() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, "the broker listens")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


class RadioSite:
    """All of it, and what the devices have said."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.broker = PlainBroker(folder)
        self.broker.start()
        (folder / "password").write_text(PASSWORD + "\n")
        (folder / "password").chmod(0o600)
        login = {
            "host": "127.0.0.1",
            "port": self.broker.port,
            "user": "wattfleet",
            "password_file": str(folder / "password"),
        }
        plug = {"radio": "air", "device": PLUG, "profile": "zigbee2mqtt-plug", "interval": 60}
        lora = {"radio": "field", "device": EUI.upper(), "profile": "milesight-ws523", "interval": 60}
        self.settings = document(
            folder,
            buses=[],
            radios=[
                {"name": "air", "type": "zigbee2mqtt", **login},
                {"name": "field", "type": "chirpstack", **login},
            ],
            meters=[{"name": "plug", **plug, **changes}, {"name": "socket", **lora, **changes}],
            sources={name: {"enabled": False} for name in ("host", "hwmon", "buses")},
        )
        self.gateway = Service("gateway", folder, self.settings)
        self.plug, self.socket = Plug(PLUG), Socket(EUI)
        self.truth: dict[tuple[str, int], float] = {}
        self.publisher = self._publisher()
        self._moment = 0

    def _publisher(self) -> Publisher:
        return Publisher(self.broker.port, login=("server", PASSWORD))

    def start(self) -> None:
        """The service, until it hears."""
        self.gateway.start()
        self.wait_for_radios()

    def wait_for_radios(self) -> None:
        wait_for(lambda: self._connected() == 2, f"both radios are heard\n{self.gateway.journal}")

    def _connected(self) -> int:
        with contextlib.suppress(OSError, control.NotRunningError):
            return sum(one["connected"] for one in self.ask("status")["radios"])
        return 0

    def ask(self, op: str, **more: Any) -> dict[str, Any]:
        return control.ask(self.folder / "control.sock", {"op": op, **more})

    def counts(self, what: str) -> int:
        return sum(one[what] for one in self.ask("counters")["radios"].values())

    def moment(self) -> int:
        """A time of now that no other message has."""
        self._moment = max(int(time.time() * 1000), self._moment + 1)
        return self._moment

    def say(self, power: float, *, retain: bool = False) -> list[Message]:
        """Both devices report."""
        said = [self.plug.message(self.moment(), power), self.socket.message(self.moment(), power)]
        for meter, message in zip(("plug", "socket"), said, strict=True):
            self.note(meter, message.truth)
            self.publisher.publish(message, retain=retain)
        return said

    def note(self, meter: str, truth: tuple[Truth, ...]) -> None:
        for one in truth:
            self.truth[f"{meter}/{one.point}", one.time] = one.value

    def again(self) -> None:
        """The broker was away, and the servers have connected to it again."""
        self.publisher.close()
        self.publisher = self._publisher()

    def readings(self) -> list[Reading]:
        held = Buffer(self.folder / "buffer.db")
        try:
            return [one for _, one in held.export()]
        finally:
            held.close()

    def settle(self) -> list[Reading]:
        """What the buffer holds once all is there that has to be."""
        wait_for(
            lambda: self.truth.keys() <= self._there(),
            f"all readings are in the buffer\n{self.gateway.journal}",
        )
        return self.readings()

    def _there(self) -> set[tuple[str, int]]:
        return {(one.point, one.time) for one in self.readings() if one.value is not None}

    def judge(self, found: list[Reading]) -> None:
        """Each once, with its value; and nothing else but nulls."""
        values = [one for one in found if one.value is not None]
        often = [key for key, count in Counter((one.point, one.time) for one in values).items() if count > 1]
        assert often == []
        assert {(one.point, one.time): one.value for one in values} == self.truth

    def close(self) -> None:
        self.gateway.kill()
        self.publisher.close()
        self.broker.stop()


@contextlib.contextmanager
def radio_site(folder: Path, **changes: Any) -> Iterator[RadioSite]:
    """A site that runs, for the length of a test."""
    site = RadioSite(folder, **changes)
    try:
        site.start()
        yield site
    finally:
        site.close()
