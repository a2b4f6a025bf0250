#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
module: mqtt_probe
short_description: Ask whether a broker can be reached with TLS 1.3, and name the cause when it cannot
version_added: "0.3.0"
description:
  - Connects from the host to a broker, verifies its certificate, shows a client certificate if one is given,
    and tells what was agreed on and how long it took.
  - What goes wrong is told as one of a few causes, so that a wrong clock is not taken for a wrong certificate.
  - With O(connect=true) it also begins an MQTT 5 session, and tries what the client may publish and subscribe to.
  - A gateway's certificate stands for one session at the hub. While the collector runs, that session is its own;
    the module then makes the TLS handshake and no more, and says so in RV(note).
  - What the broker does not like does not make the module fail. Assert what the result should be.
extends_documentation_fragment:
  - wattfleet.energy._attributes
options:
  host:
    description:
      - Name or address of the broker.
    type: str
    required: true
  port:
    description:
      - TCP port of the broker.
    type: int
    default: 8883
  server_name:
    description:
      - Name that the broker's certificate has to be for. Defaults to O(host).
    type: str
  ca:
    description:
      - File on the host with the authorities that are trusted, PEM.
    type: path
    default: /etc/ssl/energy/ca.crt
  ca_content:
    description:
      - The authorities themselves, in place of O(ca).
    type: str
  client_certificate:
    description:
      - File on the host with the client's certificate and its chain, PEM. Without it none is shown.
    type: path
  client_key:
    description:
      - File on the host with the key of O(client_certificate), PEM and not encrypted.
    type: path
  connect:
    description:
      - Also begin an MQTT session. It is a clean one, and ends with the module.
    type: bool
    default: false
  client_id:
    description:
      - Client id of the session; empty for one that the broker chooses.
      - Needed while the collector runs, and of use then only with a certificate that is not the collector's. The
        hub's broker takes the name in the certificate for the client id, whatever the client says.
    type: str
    default: ""
  publish:
    description:
      - Topics to publish an empty message to, with QoS 1 and not retained. What is allowed does reach who listens.
    type: list
    elements: str
    default: []
  subscribe:
    description:
      - Topics to subscribe to.
      - Mosquitto grants every subscription and holds back what the client may not read. A topic that is in
        O(publish) too proves more, since the message has to come back.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds that each step may take.
    type: float
    default: 10.0
  socket:
    description:
      - Control socket of the collector, by which is told whether it runs.
    type: path
    default: /run/energy/control.sock
seealso:
  - module: wattfleet.energy.host_state
  - name: MQTT Version 5.0
    description: Packets and reason codes.
    link: https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html
"""

EXAMPLES = r"""
- name: Shake hands with the hub as the collector does
  wattfleet.energy.mqtt_probe:
    host: hub.energy.internal
    client_certificate: /etc/ssl/energy/gateway.crt
    client_key: /etc/ssl/energy/gateway.key
  become: true
  register: broker

- name: The hub takes the gateway's certificate
  ansible.builtin.assert:
    that:
      - broker.ok
      - broker.client_certificate == 'accepted'
      - broker.certificate.days_left > 30
    fail_msg: "{{ (broker.failure | default({}, true)).message | default('the certificate is not asked for') }}"

- name: Try what a site that is not in operation yet may publish
  wattfleet.energy.mqtt_probe:
    host: hub.energy.internal
    client_certificate: /etc/ssl/energy/gateway.crt
    client_key: /etc/ssl/energy/gateway.key
    connect: true
    publish: [energy/v1/plant-b/result]
  become: true
  register: session

- name: It may not write the topics of another site
  ansible.builtin.assert:
    that: not session.mqtt.publish[0].allowed
"""

RETURN = r"""
ok:
  description: Whether the handshake, and the session where one was asked for, came about.
  returned: always
  type: bool
  sample: true
host:
  description: O(host).
  returned: always
  type: str
  sample: hub.energy.internal
port:
  description: O(port).
  returned: always
  type: int
  sample: 8883
server_name:
  description: The name that the certificate was held against.
  returned: always
  type: str
  sample: hub.energy.internal
version:
  description: The version agreed on; null without a handshake.
  returned: always
  type: str
  sample: TLSv1.3
cipher:
  description: The cipher suite agreed on; null without a handshake.
  returned: always
  type: str
  sample: TLS_AES_256_GCM_SHA384
certificate:
  description: The broker's certificate; null without a handshake.
  returned: always
  type: dict
  sample:
    subject: CN=hub.energy.internal
    issuer: CN=Fleet issuing 2026,O=Fleet
    common_name: hub.energy.internal
    names: ["DNS:hub.energy.internal", "IP:198.18.0.2"]
    serial: 1f3a
    not_before: 1770000000.0
    not_after: 1801536000.0
    days_left: 312.5
client_certificate:
  description:
    - What became of the client's certificate, V(none) when there was none to show, V(accepted), V(refused), or
      V(unknown) when it did not come to that.
  returned: always
  type: str
  sample: accepted
latency:
  description: Seconds that connecting and the handshake took; null for what did not come about.
  returned: always
  type: dict
  sample: {connect: 0.0012, handshake: 0.0063}
collector:
  description: Whether the collector runs on the host.
  returned: always
  type: bool
  sample: true
mqtt:
  description: The MQTT session, null where none was begun.
  returned: always
  type: dict
  contains:
    reason_code:
      description: Reason code of the CONNACK.
      returned: always
      type: int
      sample: 0
    reason:
      description: The same in words.
      returned: always
      type: str
      sample: success
    client_id:
      description: Client id of the session, as far as the broker tells it.
      returned: always
      type: str
      sample: plant-a
    latency:
      description: Seconds from CONNECT to CONNACK.
      returned: always
      type: float
      sample: 0.0011
    publish:
      description: What came of each topic of O(publish).
      returned: always
      type: list
      elements: dict
      sample: [{topic: energy/v1/plant-b/result, allowed: false, reason_code: 135, reason: not authorized}]
    subscribe:
      description: What came of each topic of O(subscribe). C(delivered) is null for topics not in O(publish).
      returned: always
      type: list
      elements: dict
      sample: [{topic: test/a, allowed: true, reason_code: 1, reason: "granted, QoS 1", delivered: true}]
note:
  description: Why there is no MQTT session, or nothing published, although that was asked for; else empty.
  returned: always
  type: str
  sample: ""
failure:
  description: Why it is not RV(ok), else null.
  returned: always
  type: dict
  contains:
    cause:
      description:
        - V(time) (a certificate is not valid yet, or has expired, by this host's clock), V(chain) (not issued by a
          trusted authority), V(name) (issued for another name), V(version) (no TLS 1.3 in common),
          V(client_certificate) (refused, or missing), V(mqtt) (the broker refuses the session),
          V(unresolved) (the name is not found), V(refused), V(filtered) (a firewall on the way, or this host's own,
          says no), V(no_route), V(timeout), V(not_tls), V(handshake) and V(closed) (what answers ends the
          connection), V(files) (a file on this host cannot be used).
      returned: always
      type: str
      sample: time
    message:
      description: The failure in one line.
      returned: always
      type: str
      sample: "hub.energy.internal:8883: the certificate of CN=hub.energy.internal is not valid before
        2026-11-28 19:00:00 UTC, and this host's clock says 1970-01-01 00:02:11 UTC: set the clock, or wait"
"""

import pathlib
import ssl
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _certificate,
    _control,
    _faults,
    _mqtt_probe,
    _tls_probe,
)


def authorities(path: str, content: str | None) -> str:
    """The trusted authorities in PEM. A file that cannot be read is a result too, and the handshake tells it."""
    if content is not None:
        return content
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _tls_probe.ProbeError("files", f"{path}: {getattr(error, 'strerror', None) or error}") from None


def running_site(socket_path: str) -> str | None:
    """The site of the collector that runs here, '' where it does not say, None where none runs."""
    try:
        control = _control.Control(socket_path, timeout=10.0)
    except _control.NotRunningError:
        return None
    except _faults.FaultError:
        return ""
    try:
        return str(control.request("status").get("site") or "")
    except _faults.FaultError:
        return ""
    finally:
        control.close()


def why_no_session(site: str | None, client_id: str, certificate: str | None) -> str:
    """Why no session may be begun beside the running collector's; '' when one may."""
    if site is None:
        return ""
    if not client_id:
        return "the collector runs here and holds the session: TLS handshake only, since no client_id names another"
    if client_id == site:
        return f"the collector runs here and its session is {site}: TLS handshake only"
    if certificate is not None:
        try:
            name = _certificate.read(certificate)["common_name"]
        except _certificate.UnreadableError:
            name = None
        if name in (site, None) or not site:
            return (
                f"the certificate is the running collector's ({name or 'not readable'}), and the hub takes its name "
                "for the client id: TLS handshake only; stop energy-persistence.service to try a session"
            )
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 8883},
            "server_name": {"type": "str"},
            "ca": {"type": "path", "default": "/etc/ssl/energy/ca.crt"},
            "ca_content": {"type": "str"},
            "client_certificate": {"type": "path"},
            # A path, and no secret itself.
            "client_key": {"type": "path", "no_log": False},
            "connect": {"type": "bool", "default": False},
            "client_id": {"type": "str", "default": ""},
            "publish": {"type": "list", "elements": "str", "default": []},
            "subscribe": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 10.0},
            "socket": {"type": "path", "default": _control.DEFAULT_SOCKET},
        },
        required_together=[("client_certificate", "client_key")],
        supports_check_mode=True,
    )
    options = module.params
    if not 1 <= options["port"] <= 65535:
        module.fail_json(msg=f"port {options['port']} is outside of 1 to 65535")
    if options["timeout"] <= 0:
        module.fail_json(msg=f"timeout {options['timeout']:g} must be above 0 s")
    if (options["publish"] or options["subscribe"]) and not options["connect"]:
        module.fail_json(msg="publish and subscribe are tried in a session: set connect to true")

    site = running_site(options["socket"])
    note = ""
    begin = False
    if options["connect"]:
        note = why_no_session(site, options["client_id"], options["client_certificate"])
        begin = not note
        if begin and module.check_mode and options["publish"]:
            note = "check mode: nothing is published, since what is allowed would reach who listens"
            options["publish"] = []
    result = look(options, begin)
    module.exit_json(changed=False, collector=site is not None, note=note, **result)


def look(options: dict[str, t.Any], connect: bool) -> dict[str, t.Any]:
    """The result of the handshake and, with `connect`, of the session."""
    told: dict[str, t.Any] = {}

    def session(secure: ssl.SSLSocket) -> None:
        try:
            told.update(
                _mqtt_probe.talk(
                    secure, options["client_id"], options["publish"], options["subscribe"], options["timeout"]
                )
            )
        except _mqtt_probe.RefusedError as error:
            told["refusal"] = str(error)

    target = _tls_probe.Target(
        host=options["host"],
        port=options["port"],
        server_name=options["server_name"] or options["host"],
        authorities="",
        certificate=options["client_certificate"],
        key=options["client_key"],
        timeout=options["timeout"],
    )
    try:
        target = target._replace(authorities=authorities(options["ca"], options["ca_content"]))
    except _tls_probe.ProbeError as error:
        result = _tls_probe.nothing(target)
        result["failure"] = error.as_dict()
    else:
        result = _tls_probe.probe(target, session if connect else None)
    refusal = told.pop("refusal", None)
    if refusal is None and told.get("reason_code", 0) >= 0x80:
        refusal = f"the broker refuses the session: {told['reason']}"
    if refusal is not None:
        result["ok"] = False
        result["failure"] = {"cause": "mqtt", "message": f"{options['host']}:{options['port']}: {refusal}"}
    result["mqtt"] = told or None
    return result


if __name__ == "__main__":
    main()
