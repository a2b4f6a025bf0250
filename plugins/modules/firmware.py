#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One step of an update of a gateway's firmware, or of its collector."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: firmware
short_description: Take a gateway's firmware or collector a step further, safely
version_added: "0.3.0"
description:
  - Transfers a signed release, has the gateway install it, looks, confirms, and takes back. One update is an
    attempt with a name; every step may be asked for again at any time, and an installation that was begun is never
    begun twice.
  - The gateway judges the release itself before anything is installed, by the keys and the model that the role
    firmware has given it. What it refuses it refuses with a reason, and nothing has changed.
  - Before an image is sent, and before it is installed, the unit that installs asks the device for its version within
    its limits. Where that fails the adapter's C(needs) lack something, or systemd cannot set the limits up; the module
    fails with the reason, and nothing has changed.
  - The installation runs by the gateway's own systemd. Unless somebody confirms it in time, the gateway goes back
    by itself.
  - The action plugin of the same name runs on the controller. It sends the image over the connection that is open,
    in chunks that fit the link, and goes on at the byte that the gateway's disk has.
options:
  step:
    description:
      - V(transfer) sends the image, as much of it as O(budget) and O(seconds) allow. V(install) begins to install it.
      - V(look) tells what has become of the attempt and how the gateway is. V(confirm) keeps what runs.
      - V(back) takes the gateway back to what it ran before its last release. V(forget) removes what was transferred.
    type: str
    required: true
    choices: [transfer, install, look, confirm, back, forget]
  attempt:
    description: Names the attempt, for instance C(ROLLOUT/SITE/NUMBER).
    type: str
    required: true
  kind:
    description: What is updated.
    type: str
    choices: [firmware, collector]
    default: firmware
  image:
    description: The image on the controller. Needed for V(transfer) and V(install).
    type: str
  manifest:
    description: The signed manifest on the controller. Needed for V(transfer) and V(install).
    type: str
  rate:
    description: Bytes a second that the transfer takes of the link, over ten seconds or more; 0 takes what it gives.
    type: int
    default: 0
  budget:
    description: Bytes that this execution may send; 0 is no limit.
    type: int
    default: 0
  seconds:
    description: Seconds after which this execution sends no further chunk; 0 is no limit.
    type: float
    default: 0
  confirm_within:
    description: Seconds that a new version may run without being confirmed; then the gateway goes back.
    type: float
    default: 900
  envelope:
    description: The content of the manifest. The action plugin sets it.
    type: str
attributes:
  check_mode:
    description: Tells whether the step would change something, and what the gateway would refuse.
    support: full
  diff_mode:
    description: An image has no difference that could be shown.
    support: none
  platform:
    description: Linux with systemd.
    platforms: linux
    support: full
requirements:
  - On the target Python 3.10 or newer and, for V(transfer) and V(install), python3-cryptography.
  - What the role firmware installs.
seealso:
  - module: wattfleet.energy.firmware_gateway
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Send the image, for ten minutes at most
  wattfleet.energy.firmware:
    step: transfer
    attempt: "2026-11/plant-a/1"
    image: releases/gateway-2.4.1.bin
    manifest: releases/gateway-2.4.1.json
    rate: 32000
    seconds: 600
  register: sent
  until: sent.seen.kind != 'transferring'
  retries: 100

- name: Install it; the gateway goes back after 15 minutes unless it is confirmed
  wattfleet.energy.firmware:
    step: install
    attempt: "2026-11/plant-a/1"
    image: releases/gateway-2.4.1.bin
    manifest: releases/gateway-2.4.1.json
    confirm_within: 900

- name: Wait until it runs the new version
  wattfleet.energy.firmware: {step: look, attempt: "2026-11/plant-a/1"}
  register: look
  until: look.seen.kind in ['running', 'failed']
  retries: 60
  delay: 5

- name: Keep it
  wattfleet.energy.firmware: {step: confirm, attempt: "2026-11/plant-a/1"}
"""

RETURN = r"""
seen:
  description: What was seen of the attempt.
  returned: success
  type: dict
  contains:
    kind:
      description: >-
        V(transferring) or V(transferred); V(refused) by the gateway, before anything was changed; V(begun), the
        installation runs or the gateway restarts; V(running), it runs the version that was meant; V(confirmed);
        V(failed), it runs what it ran before, or is on its way there; V(unknown), the gateway has never heard of the
        attempt.
      type: str
      sample: running
    why:
      description: The reason, where there is one.
      type: str
      sample: nobody has confirmed it within 900 s
    data:
      description: Figures of the step.
      type: dict
      contains:
        version:
          description: The version that runs, as the device itself tells it. After V(look).
          type: str
          sample: 2.4.1
        services:
          description: Whether each service of the collector is active. After V(look).
          type: dict
          sample: {energy-gateway.service: true, energy-persistence.service: true}
        clock:
          description: >-
            Seconds that the gateway's clock is ahead of the controller's, less what the answer took on its way.
            After V(look).
          type: float
          sample: 0.02
        attempt:
          description: The attempt that is under way on the gateway. After V(look).
          type: str
          sample: 2026-11/plant-a/1
        confirm_by:
          description: When the gateway goes back unless it is confirmed, by its own clock. After V(look).
          type: str
          sample: "2026-11-28T12:15:00Z"
        left:
          description: Seconds until then. After V(look).
          type: int
          sample: 812
        offset:
          description: Bytes of the image that are on the gateway's disk for certain. After V(transfer).
          type: int
          sample: 1048576
        length:
          description: Bytes of the whole image. After V(transfer).
          type: int
          sample: 8388608
        sent:
          description: Bytes that this execution has sent, those that were lost with a connection among them.
          type: int
          sample: 1048576
        drops:
          description: Times that the connection was lost meanwhile.
          type: int
          sample: 0
        seconds:
          description: Seconds that this execution took. After V(transfer).
          type: float
          sample: 33.1
"""

import os
import sys
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import _services
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import engine, install
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.device import SERVICES, device_of
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError, Host
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.incoming import Incoming
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.manifest import Refused
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.program import verify
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.store import Store
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.verdict import check_image

Found = dict[str, t.Any]


def seen(kind: str, why: str = "", **data: t.Any) -> Found:
    return {"kind": kind, "why": why, "data": data}


def transfer(module: AnsibleModule, host: Host) -> Found:
    """Judge the release before a byte of it is sent, and say where to begin."""
    options = module.params
    envelope = options["envelope"].encode()
    name = Path(options["image"]).name
    manifest, _digest = engine.judge(host, options["kind"], envelope, name)
    incoming = Incoming(host, manifest.sha256)
    offset = incoming.offset()
    device_of(host, options["kind"]).check(manifest.length, name)
    if module.check_mode:
        kind = "transferred" if offset == manifest.length else "transferring"
        return {
            "changed": offset < manifest.length,
            "seen": seen(kind, offset=offset, length=manifest.length, sent=0),
        }
    current = Store(host).attempt()
    if current is not None and current["phase"] in ("accepted", "installing"):
        raise FirmwareError(
            f"{current['attempt']} is being installed here; send the next image when it has ended"
        )
    if not host.at(install.PROGRAM).is_file():
        raise FirmwareError(f"{install.PROGRAM} is missing: run the role firmware for this gateway first")
    if offset == 0:
        # Before a byte is sent: whether its own units can work with the tool at all.
        engine.rehearse(host, options["kind"])
    incoming.prepare(envelope, manifest.length)
    data: Found = {"offset": offset, "length": manifest.length, "sent": 0}
    if offset == manifest.length:
        told = verify(host, incoming)
        if "refused" in told:
            return {"changed": True, "seen": seen("refused", told["refused"], **data)}
        return {"changed": False, "seen": seen("transferred", "verified from the gateway's disk", **data)}
    receiver = {"python": sys.executable, "program": install.PROGRAM, "sha256": manifest.sha256}
    return {"changed": False, "seen": seen("transferring", **data), "receiver": receiver}


def begin(module: AnsibleModule, host: Host) -> Found:
    options = module.params
    order = engine.Order(
        attempt=options["attempt"],
        kind=options["kind"],
        envelope=options["envelope"].encode(),
        name=Path(options["image"]).name,
        confirm_within=options["confirm_within"],
    )
    if module.check_mode:
        known = Store(host).find(order.attempt, engine.FORWARD)
        if known is not None:
            return told(engine.answer(known))
        manifest, _digest = engine.judge(host, order.kind, order.envelope, order.name)
        incoming = Incoming(host, manifest.sha256)
        if incoming.image.exists():
            check_image(manifest, incoming.image)
        return {"changed": True, "seen": seen("begun", "would be installed")}
    return told(engine.begin(host, order))


def look(module: AnsibleModule, host: Host) -> Found:
    answer, data = engine.look(host, module.params["attempt"], module.params["kind"])
    units = _services.read(list(SERVICES), module.run_command)
    data["services"] = {name: unit["active"] == "active" for name, unit in units.items()}
    return {
        "changed": False,
        "seen": seen(answer.kind, answer.why, **data, clock=None),
        "clock": time.time(),
    }


def other(module: AnsibleModule, host: Host) -> Found:
    """Confirm, back and forget."""
    attempt, kind, step = (module.params[name] for name in ("attempt", "kind", "step"))
    if module.check_mode:
        known = Store(host).find(attempt, engine.BACK if step == "back" else None)
        changes = {
            "confirm": known is not None and known["phase"] in ("running", "confirming"),
            "back": known is None,
            "forget": any((Store(host).base / "incoming").glob("*.image")),
        }[step]
        return {**told(engine.answer(known) if known else engine.Answer("unknown")), "changed": changes}
    if step == "back":
        return told(engine.back(host, attempt, kind))
    return told(engine.confirm(host, attempt) if step == "confirm" else engine.forget(host, attempt))


def told(answer: engine.Answer) -> Found:
    return {"changed": answer.changed, "seen": seen(answer.kind, answer.why)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {
                "type": "str",
                "required": True,
                "choices": ["transfer", "install", "look", "confirm", "back", "forget"],
            },
            "attempt": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["firmware", "collector"], "default": "firmware"},
            "image": {"type": "str"},
            "manifest": {"type": "str"},
            "rate": {"type": "int", "default": 0},
            "budget": {"type": "int", "default": 0},
            "seconds": {"type": "float", "default": 0},
            "confirm_within": {"type": "float", "default": 900},
            "envelope": {"type": "str"},
        },
        required_if=[
            ("step", "transfer", ["image", "manifest"]),
            ("step", "install", ["image", "manifest"]),
        ],
        supports_check_mode=True,
    )
    step = module.params["step"]
    if os.geteuid() != 0:
        module.fail_json(msg="only root can do this; set become: true")
    if step in ("transfer", "install") and not module.params["envelope"]:
        module.fail_json(msg="envelope is set by the action plugin; call the module through Ansible")
    if not module.params["confirm_within"] >= 30:
        module.fail_json(
            msg=f"confirm_within: found {module.params['confirm_within']:g}, expected 30 seconds or more"
        )
    host = Host()
    steps = {"transfer": transfer, "install": begin, "look": look}
    try:
        module.exit_json(**steps.get(step, other)(module, host))
    except Refused as refusal:
        module.exit_json(changed=False, seen=seen("refused", str(refusal)))
    except (FirmwareError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
