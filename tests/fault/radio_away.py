# SPDX-License-Identifier: Apache-2.0
"""Zigbee and LoRaWAN meters report all the while, much of it twice: the broker of their servers is stopped and started,
the polling service and the ingest are killed, and what came meanwhile waits at the broker.

What the broker has confirmed to the servers is what has to be in the database, each reading once.
"""

from __future__ import annotations

import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from wattfleet_lab.radio import GARBAGE, Message, Plug, Publisher, Socket

from tests.fault.report import FaultReport
from tests.fault.rig.meters import PROFILE
from tests.fault.rig.rig import HALL, ROOF, Rig, pause, say
from tests.unit.collector.radio_site import EUI, PASSWORD, PLUG, PlainBroker

# s between two rounds of messages, and after which what is missing counts as lost.
EVERY = 0.1
PATIENCE = 30.0


class Devices(threading.Thread):
    """A plug and a socket, and their servers, which deliver some messages twice. `truth` is (point, ms) -> value."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.truth: dict[tuple[str, int], float] = {}
        self._publisher = Publisher(port, login=("server", PASSWORD))
        self._devices: dict[str, Plug | Socket] = {"plug": Plug(PLUG), "socket": Socket(EUI)}
        self._done = threading.Event()
        self._failure: Exception | None = None

    def run(self) -> None:
        """Report until told to stop."""
        try:
            self._report()
        except Exception as error:  # noqa: BLE001  (raised again by `stop`, in the test's own thread)
            self._failure = error

    def _report(self) -> None:
        moment = 0
        while not self._done.wait(EVERY):
            for meter, device in self._devices.items():
                moment = max(int(time.time() * 1000), moment + 1)
                message = device.message(moment, float(random.randrange(3000)))
                self._say(meter, message)

    def _say(self, meter: str, message: Message) -> None:
        self._publisher.publish(message, retain=random.random() < 0.3)
        self.truth |= {(f"{meter}/{one.point}", one.time): one.value for one in message.truth}
        if random.random() < 0.3:
            self._publisher.publish(message)
        if random.random() < 0.1:
            self._publisher.raw(message.topic, random.choice(GARBAGE))

    def stop(self) -> None:
        """Fall silent."""
        self._done.set()
        self.join()
        self._publisher.close()
        if self._failure is not None:
            raise self._failure


def settings(folder: Path, port: int) -> dict[str, Any]:
    """What the gateway's configuration has besides the rig's buses."""
    (folder / "password").write_text(PASSWORD)
    login = {
        "host": "127.0.0.1",
        "port": port,
        "user": "wattfleet",
        "password_file": str(folder / "password"),
    }
    on_buses = [
        {"name": name, "bus": bus, "unit": unit, "profile": PROFILE}
        for bus, units in (("hall", HALL), ("roof", ROOF))
        for unit, name in units.items()
    ]
    by_radio = [
        {"name": "plug", "radio": "air", "device": PLUG, "profile": "zigbee2mqtt-plug"},
        {"name": "socket", "radio": "field", "device": EUI, "profile": "milesight-ws523"},
    ]
    kinds = (("air", "zigbee2mqtt"), ("field", "chirpstack"))
    radios = [{"name": name, "type": kind, **login} for name, kind in kinds]
    return {"radios": radios, "meters": on_buses + by_radio}


def run(rounds: int, *, forgetful: bool = False) -> FaultReport:
    """A fault of each kind a round. A `forgetful` broker loses its queue while the polling service is away."""
    report = FaultReport("radio-away" + "-control" * forgetful, rounds)
    with tempfile.TemporaryDirectory(prefix="wf-radio-") as name:
        folder = Path(name)
        broker = PlainBroker(folder)
        broker.start()
        try:
            with Rig(settings=settings(folder, broker.port)) as rig:
                devices = Devices(broker.port)
                devices.start()
                for number in range(rounds):
                    say(f"round {number + 1} of {rounds}: {len(devices.truth)} radio readings")
                    _round(rig, broker, folder, forgetful=forgetful)
                    report.faults += 4
                devices.stop()
                rig.finish(report)
                _count(rig, devices.truth, report)
        finally:
            broker.stop()
    return report


def _round(rig: Rig, broker: PlainBroker, folder: Path, *, forgetful: bool) -> None:
    pause(0.5, 1)
    broker.stop()
    pause(0.2, 1)
    broker.start()
    pause(1, 2)
    rig.kill_gateway()
    pause(0.5, 1)
    # Stopped while the service is away: the queue has to be on its disk.
    broker.stop()
    if forgetful:
        (folder / "mosquitto.db").unlink()
    broker.start()
    rig.gateway.start()
    rig.wait_for_polls()
    rig.ingest.stop(signal.SIGKILL)
    pause(0.2, 1)
    rig.ingest.start()
    rig.wait_for_delivery()


def _count(rig: Rig, truth: dict[tuple[str, int], float], report: FaultReport) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        rows = [row for row in rig.database.rows() if row.point.startswith(("plug/", "socket/"))]
        found = Counter((row.point, row.time) for row in rows if row.value is not None)
        if truth.keys() <= found.keys() or time.monotonic() > deadline:
            break
        time.sleep(1)
    values = {(row.point, row.time): row.value for row in rows if row.value is not None}
    lost = [f"{point} of {when}" for point, when in truth.keys() - values.keys()]
    doubled = [f"{point} of {when}: {count} times" for (point, when), count in found.items() if count > 1]
    invented = [
        f"{key[0]} of {key[1]}: {value}, and was {truth.get(key)}"
        for key, value in values.items()
        if truth.get(key) != value
    ]
    say(f"{len(truth)} radio readings said, {len(values)} in the database")
    report.readings += len(values)
    report.lost += len(lost)
    report.doubled += len(doubled)
    report.invented += len(invented)
    report.findings += [*lost[:20], *doubled[:20], *invented[:20]]


def control() -> FaultReport:
    """The broker forgets what it keeps for us: what was said while the polling service was away is lost."""
    return run(1, forgetful=True)
