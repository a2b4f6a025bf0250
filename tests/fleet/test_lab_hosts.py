# SPDX-License-Identifier: Apache-2.0
"""The lab's hosts for real: booted, rebooted, cut off, and gone without a trace. Needs root; uses lab `dev`.

The tests follow one lab through its life, in the order they are written in.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from wattfleet_lab import registry, sysctls
from wattfleet_lab.addresses import FIRST_ADDED, Plan
from wattfleet_lab.leftovers import leftovers

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers and networks need root"),
    pytest.mark.timeout(600),  # the base image may have to be built first
]

LAB = "hosts"


@cache
def plan() -> Plan:
    """The lab's address plan, looked up while it is up for the first time."""
    return Plan(registry.read().labs[LAB][0])


def lab(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wattfleet_lab", "--lab", LAB, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done


def on(host: str, command: str) -> str:
    return lab("ssh", host, "--", command).stdout.strip()


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab("status", "--json").stdout)
    return found


def host_status(name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [host for host in status()["hosts"] if host["name"] == name]
    return found


@pytest.fixture(scope="module", autouse=True)
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # A state folder of its own: a developer's lab of this name makes `up` fail instead of losing its hosts.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WATTFLEET_STATE", str(tmp_path_factory.mktemp("lab")))
        lab("up", "--sites", "1")
        plan()
        yield
        lab("down")


def test_a_lab_that_cannot_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    # ip(8) is there for the clearing up, and refuses to make the WAN's bridge.
    refusing = tmp_path / "ip"
    real = shutil.which("ip")
    refusing.write_text(
        f'#!/bin/sh\ncase "$*" in *bridge*) echo "no bridges here" >&2; exit 2;; esac\nexec {real} "$@"\n'
    )
    refusing.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "wattfleet_lab", "--lab", "stillborn", "up", "--sites", "1"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no bridges here" in done.stderr
    assert "stillborn" not in registry.read().labs


def test_hosts_are_up_and_answer_with_their_own_identity() -> None:
    assert {host["name"]: host["state"] for host in status()["hosts"]} == {
        "hub": "running",
        "lab-01": "running",
    }
    for host in ("hub", "lab-01"):
        assert on(host, "hostname") == host
        assert on(host, "systemctl is-system-running") == "running"
        assert on(host, "sudo id -u") == "0"
    identities = {
        on(host, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub") for host in ("hub", "lab-01")
    }
    assert len(identities) == 2


def test_ssh_works_from_the_config_file_by_name_and_address() -> None:
    config = status()["ssh_config"]
    for name in ("lab-01", str(plan().network[11])):
        done = subprocess.run(
            ["ssh", "-F", config, name, "hostname"], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("lab-01\n", "")


def test_networkmanager_owns_both_links_and_has_configured_the_first() -> None:
    devices = dict(line.split(":") for line in on("lab-01", "nmcli -t -f device,state device").splitlines())
    assert devices["eth0"] == "connected"
    assert devices["eth1"] == "disconnected"
    assert on("lab-01", "ip -4 -br address show eth0").split()[-1] == f"{plan().network[11]}/19"


def test_packages_are_installed_from_the_offline_pool() -> None:
    on("lab-01", "sudo apt-get -qq update && sudo apt-get -qq install --yes acl")
    assert on("lab-01", "dpkg-query -W -f '${Status}' acl") == "install ok installed"
    candidates = on("lab-01", "apt-cache policy mosquitto postgresql chrony")
    assert "(none)" not in candidates.replace("Installed: (none)", "")


def test_hosts_reach_each_other_and_nothing_on_the_machine() -> None:
    on("lab-01", f"ping -c 1 -W 5 {plan().hub}")
    on("lab-01", f"ping -c 1 -W 5 {plan().controller}")
    with socket.create_server((str(plan().controller), 0)) as server:
        port = server.getsockname()[1]
        tried = lab("ssh", "lab-01", "--", f"nc -z -w 2 {plan().controller} {port}", check=False)
        assert tried.returncode == 1
        with socket.create_connection((str(plan().controller), port), timeout=5):
            pass
    assert on("hub", "ip -6 address show eth0 scope global") == ""


def test_the_energy_network_is_the_sites_own_and_outlives_its_gateway() -> None:
    on("lab-01", "sudo nmcli connection add type ethernet ifname eth1 con-name EnergyInternal "
                 "ipv4.method manual ipv4.addresses 192.168.10.10/24 ipv6.method disabled")  # fmt: skip
    on("lab-01", "ping -c 1 -W 5 192.168.10.20")
    # A socket in the namespace, as the meter simulator holds them.
    script = (
        "import socket\ns = socket.create_server(('192.168.10.20', 5020))\n"
        "while True: s.accept()[0].sendall(b'meter')"
    )
    listener = subprocess.Popen(
        ["ip", "netns", "exec", plan().machine("lab-01"), sys.executable, "-c", script]
    )
    try:
        once = "nc -d -w 1 192.168.10.20 5020 | grep -q . && echo yes && break"
        ask = f"for i in $(seq 50); do {once}; sleep 0.2; done"
        assert on("lab-01", ask) == "yes"
        lab("reboot", "lab-01")
        assert on("lab-01", ask) == "yes"
    finally:
        listener.kill()
        listener.wait()


def test_a_reboot_is_a_real_one_and_files_stay() -> None:
    before = host_status("lab-01")["boots"]
    boot_id = on("lab-01", "cat /proc/sys/kernel/random/boot_id")
    on("lab-01", "sudo nft add table inet kept && echo here | sudo tee /var/lib/kept")
    lab("reboot", "lab-01")
    assert on("lab-01", "cat /var/lib/kept; cat /run/kept 2>/dev/null; sudo nft list tables") == "here"
    assert on("lab-01", "cat /proc/sys/kernel/random/boot_id") != boot_id
    assert host_status("lab-01")["boots"] == before + 1
    assert len(on("lab-01", "sudo journalctl --list-boots --quiet").splitlines()) >= before + 1


def test_a_reboot_from_inside_comes_back_too() -> None:
    boot_id = on("lab-01", "cat /proc/sys/kernel/random/boot_id")
    lab("ssh", "lab-01", "--", "sudo systemctl reboot", check=False)
    ask = ["ssh", "-F", status()["ssh_config"], "lab-01", "cat /proc/sys/kernel/random/boot_id"]
    while True:
        answer = subprocess.run(ask, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip() != boot_id:
            break


def test_a_power_cut_takes_everything_at_once_and_files_stay() -> None:
    on("lab-01", "echo here | sudo tee /var/lib/cut; sync; sudo touch /run/cut")
    lab("cut", "lab-01")
    assert host_status("lab-01")["state"] == "off"
    assert lab("ssh", "lab-01", "--", "true", check=False).returncode == 255
    refused = lab("reboot", "lab-01", check=False)
    assert refused.stderr == "wattfleet lab: host lab-01 is off: it cannot reboot; use start\n"
    lab("start", "lab-01")
    assert on("lab-01", "cat /var/lib/cut; ls /run/cut 2>/dev/null || true") == "here"
    ended = on("lab-01", "sudo journalctl --boot=-1 --unit=systemd-poweroff.service --quiet")
    assert ended == "", "a cut host must not have shut down"


def test_a_power_cut_takes_from_a_disk_what_was_not_synced() -> None:
    lab("host-add", "frail", "--disk")
    try:
        on("frail", "echo here | sudo tee /var/lib/synced; sync; echo here | sudo tee /var/lib/not-synced")
        lab("cut", "frail", "--boot")
        assert on("frail", "cat /var/lib/synced /var/lib/not-synced 2>/dev/null || true") == "here"
    finally:
        lab("host-remove", "frail")


def test_exec_gets_in_when_ssh_is_broken() -> None:
    lab("exec", "lab-01", "--", "systemctl", "stop", "ssh")
    assert lab("ssh", "lab-01", "--", "true", check=False).returncode == 255
    assert lab("exec", "lab-01", "--", "systemctl", "is-active", "ssh", check=False).stdout == "inactive\n"
    lab("exec", "lab-01", "--", "systemctl", "start", "ssh")
    assert on("lab-01", "hostname") == "lab-01"


def test_up_again_starts_only_what_is_missing() -> None:
    before = {host["name"]: host["boots"] for host in status()["hosts"]}
    lab("up", "--sites", "1")
    assert {host["name"]: host["boots"] for host in status()["hosts"]} == before
    lab("up", "--sites", "2")
    assert {host["name"]: host["boots"] for host in status()["hosts"]} == {**before, "lab-02": 1}
    sites = Path(status()["inventory"]).parent / "sites"
    assert sorted(path.name for path in sites.iterdir()) == ["lab-01.yml", "lab-02.yml"]


def test_single_hosts_come_and_go() -> None:
    added = json.loads(lab("host-add", "extra", "--energy").stdout)
    assert added["changed"] is True
    assert added["address"] == str(plan().network[FIRST_ADDED])
    assert json.loads(lab("host-add", "extra", "--energy").stdout)["changed"] is False
    command = [
        "ssh",
        "-F",
        added["ssh_config"],
        "-i",
        added["identity_file"],
        f"{added['user']}@{added['address']}",
    ]
    assert (
        subprocess.run([*command, "hostname"], capture_output=True, text=True, check=True).stdout == "extra\n"
    )
    assert json.loads(lab("host-remove", "extra").stdout)["changed"] is True
    assert json.loads(lab("host-remove", "extra").stdout)["changed"] is False
    assert not Path("/run/netns", added["energy_namespace"]).exists()


def test_a_killed_supervisor_is_replaced_and_its_hosts_boot_anew() -> None:
    os.kill(status()["supervisor"], signal.SIGKILL)
    assert lab("cut", "lab-01", check=False).returncode == 1
    lab("up", "--sites", "2")
    assert {host["state"] for host in status()["hosts"]} == {"running"}
    assert on("lab-01", "cat /var/lib/kept") == "here"


def test_down_leaves_nothing() -> None:
    lab("down")
    assert leftovers(LAB, plan()) == []
    assert lab("down").stdout == f"lab {LAB} was not up\n"


def test_down_leaves_nothing_after_the_supervisor_was_killed() -> None:
    before = {name: sysctls.read(name) for name in sysctls.WANTED}
    lab("up", "--sites", "1")
    assert leftovers(LAB, plan()), "the check must see a lab that is up"
    os.kill(status()["supervisor"], signal.SIGKILL)
    lab("down")
    assert leftovers(LAB, plan()) == []
    assert {name: sysctls.read(name) for name in sysctls.WANTED} == before
    lab("up", "--sites", "1")
    assert on("lab-01", "hostname") == "lab-01"
