# SPDX-License-Identifier: Apache-2.0
"""What the hub knows, asked over SSH with the hub's own command."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.rollout.health import Answer, Span, answer

ENERGY_HUB = "/opt/energy-hub/current/energy-hub.pyz"
# Fifty sites over a day are seventy million readings to count, in s.
HEALTH_TIMEOUT = 300.0


@dataclass(frozen=True)
class Newest:
    """The newest reading of a point, as the database holds it."""

    time: datetime
    value: float | None
    quality: int


@dataclass(frozen=True)
class SiteState:
    """One site as the hub sees it. `meters` is meter -> point -> newest reading."""

    state: str
    newest: datetime | None
    readings: int
    batches: int
    chain: str
    certificate_expires: datetime | None
    meters: dict[str, dict[str, Newest]]


class Hub:
    """The hub, reached with an OpenSSH configuration and the host's name in it, or with options of ssh."""

    def __init__(self, ssh_config: Path | None, host: str = "hub", options: Sequence[str] = ()) -> None:
        file = ["-F", str(ssh_config)] if ssh_config else []
        self._ssh = ["ssh", *file, *options, "-o", "BatchMode=yes", host]

    def command(self, *arguments: str, timeout: float = 60, given: str = "") -> str:
        """Run `energy-hub ARGUMENTS` on the hub as its service user, `given` on its standard input; the output."""
        command = [*self._ssh, "sudo", "-u", "energy-hub", "/usr/bin/python3", ENERGY_HUB, *arguments]
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise WattfleetError(
                f"the hub did not answer `energy-hub {' '.join(arguments)}` within {timeout:.0f} s"
            ) from None
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise WattfleetError(f"energy-hub {' '.join(arguments)} on the hub: {reason[0]}")
        return done.stdout

    def status(self) -> dict[str, SiteState]:
        """Every site that the hub has heard of, by name."""
        document = json.loads(self.command("status", "--json"))
        return {site: _site(row) for site, row in document["sites"].items()}

    def health(self, spans: Mapping[str, Span]) -> Answer:
        """How sites fared, each over a span of its own."""
        if not spans:
            raise ValueError("no site to ask about")
        first = next(iter(spans.values()))
        sites = [
            f"--site={name}@{span.since.isoformat()}/{span.until.isoformat()}" for name, span in spans.items()
        ]
        text = self.command(
            "health",
            "--json",
            f"--since={first.since.isoformat()}",
            f"--until={first.until.isoformat()}",
            *sites,
            timeout=HEALTH_TIMEOUT,
        )
        try:
            return answer(json.loads(text))
        except json.JSONDecodeError as error:
            raise WattfleetError(f"the hub's answer to `energy-hub health` is not JSON: {error}") from None


def hub_of(variables: Mapping[str, Any]) -> Hub:
    """The hub by the variables with which Ansible reaches it."""
    options = shlex.split(str(variables.get("ansible_ssh_common_args") or ""))
    for name, option in (("ansible_port", "-p"), ("ansible_ssh_private_key_file", "-i")):
        if variables.get(name):
            options += [option, str(variables[name])]
    return Hub(None, f"{variables['ansible_user']}@{variables['ansible_host']}", options)


def _site(row: dict[str, Any]) -> SiteState:
    return SiteState(
        state=row["state"],
        newest=_moment(row["newest_reading"]),
        readings=row["readings"],
        batches=row["batches"],
        chain=row["chain"],
        certificate_expires=_moment(row["certificate_expires"]),
        meters={
            meter: {
                point: Newest(datetime.fromisoformat(newest["time"]), newest["value"], newest["quality"])
                for point, newest in points.items()
            }
            for meter, points in row["meters"].items()
        },
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text and text != "-" else None
