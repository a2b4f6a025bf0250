# SPDX-License-Identifier: Apache-2.0
"""Sabotage: somebody who acknowledges each batch as soon as the broker has it.

For the gateway this is a hub that acknowledges before it commits, and it is all one with a gateway that frees a batch
on PUBACK.
"""

from __future__ import annotations

import json
import ssl
import struct
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.fault.rig.broker import Broker
from tests.fault.rig.ingest import Ingest

_STREAM_AND_SEQUENCE = struct.Struct(">5x8sQ")  # docs/reference/wire-format.md, Batch


class EagerAcknowledger:
    """A client with the certificate of the ingest."""

    def __init__(self, broker: Broker, ingest: Ingest) -> None:
        context = ssl.create_default_context(cafile=f"{broker.folder}/ca.crt")
        context.load_cert_chain(f"{ingest.folder}/ingest.crt", f"{ingest.folder}/ingest.key")
        self._port = broker.port
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="eager", protocol=mqtt.MQTTv5)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("energy/v1/+/batch", qos=1)
        self._client.on_message = self._acknowledge

    def __enter__(self) -> EagerAcknowledger:
        self._client.connect("localhost", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _acknowledge(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        stream, sequence = _STREAM_AND_SEQUENCE.unpack_from(message.payload)
        ack = {"stream": stream.hex(), "watermark": 0, "ranges": [[sequence, sequence]]}
        client.publish(message.topic.rsplit("/", 1)[0] + "/ack", json.dumps(ack), qos=1)
