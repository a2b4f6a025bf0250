# SPDX-License-Identifier: Apache-2.0
import subprocess
from pathlib import Path

from wattfleet_lab import ssh
from wattfleet_lab.host import Host
from wattfleet_lab.state import State

HUB = Host("hub", "hub", 0, "198.18.0.2", "/image")
SITE = Host("lab-01", "gateway", 1, "198.18.0.11", "/image")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAqBfVrYbTTqT+zgwmqJ4gDPRRPfDphjzGQ6Nf/7w3pM"


def test_ssh_reads_the_config_by_name_and_by_address(tmp_path: Path) -> None:
    state = State("dev", tmp_path)
    copy = tmp_path / "copy"
    ssh.write_config(state, [HUB, SITE], copy)
    assert copy.read_text() == state.ssh_config.read_text()
    for name in ("lab-01", "198.18.0.11"):
        shown = subprocess.run(
            ["ssh", "-G", "-F", str(state.ssh_config), name], capture_output=True, text=True, check=True
        ).stdout
        options = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
        assert options["hostname"] == "198.18.0.11"
        assert options["user"] == "admin"
        assert options["identityfile"] == str(state.key)
        assert options["stricthostkeychecking"] == "true"
        assert options["userknownhostsfile"] == str(state.known_hosts)


def test_known_hosts_holds_each_host_once_and_forgets(tmp_path: Path) -> None:
    state = State("dev", tmp_path)
    for host in (HUB, SITE, SITE):
        ssh.add_known_host(state, host, KEY)
    assert state.known_hosts.read_text().splitlines() == [
        f"hub,198.18.0.2 {KEY}",
        f"lab-01,198.18.0.11 {KEY}",
    ]
    found = subprocess.run(
        ["ssh-keygen", "-F", "198.18.0.11", "-f", str(state.known_hosts)], capture_output=True, check=False
    )
    assert found.returncode == 0
    ssh.forget_known_host(state, SITE)
    assert state.known_hosts.read_text().splitlines() == [f"hub,198.18.0.2 {KEY}"]


def test_the_labs_key_is_made_once(tmp_path: Path) -> None:
    state = State("dev", tmp_path)
    assert ssh.ensure_key(state) == ssh.ensure_key(state)
    assert state.key.stat().st_mode & 0o777 == 0o600
