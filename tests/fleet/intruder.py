# SPDX-License-Identifier: Apache-2.0
"""One attempt at the broker, run where the intruder is; says as JSON how far it got.

python -m tests.fleet.intruder '{"host": "198.18.0.2", "port": 8883, "publish": "energy/v1/lab-02/batch", …}'
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

WAIT = 5.0  # s; the lab's hub answers in milliseconds
REFUSED = 0x80  # MQTT 5: reason codes from here on are failures


@dataclass
class Attempt:
    """What is tried. Paths are files; `listen` is how long, in seconds, a subscription is listened to."""

    host: str
    port: int
    authority: str
    certificate: str | None = None
    key: str | None = None
    tls: str = "1.3"
    client_id: str = ""
    username: str | None = None
    publish: str | None = None
    subscribe: str | None = None
    listen: float = 0.0


@dataclass
class Outcome:
    """How far it came. The three `…ed` are what must not happen; `said` is the broker's own word, if it had one."""

    connected: bool = False
    published: bool = False
    received: list[str] = field(default_factory=list)
    said: str = ""


def attempt(given: Attempt) -> Outcome:
    outcome = Outcome()
    answered = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(given.authority)
    if given.certificate:
        context.load_cert_chain(given.certificate, given.key)
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[given.tls]
    context.minimum_version = context.maximum_version = version
    # The intruder knows the hub's address; whose name is in its certificate is the least of his worries.
    context.check_hostname = False

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=given.client_id, protocol=mqtt.MQTTv5)
    client.tls_set_context(context)
    if given.username:
        client.username_pw_set(given.username, "none")

    def on_connect(_c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Properties | None) -> None:
        outcome.connected = not reason.is_failure
        outcome.said = str(reason)
        answered.set()

    def on_disconnect(_c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Properties | None) -> None:
        outcome.said = outcome.said or str(reason)
        answered.set()

    def on_publish(_c: Any, _u: Any, _m: int, reason: ReasonCode, _p: Properties) -> None:
        outcome.published = not reason.is_failure
        outcome.said = str(reason)
        answered.set()

    def on_message(_c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        outcome.received.append(message.topic)

    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    client.on_publish, client.on_message = on_publish, on_message
    try:
        client.connect(given.host, given.port)
        client.loop_start()
        answered.wait(WAIT)
        if outcome.connected and given.publish:
            answered.clear()
            client.publish(given.publish, b"not what a gateway would send", qos=1)
            answered.wait(WAIT)
        if outcome.connected and given.subscribe:
            client.subscribe(given.subscribe, qos=1)
            threading.Event().wait(given.listen)
        client.disconnect()
        client.loop_stop()
    except (ssl.SSLError, OSError) as error:
        outcome.said = str(error)
    return outcome


if __name__ == "__main__":
    print(json.dumps(asdict(attempt(Attempt(**json.loads(sys.argv[1]))))))
