# SPDX-License-Identifier: Apache-2.0
"""The lab's SSH files, and whether a host answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from pathlib import Path

from wattfleet_lab.commands import run
from wattfleet_lab.host import Host
from wattfleet_lab.state import State

USER = "admin"


def ensure_key(state: State) -> str:
    """The lab's public key; the pair is made first when there is none."""
    if not state.key.exists():
        run(
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"wattfleet lab {state.name}",
            "-f",
            str(state.key),
        )
    return state.key.with_suffix(".pub").read_text().strip()


def add_known_host(state: State, host: Host, public_key: str) -> None:
    forget_known_host(state, host)
    with state.known_hosts.open("a") as file:
        file.write(f"{host.name},{host.address} {public_key}\n")


def forget_known_host(state: State, host: Host) -> None:
    if state.known_hosts.exists():
        kept = [
            line
            for line in state.known_hosts.read_text().splitlines(keepends=True)
            if not {host.name, host.address} & set(line.split()[0].split(","))
        ]
        state.known_hosts.write_text("".join(kept))


def write_config(state: State, hosts: Iterable[Host], also: Path | None = None) -> None:
    """``ssh_config`` for all hosts, by name and by address; `also` gets a copy."""
    lines = [f"# SSH to the hosts of lab {state.name}: ssh -F {state.ssh_config} HOST"]
    for host in hosts:
        lines += ["", f"Host {host.name} {host.address}", f"  HostName {host.address}"]
    lines += [
        "",
        "Host *",
        f"  User {USER}",
        f"  IdentityFile {state.key}",
        "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {state.known_hosts}",
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  UpdateHostKeys no",
        "  PasswordAuthentication no",
        "  ConnectTimeout 10",
        "  LogLevel ERROR",
    ]
    text = "\n".join(lines) + "\n"
    for path in filter(None, (state.ssh_config, also)):
        path.write_text(text)


def answers(address: str, timeout: float = 1.0) -> bool:
    """Whether a host's sshd says its banner."""
    try:
        with socket.create_connection((address, 22), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_until_answers(address: str, timeout: float) -> bool:
    """The same, waiting for at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not answers(address):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
