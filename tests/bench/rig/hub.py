# SPDX-License-Identifier: Apache-2.0
"""A broker and the hub's side of it: mosquitto with TLS 1.3, and a stub that acknowledges every batch at once.

    python -m tests.bench.rig.hub FOLDER PORT      (the stub; Broker starts mosquitto)

The stub answers "counts" with {"batches", "readings", "bytes", "messages"}: what came from the collector, read with
the hub's own decoder, and how many messages the broker has received from anybody.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from energy_hub.batch import read_body, read_envelope
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.ports import free_port
from tests.unit.collector.collector_support import Authority

SITE = "bench"
RECEIVED = "$SYS/broker/publish/messages/received"


class Broker:
    """mosquitto for the length of a benchmark. Certificates lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.port = free_port()
        certificate, key = self.authority.issue("broker")
        self.authority.issue("ingest")
        self.authority.issue("collectd")
        self.authority.issue(SITE)
        access = folder / "access"
        access.write_text(
            "user ingest\ntopic readwrite energy/v1/#\ntopic read $SYS/#\n"
            "user collectd\ntopic write collectd/#\n"
            "pattern write energy/v1/%u/batch\npattern write energy/v1/%u/status\n"
            "pattern read energy/v1/%u/ack\npattern read energy/v1/%u/witness\n"
        )
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\ncafile {self.authority.path}\ncertfile {certificate}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n"
            f"acl_file {access}\nallow_anonymous false\nuser root\nsys_interval 1\n"
        )
        self._process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            time.sleep(0.05)
        raise RuntimeError("mosquitto did not start")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Stub:
    """Acknowledges what comes; verifies nothing, since its cost is nobody's."""

    def __init__(self, folder: Path, port: int) -> None:
        self.batches = self.readings = self.bytes = self.messages = 0
        context = ssl.create_default_context(cafile=str(folder / "test-ca.crt"))
        context.load_cert_chain(str(folder / "ingest.crt"), str(folder / "ingest.key"))
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="ingest", protocol=mqtt.MQTTv5)
        self._client.tls_set_context(context)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [("energy/v1/+/batch", SubscribeOptions(qos=1)), (RECEIVED, SubscribeOptions(qos=0))]
        )
        self._client.on_subscribe = lambda *_: print("ready", flush=True)
        self._client.on_message = self._take
        self._client.connect("localhost", port)
        self._client.loop_start()

    def _take(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == RECEIVED:
            self.messages = int(message.payload)
            return
        envelope = read_envelope(bytes(message.payload))
        ack = {"stream": envelope.stream.hex(), "watermark": envelope.sequence, "ranges": []}
        client.publish(message.topic.replace("/batch", "/ack"), json.dumps(ack), qos=1)
        self.batches += 1
        self.bytes += len(message.payload)
        self.readings += read_body(envelope).readings

    def report(self) -> dict[str, int]:
        """The counts."""
        return {
            "batches": self.batches,
            "readings": self.readings,
            "bytes": self.bytes,
            "messages": self.messages,
        }


def main() -> None:
    """The stub."""
    stub = Stub(Path(sys.argv[1]), int(sys.argv[2]))
    for _ in sys.stdin:
        print(json.dumps(stub.report()), flush=True)


if __name__ == "__main__":
    main()
