# SPDX-License-Identifier: Apache-2.0
"""A lab fleet as the tests handle it: both ends of every reading, playbooks, and processes to kill."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from wattfleet.hub import Hub
from wattfleet.paths import ROOT
from wattfleet.playbook import PlaybookResult, run_playbook
from wattfleet_lab.state import State

from tests.fleet.counting import Answer, Count, Reading, count_site


class Fleet:
    """The hub and the first sites of inventory/lab, in the lab `name`."""

    def __init__(self, name: str, sites: int) -> None:
        self.name = name
        self.count = sites
        self.state = State.of(name)
        self.hub = Hub(self.state.ssh_config)

    def lab(self, *arguments: str) -> str:
        """Run `wattfleet lab ARGUMENTS` for this lab; its output."""
        command = [sys.executable, "-m", "wattfleet", "lab", "--lab", self.name, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *, disks: bool = False) -> None:
        """With an authority. `disks`: a power cut loses what was not synced."""
        self.lab("up", "--sites", str(self.count), *(["--disks"] if disks else []))
        assert self.play("ca").ok

    def down(self) -> None:
        self.lab("down")

    @property
    def inventory(self) -> str:
        return str(self.state.inventory / "fleet.sites.yml")

    def play(self, playbook: str, *arguments: str, **variables: Any) -> PlaybookResult:
        """Run a playbook to its end."""
        return run_playbook(
            playbook, self.state.inventory / "fleet.sites.yml", extra_vars=variables, arguments=arguments
        )

    def module(self, host: str, name: str, options: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        """Run one module of the collection on a host as root; its result."""
        command = [sys.executable, "-m", "ansible", "adhoc", host, "-i", self.inventory, "--become"]
        command += ["-m", f"wattfleet.energy.{name}", *(["--check"] if check else [])]
        command += ["-a", json.dumps(options)] if options else []
        environment = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        }
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert done.stdout.lstrip().startswith("{"), done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"][host]
        return result

    def start_play(self, playbook: str) -> subprocess.Popen[bytes]:
        """Start a playbook that the caller is going to kill."""
        return subprocess.Popen(
            ["ansible-playbook", "-i", self.inventory, f"playbooks/{playbook}.yml"],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @staticmethod
    def kill_play(process: subprocess.Popen[bytes]) -> None:
        """Kill a playbook with all its workers and connections, as a closed laptop does."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def sites(self) -> dict[str, dict[str, Any]]:
        """The site files that are up, by site."""
        files = sorted((self.state.inventory / "sites").glob("*.yml"))
        return {file.stem: yaml.safe_load(file.read_text()) for file in files}

    def change_sites(self, **keys: Any) -> None:
        """Lay these keys over each site's file, until the next `lab up` writes them anew."""
        for site, content in self.sites.items():
            file = self.state.inventory / "sites" / f"{site}.yml"
            file.write_text(yaml.safe_dump(content | keys, sort_keys=False))

    @property
    def settings(self) -> dict[str, Any]:
        """The fleet file."""
        content: dict[str, Any] = yaml.safe_load((self.state.inventory / "fleet.sites.yml").read_text())
        return content

    def intervals(self, site: str) -> dict[str, float]:
        """Meter -> seconds between polls."""
        content = self.sites[site]
        usual = content.get("interval", self.settings.get("defaults", {}).get("interval", 10))
        return {meter["name"]: float(meter.get("interval", usual)) for meter in content["meters"]}

    def ssh(self, host: str, command: str) -> str:
        """Run a command on a host; its output."""
        done = subprocess.run(
            ["ssh", "-F", str(self.state.ssh_config), "-o", "BatchMode=yes", host, command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def executions(self, host: str) -> int:
        """Modules that Ansible has run on a host since it booted, by the host's own journal: each is one sudo, which
        says that it has succeeded in a way of Ansible's own."""
        said = self.ssh(host, "sudo journalctl --boot --no-pager --output=cat _COMM=sudo")
        return said.count("echo BECOME-SUCCESS-")

    def reachable(self, host: str) -> bool:
        """Whether a new SSH connection gets through."""
        command = [
            "ssh",
            "-F",
            str(self.state.ssh_config),
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            host,
            "true",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def kill(self, host: str, unit: str) -> float:
        """kill -9 the main process of a service; the Unix time just before."""
        before = time.time()
        self.ssh(host, f"sudo systemctl kill --kill-whom=main --signal=KILL {unit}")
        return before

    def meters(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request to the meter simulator's control socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.state.meters_socket))
            connection.sendall(json.dumps({"op": operation, **arguments}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile().readline())
        assert answer.pop("ok"), answer
        return answer

    def answers(self, site: str) -> list[Answer]:
        """Every request that the simulated meters of a site answered."""
        found: list[Answer] = []
        since = 0
        while True:
            page = self.meters("answers", site=site, since=since)
            assert page["dropped"] == 0, "the simulator's log was too small to count with"
            for _, at, _, meter, _, function, address, count, kind in page["answers"]:
                if meter is not None:
                    found.append(Answer(at, meter, (function, address, count), kind))
            since = page["next"]
            if since >= page["last"]:
                return found

    def readings(self, site: str, start: float, end: float) -> list[Reading]:
        """Every reading of a site that the database holds between two Unix times."""
        text = self.hub.command(
            "export-identities", "--site", site, "--since", _iso(start), "--until", _iso(end), timeout=120
        )
        return [
            Reading(
                row["point"],
                datetime.fromisoformat(row["time"]).timestamp(),
                float(row["value"]) if row["value"] else None,
                int(row["quality"]),
            )
            for row in csv.DictReader(io.StringIO(text))
        ]

    def both_ends(
        self, site: str, start: float, end: float, excused: Sequence[tuple[float, float]] = ()
    ) -> Count:
        """Compare both ends of a site between two Unix times, `excused` spans as in count_site."""
        readings = self.readings(site, start, end)
        return count_site(self.answers(site), readings, self.intervals(site), start, end, excused)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
