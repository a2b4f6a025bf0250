"""What host_state reads, on real files and sockets of this machine."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _state_defaults,
    _state_files,
    _state_listeners,
    _state_managers,
    _state_system,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file
from ansible_collections.wattfleet.energy.plugins.module_utils.tls_facts import tls_facts


def test_os_release_is_read_with_its_quotes_and_comments() -> None:
    text = (
        '# a comment\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
        'VERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n\n'
    )
    assert _state_system.os_facts(text) == {
        "id": "rocky",
        "id_like": ["rhel", "centos", "fedora"],
        "version": "9.4",
        "name": "Rocky Linux 9.4",
    }


def test_a_host_without_os_release_is_an_unknown_one() -> None:
    assert _state_system.os_facts("") == {"id": "linux", "id_like": [], "version": "", "name": "unknown"}


def test_of_a_missing_directory_the_nearest_parent_is_measured(tmp_path: Path) -> None:
    facts = _state_system.disk_facts(str(tmp_path / "not" / "there"))
    assert facts["measured"] == str(tmp_path)
    assert 0 < facts["free"] <= facts["total"]


def test_tls_facts_name_cipher_suites() -> None:
    facts = tls_facts()
    assert facts["tls13"] is True
    assert "TLS_AES_256_GCM_SHA384" in facts["ciphers"]  # type: ignore[operator]  # the value is a list


def test_a_replaced_file_has_the_new_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)
    replace_file(file, "new", 0o600)
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_files_are_described_as_they_are_and_links_as_links(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("a")
    (tmp_path / "a.conf").chmod(0o640)
    (tmp_path / "link").symlink_to("a.conf")
    told = _state_files.describe([f"{tmp_path}/a.conf", f"{tmp_path}/link", str(tmp_path), f"{tmp_path}/b/c"])
    assert told[f"{tmp_path}/a.conf"] == {
        "type": "file",
        "mode": "0640",
        "owner": "root" if os.geteuid() == 0 else told[f"{tmp_path}/a.conf"]["owner"],
        "group": told[str(tmp_path)]["group"],
        "size": 1,
        "sha256": hashlib.sha256(b"a").hexdigest(),
        "target": None,
    }
    assert (told[f"{tmp_path}/link"]["type"], told[f"{tmp_path}/link"]["target"]) == ("link", "a.conf")
    assert told[f"{tmp_path}/link"]["sha256"] is None
    assert told[str(tmp_path)]["type"] == "directory"
    assert set(told[f"{tmp_path}/b/c"].values()) == {"absent", None}


def test_patterns_name_what_they_match_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.crt", "a.crt", "a.csr"):
        (tmp_path / name).write_text("")
    assert _state_files.expand(
        [f"{tmp_path}/*.crt", f"{tmp_path}/a.crt", f"{tmp_path}/*.none", "/none"]
    ) == sorted([f"{tmp_path}/a.crt", f"{tmp_path}/b.crt", "/none"])


def test_a_socket_and_a_file_that_goes_away_are_told_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        assert _state_files.describe([f"{tmp_path}/s"])[f"{tmp_path}/s"]["type"] == "other"
    assert _state_files._digest(str(tmp_path / "gone")) is None


def test_no_private_key_is_read_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    (tmp_path / "gateway.key").write_text(key)
    (tmp_path / "gateway.crt").write_text("a certificate\n" + key)
    (tmp_path / "ca.crt").write_text("a certificate\n")
    opened: list[str] = []
    real = Path.open

    def watched(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    told = _state_files.describe([f"{tmp_path}/gateway.key"])[f"{tmp_path}/gateway.key"]
    assert (told["type"], told["sha256"]) == ("file", None)
    assert _state_files.read_texts([f"{tmp_path}/*", f"{tmp_path}/none"]) == {
        f"{tmp_path}/ca.crt": "a certificate\n",
        f"{tmp_path}/gateway.crt": None,
        f"{tmp_path}/gateway.key": None,
        f"{tmp_path}/none": None,
    }
    assert sorted(opened) == [f"{tmp_path}/ca.crt", f"{tmp_path}/gateway.crt"]


def test_what_is_too_large_is_neither_shown_nor_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("12345")
    monkeypatch.setattr(_state_files, "_TEXT_MAX", 4)
    monkeypatch.setattr(_state_files, "_HASHED_MAX", 4)
    assert _state_files.read_texts([f"{tmp_path}/a"]) == {f"{tmp_path}/a": None}
    told = _state_files.describe([f"{tmp_path}/a"])[f"{tmp_path}/a"]
    assert (told["size"], told["sha256"]) == (5, None)


SOCKETS = """\
Listen=[::]:22 (Stream)
Id=ssh.socket

Listen=/run/dbus/system_bus_socket (Stream)
Id=dbus.socket
"""


def no_command(argv: list[str]) -> tuple[int, str, str]:
    raise AssertionError(f"systemd is asked only about what it holds itself, not {argv}")


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_listeners_of_this_machine(family: socket.AddressFamily, address: str) -> None:
    with (
        socket.create_server((address, 0), family=family) as tcp,
        socket.socket(family, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind((address, 0))
        ports = [one.getsockname()[1] for one in (tcp, udp)]
        with socket.create_connection((address, ports[0])):
            told = _state_listeners.listeners(no_command)
        ours = {
            (one["protocol"], one["address"], one["port"]): one["process"]
            for one in told
            if one["port"] in ports
        }
    name = Path("/proc/self/comm").read_text().strip()
    assert ours == {
        ("tcp", address, ports[0]): name,
        ("udp", address, ports[1]): name,
    }


def test_a_socket_that_systemd_hands_on_belongs_to_the_service(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1 0 100 0 0 10 0\n"
    (tmp_path / "net/tcp").write_text("header\n" + line)
    for pid, name, group in ((1, "systemd", "/init.scope"), (40, "sshd", "/system.slice/ssh.service")):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "fd/3").symlink_to("socket:[77]")
        (tmp_path / str(pid) / "comm").write_text(name + "\n")
        (tmp_path / str(pid) / "cgroup").write_text(f"0::{group}\n")

    def systemctl(argv: list[str]) -> tuple[int, str, str]:
        return 0, SOCKETS, ""

    expected = {"protocol": "tcp", "address": "0.0.0.0", "port": 22, "process": "sshd"}
    assert _state_listeners.listeners(systemctl, str(tmp_path)) == [
        {**expected, "units": ["ssh.service", "ssh.socket"]}
    ]
    (tmp_path / "40/fd/3").unlink()
    assert _state_listeners.listeners(systemctl, str(tmp_path)) == [
        {**expected, "process": "systemd", "units": ["ssh.socket"]}
    ]
    (tmp_path / "40/fd/3").symlink_to("socket:[77]")
    (tmp_path / "1/fd/3").unlink()
    assert _state_listeners.listeners(no_command, str(tmp_path)) == [{**expected, "units": ["ssh.service"]}]


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("/system.slice/portal.service", "portal.service"),
        ("/system.slice/docker.service/payload/x.scope", "docker.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/own.service", "user@1000.service"),
        ("/", None),
    ],
)
def test_unit_of_a_process(tmp_path: Path, group: str, unit: str | None) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(f"0::{group}\n")
    assert _state_listeners._unit(str(tmp_path), "7") == unit


def test_settings_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/one").write_text("4096\t87380\n")
    assert _state_system.sysctl_facts(["net.one", "net.none"], str(tmp_path)) == {
        "net.one": {"value": "4096 87380", "settable": True},
        "net.none": None,
    }


def test_accounts() -> None:
    assert _state_system.user_facts(["root", "nobody-here"]) == {
        "root": {"uid": 0, "gid": 0, "shell": "/bin/bash", "home": "/root"},
        "nobody-here": None,
    }
    assert _state_system.group_facts(["root", "nobody-here"]) == {"root": {"gid": 0}, "nobody-here": None}


INTERFACES = """\
# what the installer wrote
source /etc/network/interfaces.d/*
source-directory more
auto lo
iface lo inet loopback
iface eth1 inet manual
auto eth2 \\
  eth3:1
iface eth3:1 inet static
  address 10.0.0.1/24
"""


def asked_states(states: dict[str, str]) -> Callable[..., tuple[int, str, str]]:
    """systemctl, for units by their names; each is "active enabled", for instance."""

    def show(command: list[str], **_options: object) -> tuple[int, str, str]:
        units = command[command.index("--") + 1 :]
        told = (states.get(unit, "inactive disabled").split() for unit in units)
        return 0, "\n\n".join(f"ActiveState={one}\nUnitFileState={two}" for one, two in told), ""

    return show


def test_links_that_another_service_configures(tmp_path: Path) -> None:
    files = {
        "etc/network/interfaces": INTERFACES,
        "etc/network/interfaces.d/wan": "allow-hotplug eth0\niface eth0 inet dhcp\nsource /etc/network/interfaces\n",
        "etc/network/more/hall": "auto eth4\niface eth4 inet dhcp\n",
        "etc/network/more/hall.old": "auto eth5\niface eth5 inet dhcp\n",
        "run/systemd/netif/links/6": "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/6.network\n",
        "run/systemd/netif/links/7": "ADMIN_STATE=unmanaged\nNETWORK_FILE=/etc/systemd/network/7.network\n",
        "run/systemd/netif/links/8": "ADMIN_STATE=unmanaged\n",
        **{f"sys/class/net/eth{number}/ifindex": f"{number}\n" for number in (6, 7, 8, 9)},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def found(**states: str) -> dict[str, str]:
        told = _state_managers.managers(
            asked_states({f"{unit.replace('_', '-')}.service": state for unit, state in states.items()}),
            str(tmp_path),
        )
        return {link: f"{one['service']} {one['file']}" for link, one in told.items()}

    by_networkd = {"eth6": "systemd-networkd.service /etc/systemd/network/6.network"}
    by_ifupdown = {
        "eth0": "networking.service /etc/network/interfaces.d/wan",
        "eth3": "networking.service /etc/network/interfaces",
        "eth4": "networking.service /etc/network/more/hall",
    }
    assert found() == {}
    assert found(systemd_networkd="active disabled", networking="failed masked") == by_networkd
    assert (
        found(systemd_networkd="inactive enabled", networking="active enabled") == by_networkd | by_ifupdown
    )


def test_without_other_services_systemd_is_not_asked(tmp_path: Path) -> None:
    assert _state_managers.managers(no_command, str(tmp_path)) == {}


def test_packages_by_dpkg_and_by_rpm(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"dpkg-query"}
    monkeypatch.setattr(_state_system, "which", lambda program: program if program in there else None)
    output = {
        "dpkg-query": "nftables\t1.0.6-2\tinstalled\nchrony\t4.3\tconfig-files\n",
        "rpm": "nftables\t1.0.9-3.el9\npackage chrony is not installed\n",
    }

    def asked(command: list[str]) -> tuple[int, str, str]:
        return 1, output[command[0]], ""

    assert _state_system.package_versions(["nftables", "chrony"], asked) == {
        "nftables": "1.0.6-2",
        "chrony": None,
    }
    there = {"rpm"}
    assert _state_system.package_versions(["nftables", "chrony"], asked)["nftables"] == "1.0.9-3.el9"
    there = set()
    assert _state_system.package_versions(["nftables"], asked) == {"nftables": None}


def test_sensors_in_units_that_people_use(tmp_path: Path) -> None:
    chip = tmp_path / "hwmon0"
    chip.mkdir()
    for name, text in {
        "name": "coretemp",
        "temp1_input": "47000",
        "temp1_label": "Core 0",
        "in0_input": "3312",
        "fan1_input": "1200",
        "temp2_input": "",
        "pwm1": "255",
    }.items():
        (chip / name).write_text(text + "\n")
    assert _state_system.sensors(str(tmp_path)) == [
        {"name": "coretemp", "label": "fan1", "value": 1200.0},
        {"name": "coretemp", "label": "in0", "value": 3.312},
        {"name": "coretemp", "label": "Core 0", "value": 47.0},
    ]
    assert _state_system.sensors(str(tmp_path / "none")) == []


@pytest.mark.parametrize("name", ["PACKAGES", "ACCOUNTS", "FILES", "TEXTS", "UNITS"])
def test_the_defaults_are_sorted_and_without_doubles(name: str) -> None:
    # Many roles add to them: two that add the same line would go unseen.
    listed: list[str] = getattr(_state_defaults, name)
    assert listed == sorted(set(listed))
