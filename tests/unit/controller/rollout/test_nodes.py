# SPDX-License-Identifier: Apache-2.0
"""Execution nodes over SSH that is real: two sshd of our own on the loopback, each with a home of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wattfleet.rollout.folder import Folder

from tests.ports import free_port

from .stand_in import StandInFleet

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Path]:
    """An OpenSSH configuration with the nodes `north` and `south`, each on its sshd."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True
        )
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized_keys")
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it, as root
    lines, servers = [], []
    for name in ("north", "south"):
        port, home = free_port(), tmp_path / name
        home.mkdir()
        (tmp_path / f"{name}.conf").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {tmp_path / 'authorized_keys'}\nStrictModes no\nPermitRootLogin yes\n"
            f"SetEnv HOME={home} WATTFLEET_NODE={name}\n"
        )
        servers.append(subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(tmp_path / f"{name}.conf")]))
        key = (tmp_path / "host.pub").read_text().split()
        with (tmp_path / "known_hosts").open("a") as known:
            known.write(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
        lines.append(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {tmp_path / 'user'}\n  UserKnownHostsFile {tmp_path / 'known_hosts'}\n"
        )
    config = tmp_path / "ssh_config"
    config.write_text("".join(lines))
    yield config
    for server in servers:
        server.kill()
        server.wait()


def nodes_by(folder: Path, ssh: Path) -> list[dict[str, str]]:
    runner = Path(sys.executable).with_name("ansible-runner")
    wrapper = folder / "runner"
    # ssh gives a session no PATH of ours, and ansible-runner looks for ansible-playbook in it.
    wrapper.write_text(f'#!/bin/sh\nPATH={runner.parent}:$PATH exec {runner} "$@"\n')
    wrapper.chmod(0o755)
    return [
        {"name": name, "host": name, "ssh_config": str(ssh), "runner": str(wrapper)}
        for name in ("north", "south")
    ]


def asked_by(fleet: StandInFleet, names: list[str]) -> Counter[str]:
    """How many questions each node has put to sites."""
    return Counter(asked[3] for name in names for asked in fleet.read(name)["asked"])


def test_a_wave_is_spread_over_two_nodes_and_one_of_them_dies(
    tmp_path: Path, ssh: Path, stand_in: Callable[..., StandInFleet]
) -> None:
    fleet = stand_in(3, {"nodes": nodes_by(tmp_path, ssh), "forks": 4})
    digest = fleet.plan()
    fleet.does("s01", "good", slow={"transfer": 600})
    driver = fleet.begin("start", "r1", "--digest", digest)
    until = time.monotonic() + 400
    while not fleet.read("s01")["asked"]:
        assert time.monotonic() < until
        time.sleep(0.5)
    # The node that works on s01 dies with all that runs there.
    node = fleet.read("s01")["asked"][0][3]
    assert node in ("north", "south")
    fleet.does("s01", "good", slow={})
    end(tmp_path, node)
    assert driver.wait(timeout=900) == 0, (fleet.folder / "begun.log").read_text()

    ledger = Folder.of(fleet.inventory).ledger()
    assert {record.state for record in ledger.sites("r1").values()} == {"ok"}
    assert all(len(fleet.read(name)["flashed"]) == 1 for name in fleet.names), "no site is taken twice"
    last = [asked[3] for asked in fleet.read("s01")["asked"]][-1]
    assert last != node, "the site of a node that died is looked at from another"
    assert len(asked_by(fleet, fleet.names)) == 2, "one node has done all of it"
    assert f"node {node}" in " ".join(entry.step.why for entry in ledger.entries("r1", "s01"))
    # The image went to the node once, whatever plays there were.
    images = list((tmp_path / last / ".cache" / "wattfleet" / "releases").iterdir())
    assert len(images) == 2, images
    assert ledger.verify() == []


def end(folder: Path, node: str) -> None:
    """Kill the node's sshd, its sessions, and all below them: by what their environment or command line says."""
    marks = (f"HOME={folder / node}\0", str(folder / f"{node}.conf"))
    for path in Path("/proc").iterdir():
        if not path.name.isdigit() or int(path.name) == os.getpid():
            continue
        try:
            told = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
        except OSError:
            continue
        if any(mark.encode() in told for mark in marks):
            os.kill(int(path.name), 9)
