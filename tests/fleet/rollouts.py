# SPDX-License-Identifier: Apache-2.0
"""Rollouts on a lab fleet: keys, releases with good and bad images, the command, and what became of each gateway."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from wattfleet.paths import ROOT

from tests.fleet.fleet import Fleet

PASSPHRASE = "of this fleet alone"
SIGNERS = ("anna", "ben")
# Of the lab's firmware-update; a tool that hangs is stopped after `timeout`.
ADAPTER = {
    "install": ["firmware-update", "install", "{image}"],
    "version": ["firmware-update", "version"],
    "model": ["firmware-update", "model"],
    "back": ["firmware-update", "rollback"],
    "confirm": ["firmware-update", "confirm"],
    "cancel": ["firmware-update", "cancel"],
    "timeout": 40,
    "needs": {"write": ["/var/lib/firmware"]},
}
# As short as half a minute of readings a second allows. A gateway that nobody confirms goes back after
# reboot + soak + patience.
LIMITS = {
    "max_offline": 6,
    "growth": 3,
    "soak": 60,
    "patience": 60,
    "install_time": 60,
    "deadlines": {"install": 180, "reboot": 120},
}
BACK_AFTER = 120 + 60 + 60
READINGS = ("readings", "meters", "nulls", "uncertain", "crc_errors", "timeouts")


@dataclass
class Releases:
    """Makes and signs releases. Numbers only grow."""

    folder: Path
    models: list[str]
    number: int = 0
    public: list[str] = field(default_factory=list)

    def make_keys(self) -> None:
        for name in SIGNERS:
            said = self._wattfleet("release", "keygen", str(self.folder / f"{name}.key"))
            match = re.search(r"^public: (\S+)$", said, re.MULTILINE)
            assert match is not None, said
            self.public.append(match[1])

    def firmware(self, version: str, behaviour: str = "good") -> Path:
        """An image; its manifest lies beside it."""
        image = self.folder / f"gateway-{version}.bin"
        self._wattfleet(
            "lab", "firmware", "make", str(image), "--version", version, "--behaviour", behaviour, "--size", "1M",
            *self._models(),
        )  # fmt: skip
        return self._signed(image, version, "firmware")

    def collector(self, built: Path, old: str, version: str) -> Path:
        """The collector's release with another version in it."""
        image = self.folder / f"energy-collector-{version}.pyz"
        with zipfile.ZipFile(built) as source, zipfile.ZipFile(image, "w") as target:
            for item in source.infolist():
                content = source.read(item)
                if item.filename == "energy_collector/__init__.py":
                    content = content.replace(f'"{old}"'.encode(), f'"{version}"'.encode())
                target.writestr(item, content)
        return self._signed(image, version, "collector")

    def _signed(self, image: Path, version: str, kind: str) -> Path:
        self.number += 1
        self._wattfleet(
            "release", "make", str(image), "--version", version, "--number", str(self.number), "--kind", kind,
            *self._models(),
        )  # fmt: skip
        for name in SIGNERS:
            self._wattfleet(
                "release", "sign", str(image.with_suffix(".json")), "--key", str(self.folder / f"{name}.key")
            )
        return image

    def _models(self) -> list[str]:
        return [word for model in self.models for word in ("--model", model)]

    @staticmethod
    def _wattfleet(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "wattfleet", *words],
            cwd=ROOT,
            env={**os.environ, "WATTFLEET_RELEASE_PASSPHRASE": PASSPHRASE},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def prepare(fleet: Fleet, public: list[str]) -> None:
    """Say in the fleet file who signs, how the tool is driven, what the limits are; and measure every second."""
    file = fleet.state.inventory / "fleet.sites.yml"
    content = yaml.safe_load(file.read_text())
    models = {site["gateway"]["model"] for site in fleet.sites.values()}
    content["firmware"] = {
        "trust": {"threshold": len(public), "keys": public},
        "adapters": dict.fromkeys(sorted(models), ADAPTER),
    }
    content["rollout"] = LIMITS
    content["gates"] = {"settle": 10}
    content["defaults"]["interval"] = 1
    # Also where a site has one of its own: of four meters every 5 s half a minute has too few samples to judge.
    fleet.change_sites(interval=1)
    # Of a soak of a minute half is judged at the least: what the buses count has to be told in that half.
    content["defaults"]["collector"] = {"sources": {"buses": {"interval": 5}}}
    write(file, content)
    # The same fleet without what its readings say, for the negative control.
    content["gates"] = {"settle": 10} | {name: {"enabled": False} for name in READINGS}
    write(unguarded(fleet), content)


def write(file: Path, content: dict[str, Any]) -> None:
    # Without aliases: what is the same for several models is written for each.
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    file.write_text(yaml.dump(content, Dumper=Plain, sort_keys=False))


def unguarded(fleet: Fleet) -> Path:
    return fleet.state.inventory / "unguarded.sites.yml"


class Rollout:
    """One rollout by the command, in processes of its own as an operator has them."""

    def __init__(self, fleet: Fleet, name: str, *, inventory: Path | None = None) -> None:
        self.fleet = fleet
        self.name = name
        self.inventory = inventory or fleet.state.inventory / "fleet.sites.yml"
        self.process: subprocess.Popen[str] | None = None
        self.waves: list[list[str]] = []
        self._log = fleet.state.path / f"rollout-{name}.log"

    def plan(self, image: Path, sites: list[str]) -> str:
        """The plan's digest."""
        said = self.do(
            "plan", self.name, "--image", str(image), "--manifest", str(image.with_suffix(".json")),
            "--limit", ":".join([*sites, "hub"]), "--json",
        )  # fmt: skip
        document = json.loads(said)
        self.waves = document["plan"]["waves"]
        return str(document["digest"])

    def begin(self, image: Path, sites: list[str]) -> None:
        """Plan, start, and leave it running once it stands in the ledger."""
        digest = self.plan(image, sites)
        self.drive("start", self.name, "--digest", digest)
        assert self.process is not None
        while not self._has_begun():
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(1)

    def _has_begun(self) -> bool:
        done = subprocess.run(
            self._command("status", self.name, "--json"), cwd=ROOT, capture_output=True, check=False
        )
        return done.returncode == 0

    def drive(self, *words: str) -> None:
        """A command that goes on until the rollout is over."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._command(*words), cwd=ROOT, stdout=log, stderr=log, text=True, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9 of the driver and of all that it has started."""
        assert self.process is not None
        Fleet.kill_play(self.process)  # type: ignore[arg-type]  # its streams are not looked at

    def end(self, seconds: float) -> int:
        """The exit code of the driver, once it is over."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} is not over after {seconds:g} s: {self.told()}") from None

    def told(self) -> str:
        return self._log.read_text()[-4000:] + json.dumps(self.states())

    def states(self) -> dict[str, tuple[str, str]]:
        """'' for the rollout, and each site: state and why."""
        document = json.loads(self.do("status", self.name, "--json"))
        found = {one["site"]: (one["state"], one["why"]) for one in document["sites"]}
        return {"": (document["state"], document["why"])} | found

    def entries(self) -> list[dict[str, Any]]:
        """The ledger's, in order."""
        return [json.loads(line) for line in self.do("log", self.name, "--json").splitlines()]

    def do(self, *words: str) -> str:
        done = subprocess.run(self._command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def _command(self, *words: str) -> list[str]:
        state = self.fleet.state.inventory / "rollouts"
        command, *others = words
        return [
            sys.executable, "-m", "wattfleet", "rollout", command, *others,
            "-i", str(self.inventory), "--state", str(state),
        ]  # fmt: skip


@dataclass(frozen=True)
class Slots:
    """What a gateway's tool says: the version that runs, and how often a slot was written."""

    version: str
    writes: int


def slots(fleet: Fleet, site: str) -> Slots:
    state = json.loads(fleet.ssh(site, "sudo cat /var/lib/firmware/state.json"))
    return Slots(state["slots"][state["active"]]["version"], state["writes"])
