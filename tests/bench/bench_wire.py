# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire for a reading, beside the same readings as Influx line protocol, JSON and Sparkplug B.

    sudo .venv/bin/python tests/bench/bench_wire.py [--batches 20]

A site of eight meters with twenty points each, polled every 10 s. The real delivering service and a real
mosquitto (TLS 1.3, mutual) stand in two network namespaces with a cable (veth) between them; the cable's
counters are read, less the 14 bytes of each Ethernet frame. So all is in: IP, TCP and its acknowledgements,
TLS, MQTT with PUBACK, signature, and the hub's acknowledgement, both ways. The other formats go by the same
broker with QoS 1; they have no signature and nobody acknowledges them but the broker. Handshakes are left out
for all of them. Time is compressed: a minute of readings is a second and a half here, long enough that no two
messages share a packet. `--real-time MINUTES` lets it pass as it is instead, for our batches of 60 s only: then the
status that goes every ten minutes and the keepalive are in as well.

Needs root for the namespaces. Writes build/bench/wire.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
import yaml
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collector"), str(ROOT / "lab")]

from energy_collector.batches import batch
from energy_collector.storage.buffer import Buffer

from tests.bench.site_readings import SITE, SiteReadings, count
from tests.bench.wire_peers import TOPIC, Polls, Sparkplug, influx, telegraf_json
from tests.unit.collector.collector_support import Authority, document

HUB, GATEWAY = "wfbench-hub", "wfbench-site"
HUB_ADDRESS, GATEWAY_ADDRESS = "10.99.7.1", "10.99.7.2"
HUB_MAC, GATEWAY_MAC = "02:00:00:00:07:01", "02:00:00:00:07:02"
PORT = 8883
ETHERNET = 14
INTERVAL = 10.0
# Polls in a message: one, as other tools send, and six, which is our batch of 60 s.
SPANS = {"10 s": 1, "60 s": 6}
PACE = 1.5
PATIENCE = 60.0
TARGET = 4.0


class Traffic(NamedTuple):
    """IP bytes and packets from the gateway and to it."""

    up: int
    down: int
    packets: int

    def since(self, before: Traffic) -> Traffic:
        return Traffic(self.up - before.up, self.down - before.down, self.packets - before.packets)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def cable() -> Iterator[None]:
    """Two namespaces with a cable between them, on which nothing but our packets travels."""
    try:
        for name in (HUB, GATEWAY):
            run("ip", "netns", "add", name)
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
            run("ip", "-n", name, "link", "set", "lo", "up")
        run(
            "ip", "-n", HUB, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", GATEWAY
        )
        ends = (HUB, HUB_ADDRESS, HUB_MAC), (GATEWAY, GATEWAY_ADDRESS, GATEWAY_MAC)
        for (name, address, mac), (_, other, other_mac) in (ends, ends[::-1]):
            # Without segmentation offload: one counted packet is one packet.
            run("ip", "-n", name, "link", "set", "cable", "address", mac, "gso_max_segs", "1", "up")
            run("ip", "-n", name, "address", "add", f"{address}/30", "dev", "cable")
            run("ip", "-n", name, "neighbour", "replace", other, "lladdr", other_mac, "dev", "cable")
        yield
    finally:
        for name in (HUB, GATEWAY):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def traffic() -> Traffic:
    (found,) = json.loads(run("ip", "-n", GATEWAY, "-s", "-j", "link", "show", "cable"))
    up, down = found["stats64"]["tx"], found["stats64"]["rx"]
    packets = up["packets"] + down["packets"]
    return Traffic(
        up["bytes"] - ETHERNET * up["packets"], down["bytes"] - ETHERNET * down["packets"], packets
    )


@contextlib.contextmanager
def process(namespace: str, *command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as stream:
        started = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command], stdout=stream, stderr=stream, stdin=subprocess.PIPE
        )
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def client(folder: Path, name: str) -> mqtt.Client:
    found = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=str(folder / "test-ca.crt"))
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    found.tls_set_context(context)
    return found


def hub(folder: Path) -> None:
    """The hub's part, run inside its namespace: acknowledges what comes, and writes down how far it is."""
    messages: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
    subscriber = client(folder, "ingest")
    subscriber.on_message = lambda _client, _data, message: messages.put(message)
    subscriber.on_connect = lambda one, *_: one.subscribe("#", qos=1)
    subscriber.connect(HUB_ADDRESS, PORT)
    subscriber.loop_start()
    got = 0
    while True:
        message = messages.get()
        if message.topic.endswith("/batch"):
            envelope = batch.parse(bytes(message.payload))
            got = envelope.sequence
            payload = {"stream": envelope.stream.hex(), "watermark": envelope.sequence, "ranges": []}
            subscriber.publish(f"energy/v1/{SITE}/ack", json.dumps(payload), qos=1)
        elif message.topic in (TOPIC, "telemetry"):
            got += 1
        (folder / "got").write_text(str(got))


def peer(folder: Path) -> None:
    """Another tool's part, run inside the gateway's namespace: sends the messages that it finds in a file."""
    sender = client(folder, SITE)
    sender.connect(HUB_ADDRESS, PORT)
    sender.loop_start()
    for number, line in enumerate(sys.stdin):
        topic, path = line.split()
        sender.publish(topic, Path(path).read_bytes(), qos=1).wait_for_publish(PATIENCE)
        (folder / "sent").write_text(str(number + 1))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"bench_wire: not within {PATIENCE:g} s: {what}")
        time.sleep(0.02)


def number(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


def ours(folder: Path, polls: int, batches: int, pause: float) -> tuple[Traffic, int]:
    """The real service: traffic of that many batches, and the readings in them. `pause` is s between polls."""
    settings = document(
        folder,
        hub={"host": HUB_ADDRESS, "port": PORT},
        batch={"interval": polls * INTERVAL},
        buffer={"path": str(folder / "buffer.db")},
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    buffer = Buffer(folder / "buffer.db")
    site = SiteReadings()
    command = [
        sys.executable,
        "-m",
        "energy_collector",
        "persistence",
        "--config",
        str(folder / "config.yaml"),
    ]
    got = folder / "got"
    with process(GATEWAY, *command, log=folder / "persistence.log"):
        minutes = [list(site.every(INTERVAL, polls, start)) for start in starts(batches + 2, polls)]
        append(buffer, minutes[0], 0)
        append(buffer, minutes[1], pause)
        wait_until(lambda: number(got) == 1, "the first batch is delivered")
        # Its acknowledgements are over too.
        time.sleep(PACE / 2)
        before = traffic()
        for at, minute in enumerate(minutes[2:], 2):
            append(buffer, minute, pause)
            wait_until(lambda at=at: number(got) == at, "a batch is delivered")  # type: ignore[misc]  # mypy does not infer a lambda with a default
        wait_until(lambda: buffer.state().batches == 0, "all is acknowledged")
        time.sleep(1)
        return traffic().since(before), sum(count(minute) for minute in minutes[1:-1])


def starts(batches: int, polls: int) -> list[float]:
    start = 1_767_600_000.0
    return [start + index * polls * INTERVAL for index in range(batches)]


def append(buffer: Buffer, polls: Polls, pause: float) -> None:
    for records in polls:
        buffer.append(records)
        time.sleep(pause)


def theirs(
    folder: Path, encode: Callable[[Polls], bytes], topic: str, polls: int, messages: int
) -> tuple[Traffic, int]:
    site = SiteReadings()
    minutes = [list(site.every(INTERVAL, polls, start)) for start in starts(messages + 1, polls)]
    command = [sys.executable, __file__, "--peer", str(folder)]
    got, sent = folder / "got", folder / "sent"
    first = number(got)
    with process(GATEWAY, *command, log=folder / "peer.log") as sender:
        assert sender.stdin is not None
        before = traffic()
        for index, minute in enumerate(minutes):
            path = folder / "message"
            path.write_bytes(encode(minute))
            sender.stdin.write(f"{topic} {path}\n".encode())
            sender.stdin.flush()
            wait_until(lambda index=index: number(sent) == index + 1, "a message is sent")  # type: ignore[misc]  # mypy does not infer a lambda with a default
            time.sleep(PACE / 3)
            if not index:
                before = traffic()
        wait_until(lambda: number(got) >= first + len(minutes), "all messages are there")
        found = traffic().since(before)
    sent.unlink()
    return found, sum(map(count, minutes[1:]))


def broker(folder: Path) -> str:
    """The configuration of mosquitto; the formats of the other tools have topics of their own."""
    authority = Authority(folder)
    authority.addresses = [HUB_ADDRESS]
    certificate, key = authority.issue("broker")
    for name in (SITE, "ingest"):
        authority.issue(name)
    path = folder / "mosquitto.conf"
    path.write_text(
        f"listener {PORT} {HUB_ADDRESS}\ncafile {authority.path}\ncertfile {certificate}\nkeyfile {key}\n"
        "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n"
        "allow_anonymous false\nset_tcp_nodelay true\nuser root\n"
    )
    return str(path)


@contextlib.contextmanager
def hub_side(folder: Path) -> Iterator[None]:
    with cable(), process(HUB, "/usr/sbin/mosquitto", "-c", broker(folder), log=folder / "broker.log"):
        time.sleep(0.5)
        with process(HUB, sys.executable, __file__, "--hub", str(folder), log=folder / "hub.log"):
            time.sleep(1.5)
            yield


def own_folder(folder: Path, name: str) -> Path:
    """A folder for a service of ours, with the certificates of the broker's folder."""
    own = folder / name
    own.mkdir()
    for path in (folder / "test-ca.crt", folder / f"{SITE}.crt", folder / f"{SITE}.key"):
        (own / path.name).symlink_to(path)
    (own / "got").symlink_to(folder / "got")
    (folder / "got").write_text("0")
    return own


def measure(folder: Path, batches: int) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    with hub_side(folder):
        header(batches)
        for span, polls in SPANS.items():
            found, readings = ours(own_folder(folder, f"ours-{polls}"), polls, batches, PACE / polls)
            against = (found.up + found.down) / readings
            results.append(tell(f"Wattfleet, {span}", found, readings, batches, None))
            peers: dict[str, Callable[[Polls], bytes]] = {
                "Influx lines": influx,
                "Telegraf JSON": telegraf_json,
                "Sparkplug B": Sparkplug(),
            }
            for name, encode in peers.items():
                (folder / "got").write_text("0")
                topic = TOPIC if name == "Sparkplug B" else "telemetry"
                found, readings = theirs(folder, encode, topic, polls, batches)
                results.append(tell(f"{name}, {span}", found, readings, batches, against))
    return results


def measure_real_time(folder: Path, minutes: int) -> list[dict[str, Any]]:
    with hub_side(folder):
        header(minutes)
        found, readings = ours(own_folder(folder, "ours"), 6, minutes, INTERVAL)
        return [tell("Wattfleet, 60 s, real time", found, readings, minutes, None)]


def header(messages: int) -> None:
    print(f"{'':34}{'up':>8}{'down':>8}{'B/reading':>11}{'ratio':>8}{'packets':>9}   {messages} messages")


def tell(name: str, found: Traffic, readings: int, messages: int, against: float | None) -> dict[str, Any]:
    value = (found.up + found.down) / readings
    ratio = value / against if against else 1.0
    print(
        f"{name:34}{found.up / readings:8.2f}{found.down / readings:8.2f}{value:11.2f}{ratio:8.1f}"
        f"{found.packets / messages:9.1f}",
        flush=True,
    )
    return {
        "name": name,
        "value": round(value, 3),
        "unit": "B/reading",
        "against": round(against or value, 3),
        "ratio": round(ratio, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Count bytes on the wire for a reading.")
    parser.add_argument("--batches", type=int, default=20, help="messages of each kind (default: 20)")
    parser.add_argument(
        "--real-time", type=int, metavar="MINUTES", help="our 60 s batches only, time as it is"
    )
    parser.add_argument("--hub", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hub:
        hub(options.hub)
    if options.peer:
        peer(options.peer)
        return
    if os.geteuid():
        sys.exit("bench_wire: needs root: it makes network namespaces")
    os.environ["PYTHONPATH"] = str(ROOT / "collector")
    with tempfile.TemporaryDirectory() as name:
        if options.real_time:
            measure_real_time(Path(name), options.real_time)
            return
        results = measure(Path(name), options.batches)
    target = ROOT / "build" / "bench" / "wire.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")
    best = next(one["value"] for one in results if one["name"] == "Wattfleet, 60 s")
    if best > TARGET:
        sys.exit(f"bench_wire: {best} bytes a reading with batches of 60 s, at most {TARGET:g} are allowed")


if __name__ == "__main__":
    main()
