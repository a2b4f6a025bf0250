# SPDX-License-Identifier: Apache-2.0
"""An image goes to a lab host by a link that is lost 50 times, and the host's power is cut three times meanwhile.

Counted are the bytes: those that were handed to the link, by what the module tells and by the link itself, and those
on the host's disk at the end, which it has read again. Nothing may begin anew. The control takes the note of the place
to go on at away at each power cut.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from wattfleet import cli, releases
from wattfleet.paths import BUILD, ROOT
from wattfleet_lab import client
from wattfleet_lab.lab import Lab, Wanted

from tests.fault.report import FaultReport

LAB = "transfer"
HOST = "transfer-gw"
MODEL = "moxa-uc-8220"
LENGTH = 8 << 20
DROPS = 50
CUTS = 3
# Bytes that a connection lasts. The first one carries the module, which has 200 KB.
FIRST = 500_000
SHORTEST, LONGEST = 40_000, 200_000
# What a session costs besides the image: ssh's greeting and the module, on the wire.
SESSION, MODULE = 12_000, 260_000
WASTE = 0.02
# Bytes of the smallest chunk; the module makes them smaller with each drop, down to this.
CHUNK = 32 * 1024
PATIENCE = 900.0
WORDS = "of this test alone"
SEED = 20261128


class Site:
    """A lab host, its release, and the link to it."""

    def __init__(self) -> None:
        self.lab = Lab(LAB)
        self.folder = BUILD / "faults" / "transfer"
        self.link = self.folder / "link.json"
        self.carried = Path(f"{self.link}.carried")

    def up(self) -> None:
        # What is left of a temporary folder harms nobody.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.lab.add_host(Wanted(HOST, "plain", model=MODEL))
        self._release()
        self.set_link([])
        self._inventory()
        role = self.folder / "role.yml"
        role.write_text(
            json.dumps(
                [
                    {
                        "name": "Let the host take releases",
                        "hosts": HOST,
                        "gather_facts": False,
                        "become": True,
                        "roles": ["wattfleet.energy.firmware"],
                    }
                ]
            )
        )
        done = self._run("ansible-playbook", "-i", str(self.folder / "inventory.yml"), str(role))
        if done.returncode != 0:
            raise AssertionError(f"the host could not be prepared: {done.stdout[-800:]}")
        self.carried.unlink(missing_ok=True)

    def down(self) -> None:
        self.lab.down(now=True)

    def _release(self) -> None:
        os.environ[releases.PASSPHRASE] = WORDS
        image = str(self.folder / "image.bin")
        about = ["--version", "2.4.1", "--model", MODEL]
        steps = [["lab", "firmware", "make", image, *about, "--size", str(LENGTH)]]
        steps.append(["release", "make", image, *about, "--number", "1"])
        self.keys = []
        for number in (1, 2):
            key = Ed25519PrivateKey.generate()
            path = self.folder / f"{number}.key"
            path.write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(WORDS.encode()))
            )
            self.keys.append(base64.b64encode(key.public_key().public_bytes_raw()).decode())
            steps.append(["release", "sign", str(self.folder / "image.json"), "--key", str(path)])
        for words in steps:
            if cli.main(words) != 0:
                raise AssertionError(f"wattfleet {' '.join(words)} failed")

    def _inventory(self) -> None:
        proxy = f"{sys.executable} {ROOT}/tests/fault/rig/weak_link.py {self.link} %h %p"
        tool = ["firmware-update"]
        variables = {
            "ansible_host": self.lab.state.host(HOST).address,
            "ansible_user": "admin",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f'-F {self.lab.state.ssh_config} -o "ProxyCommand={proxy}"',
            "ansible_control_path_dir": str(self.lab.state.path / "cp"),
            "firmware_model": MODEL,
            "firmware_trust": {"threshold": 2, "keys": self.keys},
            "firmware_adapter": {
                "install": [*tool, "install", "{image}"],
                "version": [*tool, "version"],
                "back": [*tool, "rollback"],
                "needs": {"write": ["/var/lib/firmware"]},
            },
        }
        (self.folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": {HOST: variables}}}))

    def set_link(self, lives: list[int]) -> None:
        self.link.write_text(json.dumps({"lives": lives, "delay": 0, "rate": 0}))

    @property
    def lives_left(self) -> int:
        try:
            return len(json.loads(self.link.read_text())["lives"])
        except ValueError:
            return DROPS  # it is being written

    @property
    def incoming(self) -> Path:
        return self.lab.state.folder(HOST).root / "var/lib/energy-firmware/incoming"

    @property
    def offset(self) -> int:
        try:
            return max(
                (int(json.loads(path.read_text())["offset"]) for path in self.incoming.glob("*.json")),
                default=0,
            )
        except (OSError, ValueError):
            return 0

    def cut(self, *, forget: bool) -> None:
        """Power away and back. With `forget` the note of the place to go on at is lost with it."""
        client.request(self.lab.state, "cut", host=HOST)
        if forget:
            for path in self.incoming.glob("*.json"):
                path.unlink()
        client.request(self.lab.state, "start", host=HOST)

    def transfer(self) -> dict[str, Any] | None:
        """One execution of the module: what it has seen, or None where it told nothing."""
        arguments = {
            "step": "transfer",
            "attempt": f"fault/{HOST}/1",
            "image": str(self.folder / "image.bin"),
            "manifest": str(self.folder / "image.json"),
        }
        done = self._run(
            "ansible",
            HOST,
            "--inventory",
            str(self.folder / "inventory.yml"),
            "--become",
            "--one-line",
            "--module-name",
            "wattfleet.energy.firmware",
            "--args",
            json.dumps(arguments),
        )
        head, arrow, text = done.stdout.partition(" => ")
        if not arrow or "UNREACHABLE" in head:
            return None
        answer = json.loads(text.strip().splitlines()[0])
        if "seen" not in answer:
            raise AssertionError(f"the module failed: {answer.get('msg')}")
        return dict(answer["seen"])

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "true",
        }
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )


def run(rounds: int = 1, *, forget: bool = False) -> FaultReport:
    """One image a round."""
    report = FaultReport("transfer-control" if forget else "transfer", rounds)
    for number in range(rounds):
        site = Site()
        try:
            site.up()
            _round(site, report, random.Random(SEED + number), forget)
        finally:
            site.down()
    return report


def _round(site: Site, report: FaultReport, chance: random.Random, forget: bool) -> None:
    site.set_link([FIRST, *(chance.randrange(SHORTEST, LONGEST) for _drop in range(DROPS - 1))])
    cuts = 0
    over = threading.Event()

    def power() -> None:
        nonlocal cuts
        while cuts < CUTS and not over.wait(0.02):
            if site.offset > (cuts + 1) * LENGTH // (CUTS + 2):
                site.cut(forget=forget)
                cuts += 1
                # Until the place is known again, so that one cut is not taken for the next one.
                over.wait(3)

    thread = threading.Thread(target=power)
    thread.start()
    begun, sent, executions, silent, seen = time.monotonic(), 0, 0, 0, None
    try:
        while time.monotonic() - begun < PATIENCE:
            executions += 1
            seen = site.transfer()
            if seen is None:
                silent += 1
                continue
            sent += seen["data"]["sent"]
            if seen["kind"] != "transferring":
                break
    finally:
        over.set()
        thread.join()
    drops = DROPS - site.lives_left
    wire = sum(int(line) for line in site.carried.read_text().split())
    sessions = len(site.carried.read_text().split())
    waste = wire - LENGTH - sessions * SESSION - (executions + silent) * MODULE
    allowed = WASTE * LENGTH + (drops + cuts) * CHUNK
    report.faults += drops + cuts
    report.readings += 1
    if seen is None or seen["kind"] != "transferred":
        report.lost += 1
        report.findings.append(f"the image is not there: {seen}")
    if (drops, cuts) != (DROPS, CUTS):
        report.findings.append(f"{drops} drops and {cuts} cuts instead of {DROPS} and {CUTS}")
        report.late += 1
    if waste > allowed:
        report.doubled += 1
        report.findings.append(f"{waste} bytes went twice, allowed are {allowed:.0f}")
    report.figures |= {
        "length": LENGTH,
        "sent at most, as the module tells": sent,
        "on the wire": wire,
        "wasted, per cent": round(100 * max(waste, 0) / LENGTH, 2),
        "drops": drops,
        "cuts": cuts,
        "sessions": sessions,
        "executions": executions,
        "seconds": round(time.monotonic() - begun, 1),
    }


def control() -> FaultReport:
    """Without the note, each power cut makes the transfer begin anew."""
    return run(1, forget=True)
