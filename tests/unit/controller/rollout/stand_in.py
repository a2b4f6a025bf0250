# SPDX-License-Identifier: Apache-2.0
"""A fleet for real plays without hosts: site files on disk, the collection with a stand-in for module `firmware`.

The stand-in has the options and answers of wattfleet.energy.firmware, and runs over Ansible's local connection. A
gateway is a file of JSON; what it does with a release is written in it. It counts what it was asked for.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
IMAGE = b"image of 2.0.0 " * 20000
MODULE = '''\
#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Stands in for wattfleet.energy.firmware."""

import fcntl
import json
import os
import time

from ansible.module_utils.basic import AnsibleModule

FOLDER = {folder!r}


def main():
    module = AnsibleModule(
        argument_spec={{
            "step": {{"required": True}},
            "attempt": {{"required": True}},
            "kind": {{}},
            "image": {{}},
            "manifest": {{}},
            "rate": {{"type": "int"}},
            "budget": {{"type": "int"}},
            "seconds": {{"type": "float"}},
            "confirm_within": {{"type": "float"}},
        }},
        supports_check_mode=True,
    )
    step, attempt = module.params["step"], module.params["attempt"]
    path = os.path.join(FOLDER, attempt.split("/")[1] + ".json")
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        gateway = json.load(file)
        gateway["asked"].append([time.time(), step, attempt, os.environ.get("WATTFLEET_NODE", "")])
        seen = answer(gateway, step, attempt, module.params)
        file.seek(0)
        file.truncate()
        json.dump(gateway, file)
    if gateway.get("slow", {{}}).get(step):
        time.sleep(gateway["slow"][step])
    if seen is None:
        module.fail_json(msg="the stand-in was told to give no answer")
    module.exit_json(changed=step == "install", seen=seen)


def answer(gateway, step, attempt, params):
    does = gateway["does"]
    if does == "errors" and step != "look":
        return None
    if step == "transfer":
        if does == "refuses":
            return {{"kind": "refused", "why": "the manifest is not signed"}}
        length = os.path.getsize(params["image"])
        part = (length + 1) // gateway.get("parts", 1)
        gateway["offset"] = min(length, gateway.get("offset", 0) + part)
        kind = "transferred" if gateway["offset"] == length else "transferring"
        data = {{"offset": gateway["offset"], "length": length, "sent": part, "seconds": 0.5}}
        return {{"kind": kind, "data": data}}
    if step in ("install", "back"):
        if attempt not in gateway["flashed"]:
            gateway["flashed"].append(attempt)
            gateway["begun"] = time.time()
            gateway["before"] = gateway["version"]
        if does == "fails":
            return {{"kind": "failed", "why": "firmware-update ended with 1"}}
        return {{"kind": "begun"}}
    if attempt not in gateway["flashed"]:
        return {{"kind": "unknown", "data": {{"version": gateway["version"]}}}}
    if step == "confirm":
        gateway["confirmed"] = True
        return {{"kind": "confirmed"}}
    if time.time() - gateway["begun"] < 1.0 or does == "hangs":
        return {{"kind": "begun"}}
    gateway["version"] = "1.0.0" if does == "lies" or gateway["before"] == "2.0.0" else "2.0.0"
    if does == "lies":
        return {{"kind": "failed", "why": "it boots the old version", "data": {{"version": "1.0.0"}}}}
    data = {{"version": gateway["version"], "services": {{}}, "clock": 0.0, "attempt": attempt}}
    return {{"kind": "running", "data": data}}


if __name__ == "__main__":
    main()
'''
# Read by every Python of the fleet's environment: the gate lets every site pass that has told its version, but for
# those that `undecided` names.
GATE = """\
from pathlib import Path

try:
    from wattfleet.rollout import gate
    from wattfleet.rollout.gates import Outcome, Verdict
except ImportError:
    pass  # the gateways' bare Python
else:
    class Passes:
        def verdicts(self, records):
            assert all("version" in one.data["look"] for one in records.values()), "told what the gateway said"
            undecided = Path({undecided!r}).read_text().split()
            return {{
                name: Verdict(Outcome.INCONCLUSIVE, "12 samples of 50")
                if name in undecided
                else Verdict(Outcome.PASS, "4 of 4 checks passed")
                for name in records
            }}

    gate.gate_of = lambda facts, hub: Passes()
"""
SITE = """\
site: {name}
region: emea
ring: {ring}
timezone: Europe/Paris
gateway: {{model: moxa-uc-8220, address: 10.20.4.{number}}}
link: {{type: lan}}
network:
  wan: {{interface: eth0, address: 10.20.4.{number}/24, gateway: 10.20.4.1}}
  energy: {{interface: eth1, address: 192.168.10.10/24}}
buses:
  - {{name: hall, type: modbus-tcp, host: 192.168.10.20}}
meters:
  - {{name: supply, bus: hall, unit: 1, profile: eastron-sdm630}}
"""
FLEET = """\
plugin: wattfleet.energy.sites
fleet: demo
rings: [canary, rest]
management: {{networks: [10.1.0.0/24], user: admin}}
hub: {{name: hub.energy.example, address: 10.1.1.2}}
rollout: {rollout}
# A soak of a second is too short for them.
gates: {{crc_errors: {{enabled: false}}, timeouts: {{enabled: false}}}}
"""
LIMITS = {
    "max_offline": 10,
    "max_failed": 0,
    "growth": 10,
    "soak": 1,
    "deadlines": {"transfer": 900, "install": 900, "reboot": 900},
    "forks": 8,
}


class StandInFleet:
    """`count` sites; the first is the canary."""

    def __init__(self, folder: Path, count: int, rollout: Mapping[str, Any] = {}) -> None:
        self.folder = folder
        self._begun: list[subprocess.Popen[str]] = []
        self.inventory = folder / "fleet.sites.yml"
        self.gateways = folder / "gateways"
        self.names = [f"s{index:02d}" for index in range(count)]
        for part in ("sites", "gateways", "group_vars", "host_vars"):
            (folder / part).mkdir(parents=True)
        self.inventory.write_text(FLEET.format(rollout=json.dumps({**LIMITS, **rollout})))
        (folder / "group_vars" / "all.yml").write_text(
            "ansible_connection: local\nansible_become: false\nansible_timeout: 3\n"
        )
        for index, name in enumerate(self.names):
            ring = "canary" if index == 0 else "rest"
            text = SITE.format(name=name, ring=ring, number=index + 11)
            (folder / "sites" / f"{name}.yml").write_text(text)
            self.write(name, {"version": "1.0.0", "does": "good", "flashed": [], "asked": []})
        self.image, self.manifest = folder / "image.bin", folder / "manifest.json"
        self._release()
        self._undecided = folder / "undecided"
        self.undecided()
        (folder / "sitecustomize.py").write_text(GATE.format(undecided=str(self._undecided)))
        self.collections = folder / "collections"
        self._overlay()

    def _release(self) -> None:
        self.image.write_bytes(IMAGE)
        manifest = {
            "format": 1,
            "kind": "firmware",
            "version": "2.0.0",
            "number": 1,
            "models": ["moxa-uc-8220"],
            "length": len(IMAGE),
            "sha256": hashlib.sha256(IMAGE).hexdigest(),
            "expires": "2099-01-01T00:00:00Z",
        }
        data = base64.b64encode(json.dumps(manifest).encode()).decode()
        self.manifest.write_text(json.dumps({"manifest": data, "signatures": []}))

    def _overlay(self) -> None:
        """The collection by links, but for the module and its action plugin."""
        here = self.collections / "ansible_collections" / "wattfleet" / "energy"
        here.mkdir(parents=True)
        for entry in ROOT.iterdir():
            if entry.name != "plugins" and not entry.name.startswith("."):
                (here / entry.name).symlink_to(entry)
        for folder in (ROOT / "plugins").iterdir():
            target = here / "plugins" / folder.name
            if folder.name in ("modules", "action"):
                target.mkdir(parents=True)
                for file in folder.glob("*.py"):
                    if file.name != "firmware.py":
                        (target / file.name).symlink_to(file)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(folder)
        module = here / "plugins" / "modules" / "firmware.py"
        module.write_text(MODULE.format(folder=str(self.gateways)))

    # Gateways.

    def write(self, name: str, gateway: Mapping[str, Any]) -> None:
        (self.gateways / f"{name}.json").write_text(json.dumps(gateway))

    def read(self, name: str) -> dict[str, Any]:
        with (self.gateways / f"{name}.json").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # the module writes it anew
            return dict(json.load(file))

    def does(self, name: str, what: str, **more: Any) -> None:
        """Have a gateway do something else with the release."""
        self.write(name, {**self.read(name), "does": what, **more})

    def unreachable(self, name: str) -> None:
        # Nobody listens at port 9 of the loopback.
        (self.folder / "host_vars" / f"{name}.yml").write_text(
            "ansible_connection: ssh\nansible_host: 127.0.0.1\nansible_port: 9\n"
        )

    def undecided(self, *names: str) -> None:
        """The gate is inconclusive about these sites from now on."""
        self._undecided.write_text(" ".join(names))

    # Commands.

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "WATTFLEET_INVENTORY": str(self.inventory),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wattfleet", "rollout", *arguments]

    def run(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=ROOT,
            timeout=timeout,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Beside the test; ended with it by `close`."""
        with (self.folder / "begun.log").open("a") as log:
            process = subprocess.Popen(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                env=self.environment,
                cwd=ROOT,
            )
        self._begun.append(process)
        return process

    def close(self) -> None:
        for process in self._begun:
            process.kill()
            process.wait()

    def plan(self, name: str = "r1", *more: str) -> str:
        """Plan; the digest."""
        done = self.run(
            "plan",
            name,
            "--image",
            str(self.image),
            "--manifest",
            str(self.manifest),
            "--ask",
            "none",
            "--json",
            *more,
        )
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["digest"])

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))
