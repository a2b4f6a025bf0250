# SPDX-License-Identifier: Apache-2.0
"""The guard's parts, each on what the real programs print."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import (
    entries,
    hands,
    install,
    kernel,
    manager,
    peer,
    snapshot,
    sysctls,
    tables,
    timer,
    units,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change, place_of
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import GuardError
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import BOOT_ID, Done, Host

from .conftest import FakeHost


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4h 2min 37.775560s", 14557.77556),
        ("1d 7h 41min 2.844677s", 114062.844677),
        ("12ms", 0.012),
        ("infinity", None),
        ("", None),
    ],
)
def test_time_spans_of_systemd(text: str, seconds: float | None) -> None:
    assert timer.seconds(text) == (None if seconds is None else pytest.approx(seconds))


def test_the_timer_counts_from_the_boot_and_fires_again(host: FakeHost) -> None:
    timer.arm(host, 1000.0)
    words = next(argv for argv in host.ran if argv[0] == "systemd-run")
    assert "--on-boot=1000.000s" in words
    assert sum(word.startswith("--on-boot=") for word in words) == len(timer.AGAIN) > 3
    # Each daemon-reload would put off such a one.
    assert not any(word.startswith("--on-active") for word in words)


def test_in_a_container_the_boot_is_the_start_of_its_systemd(host: FakeHost) -> None:
    host.refuse = {
        "systemd-detect-virt": Done([], 0, "", ""),
        "systemctl show --property=UserspaceTimestampMonotonic": Done(
            [], 0, "UserspaceTimestampMonotonic=400000000\n", ""
        ),
        "systemctl show --property=ActiveState,SubState,Next": Done(
            [], 0, "ActiveState=active\nSubState=waiting\nNextElapseUSecMonotonic=16min 40s\n", ""
        ),
    }
    timer.arm(host, 1000.0)
    assert "--on-boot=600.000s" in next(argv for argv in host.ran if argv[0] == "systemd-run")


LISTING = """table inet wattfleet {
\tset banned {
\t\ttype ipv4_addr
\t\tsize 65535
\t\tflags dynamic,timeout
\t\telements = { 192.0.2.1 expires 5s,
\t\t\t     192.0.2.2 expires 7s }
\t}

\tset management {
\t\ttype ipv4_addr
\t\telements = { 198.51.100.1 }
\t}

\tchain input {
\t\tip saddr @banned drop
\t}
}
"""


def test_elements_that_come_and_go_do_not_count() -> None:
    bare = tables.without_passing(LISTING)
    assert "192.0.2" not in bare
    assert "elements = { 198.51.100.1 }" in bare
    assert "ip saddr @banned drop" in bare


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/10.rp_filter", "/proc/sys/net/ipv4/conf/eth0.10/rp_filter"),
        ("net/ipv4/conf/eth0.10/rp_filter", "/proc/sys/net/ipv4/conf/eth0.10/rp_filter"),
    ],
)
def test_settings_are_named_as_by_sysctl(name: str, path: str) -> None:
    assert str(sysctls.path_of(Host(), name)) == path


def test_a_setting_cannot_lead_elsewhere() -> None:
    with pytest.raises(GuardError):
        sysctls.path_of(Host(), "net/../../etc/passwd")


ADDRESSES = [
    {
        "ifname": "eth0",
        "flags": ["BROADCAST", "UP"],
        "mtu": 1500,
        "addr_info": [
            {"family": "inet", "local": "198.18.0.11", "prefixlen": 19, "scope": "global", "noprefixroute": True,
             "broadcast": "198.18.31.255", "label": "eth0"},
            {"family": "inet6", "local": "2001:db8::5", "prefixlen": 64, "scope": "global", "dynamic": True},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ],
    }
]  # fmt: skip
ROUTES = [
    {"dst": "default", "gateway": "198.18.0.1", "dev": "eth0", "protocol": "static", "metric": 100,
     "flags": ["linkdown"]},
    {"dst": "198.18.0.0/19", "dev": "eth0", "protocol": "kernel", "scope": "link", "prefsrc": "198.18.0.11",
     "metric": 100, "flags": []},
    {"dst": "default", "gateway": "fe80::9", "dev": "eth0", "protocol": "ra", "metric": 100, "flags": []},
]  # fmt: skip


class Kernel(Host):
    """A kernel that answers what it is told to, and notes what is set."""

    def __init__(self, root: Path | str = "/nonexistent") -> None:
        super().__init__(root)
        self.addresses: list[dict[str, Any]] = json.loads(json.dumps(ADDRESSES))
        self.routes: list[dict[str, Any]] = json.loads(json.dumps(ROUTES))
        self.rules: list[dict[str, Any]] = [
            {"priority": 32766, "src": "all", "table": "main", "protocol": "kernel"}
        ]
        self.set: list[str] = []

    def run(self, argv: list[str], *, timeout: float = 20, stdin: str | None = None) -> Done:
        words = " ".join(argv)
        if "rule show" in words:
            return Done(argv, 0, json.dumps(self.rules if "-4" in words else []), "")
        if "address show" in words:
            return Done(argv, 0, json.dumps(self.addresses), "")
        if "route show" in words:
            return Done(argv, 0, json.dumps(self.routes if "-4" in words else []), "")
        self.set.append(words)
        return Done(argv, 0, "", "")


def test_what_routers_announce_is_left_to_them() -> None:
    found = kernel.look(Kernel())
    assert [item["local"] for item in found["links"]["eth0"]["addresses"]] == ["198.18.0.11"]
    assert len(found["routes"]) == 2


def test_the_kernel_is_set_straight_in_an_order_that_works() -> None:
    one = Kernel()
    was = kernel.look(one)
    assert kernel.differences(one, was) == []
    one.addresses[0] |= {"flags": [], "mtu": 700}
    one.addresses[0]["addr_info"] = [
        {"family": "inet", "local": "10.9.9.9", "prefixlen": 24, "scope": "global"}
    ]
    one.routes = [{"dst": "default", "gateway": "10.9.9.1", "dev": "eth0", "flags": []}]
    assert len(kernel.differences(one, was)) == 7
    kernel.put_back(one, was)
    assert one.set == [
        "ip link set dev eth0 mtu 1500",
        "ip link set dev eth0 up",
        "ip address del 10.9.9.9/24 dev eth0",
        "ip address replace 198.18.0.11/19 broadcast 198.18.31.255 label eth0 dev eth0 noprefixroute",
        "ip -4 route del default via 10.9.9.1 dev eth0",
        "ip -4 route replace 198.18.0.0/19 dev eth0 proto kernel scope link src 198.18.0.11 metric 100",
        "ip -4 route replace default via 198.18.0.1 dev eth0 proto static metric 100",
    ]


def test_routes_of_other_tables_and_rules_are_put_back() -> None:
    one = Kernel()
    kept = {"priority": 80, "src": "10.0.0.0", "srclen": 8, "table": "7", "protocol": "static"}
    one.rules.append(kept)
    was = kernel.look(one)
    one.rules[1:] = [{"priority": 90, "src": "all", "fwmark": "0x76", "table": "226", "protocol": "static"}]
    one.routes.append({"dst": "198.18.0.1", "dev": "eth0", "scope": "link", "table": "226", "flags": []})
    one.routes.append({"dst": "198.18.0.11", "dev": "eth0", "type": "local", "table": "local", "flags": []})
    assert len(kernel.differences(one, was)) == 3
    kernel.put_back(one, was)
    assert one.set == [
        "ip -4 route del 198.18.0.1 dev eth0 scope link table 226",
        "ip -4 rule del priority 90 from all fwmark 0x76 table 226 protocol static",
        "ip -4 rule add priority 80 from 10.0.0.0/8 table 7 protocol static",
    ]


def test_settings_that_a_small_mtu_has_cost_are_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "proc/sys/net/ipv6/conf/eth0"
    folder.mkdir(parents=True)
    for name, value in (("disable_ipv6", "1"), ("mtu", "1500")):
        (folder / name).write_text(f"{value}\n")
    one = Kernel(tmp_path)
    was = kernel.look(one)
    (folder / "disable_ipv6").write_text("0\n")
    (folder / "mtu").write_text("1280\n")
    assert kernel.differences(one, was) == ["sysctl net/ipv6/conf/eth0/disable_ipv6 is 0 instead of 1"]
    kernel.put_back(one, was)
    assert (folder / "disable_ipv6").read_text() == "1\n"
    assert kernel.differences(one, was) == []


def test_the_loopback_is_put_back_like_any_other_link(tmp_path: Path) -> None:
    folder = tmp_path / "proc/sys/net/ipv6/conf/lo"
    folder.mkdir(parents=True)
    (folder / "use_tempaddr").write_text("-1\n")
    one = Kernel(tmp_path)
    four = {"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host", "label": "lo"}
    six = {"family": "inet6", "local": "::1", "prefixlen": 128, "scope": "host", "noprefixroute": True}
    one.addresses.append(
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "mtu": 65536, "addr_info": [four, six]}
    )
    one.routes.append({"dst": "192.0.2.0/24", "dev": "lo", "protocol": "static", "flags": []})
    was = kernel.look(one)
    assert kernel.differences(one, was) == []
    # What `nmcli networking off` does.
    (folder / "use_tempaddr").write_text("0\n")
    del six["noprefixroute"]
    assert kernel.differences(one, was) == [
        "lo lacks ::1/128",
        "lo also has ::1/128",
        "sysctl net/ipv6/conf/lo/use_tempaddr is 0 instead of -1",
    ]
    kernel.put_back(one, was)
    assert (folder / "use_tempaddr").read_text() == "-1\n"
    assert one.set == ["ip address del ::1/128 dev lo", "ip address replace ::1/128 dev lo noprefixroute"]
    one.addresses[-1]["addr_info"] = []
    kernel.put_back(one, was)
    assert one.set[2:] == [
        "ip address replace 127.0.0.1/8 label lo scope host dev lo",
        "ip address replace ::1/128 dev lo noprefixroute",
    ]


def lease(host: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An address from a DHCP server, and the routes that come with it."""
    address = {"family": "inet", "local": f"192.0.2.{host}", "prefixlen": 24, "scope": "global"}
    routes = [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth1", "protocol": "dhcp", "metric": 300},
        {"dst": "192.0.2.0/24", "dev": "eth1", "protocol": "kernel", "scope": "link"},
    ]
    more = {"dynamic": True, "valid_life_time": 120, "preferred_life_time": 120}
    return address | more, [route | {"prefsrc": address["local"], "flags": []} for route in routes]


def test_another_lease_of_the_dhcp_server_is_not_taken_back() -> None:
    one = Kernel()
    address, routes = lease("7")
    link = {"ifname": "eth1", "flags": ["UP"], "mtu": 1500, "addr_info": [address]}
    one.addresses.append(link)
    one.routes += routes
    was = kernel.look(one)
    assert kernel.differences(one, was) == []
    other, routes = lease("8")
    link["addr_info"] = [other]
    one.routes = [*one.routes[:-2], *routes]
    assert kernel.differences(one, was) == []
    kernel.put_back(one, was)
    assert one.set == []
    # What is not lent still counts.
    link["addr_info"] = [
        other,
        {**other, "local": "10.0.0.1", "dynamic": False, "valid_life_time": 2**32 - 1},
    ]
    assert kernel.differences(one, was) == ["eth1 also has 10.0.0.1/24"]


def test_a_lease_that_is_gone_is_put_back_for_as_long_as_it_lasts() -> None:
    one = Kernel()
    address, routes = lease("7")
    link = {"ifname": "eth1", "flags": ["UP"], "mtu": 1500, "addr_info": [address]}
    one.addresses.append(link)
    one.routes += routes
    was = kernel.look(one)
    link["addr_info"], one.routes = [], one.routes[:-2]
    assert len(kernel.differences(one, was)) == 3
    kernel.put_back(one, was)
    assert one.set[0] == "ip address replace 192.0.2.7/24 dev eth1 valid_lft 120 preferred_lft 120"
    assert len(one.set) == 3


def test_a_modem_that_has_dialled_again_is_as_it_was() -> None:
    one = Kernel()

    def dialled(host: str) -> None:
        info = {"family": "inet", "local": f"10.64.0.{host}", "prefixlen": 30, "scope": "global"}
        one.addresses[1:] = [{"ifname": "wwan0", "flags": ["UP"], "mtu": 1430, "addr_info": [info]}]
        way = {"dst": "default", "gateway": f"10.64.0.{int(host) + 1}", "dev": "wwan0", "protocol": "static"}
        one.routes[3:] = [{**way, "metric": 700, "flags": []}]

    dialled("5")
    was = kernel.look(one)
    dialled("9")
    assert kernel.differences(one, was) == []
    one.addresses[1]["addr_info"] = []
    assert kernel.differences(one, was)


def test_a_link_that_had_nothing_of_ours_may_go() -> None:
    one = Kernel()
    link = {"ifname": "veth1", "flags": ["UP"], "mtu": 1500, "addr_info": []}
    one.addresses.append(link)
    one.routes.append({"dst": "fd00::/64", "dev": "veth1", "protocol": "kernel", "flags": []})
    was = kernel.look(one)
    del one.addresses[1], one.routes[3]
    assert kernel.differences(one, was) == []
    kernel.put_back(one, was)
    assert one.set == []
    del one.addresses[0]
    assert "eth0 is gone" in kernel.differences(one, was)


def test_settings_of_neighbours_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "proc/sys/net/ipv4/neigh/eth0"
    folder.mkdir(parents=True)
    (folder / "ucast_solicit").write_text("3\n")
    one = Kernel(tmp_path)
    was = kernel.look(one)
    (folder / "ucast_solicit").write_text("1\n")
    kernel.put_back(one, was)
    assert (folder / "ucast_solicit").read_text() == "3\n"


def test_networking_that_was_switched_off_is_on_at_the_next_boot(tmp_path: Path) -> None:
    path = tmp_path / manager.STATE.lstrip("/")
    path.parent.mkdir(parents=True)
    manager.switch_on(Host(tmp_path))
    assert not path.exists()
    path.write_text("[main]\nNetworkingEnabled=false\nWirelessEnabled=true\n")
    manager.switch_on(Host(tmp_path))
    assert path.read_text() == "[main]\nNetworkingEnabled=true\nWirelessEnabled=true\n"


def test_a_manager_that_hangs_lets_nothing_begin(host: FakeHost) -> None:
    state = host._state()
    state["active"][manager.UNIT] = True
    host._keep(state)
    host.refuse = {"nmcli": Done([], 124, "", "no answer within 4 s")}
    with pytest.raises(GuardError, match="does not answer"):
        manager.look(host)


@pytest.mark.parametrize(
    ("wanted", "state", "right"),
    [
        ({"active": False}, ("loaded", "failed", "enabled"), True),
        ({"active": True}, ("loaded", "activating", "enabled"), True),
        ({"active": True}, ("loaded", "inactive", "enabled"), False),
        ({"enabled": True}, ("loaded", "active", "static"), True),
        ({"enabled": False}, ("not-found", "inactive", ""), True),
        ({"masked": True}, ("not-found", "inactive", ""), False),
        ({"masked": True}, ("masked", "inactive", "masked"), True),
        ({}, ("masked", "inactive", "masked"), True),
    ],
)
def test_units_as_wanted(wanted: dict[str, Any], state: tuple[str, str, str], right: bool) -> None:
    assert units.as_wanted(dict(zip(("load", "active", "enabled"), state, strict=True)), wanted) == right


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"subject": "Two Words"}, "small letters"),
        ({"files": [{"path": "etc/issue", "content": ""}]}, "absolute path"),
        ({"files": [{"path": "/etc/../etc/issue", "content": ""}]}, "absolute path"),
        ({"files": [{"path": "/etc/issue"}]}, "content is missing"),
        ({"files": [{"path": "/etc/issue", "state": "link"}]}, "target is missing"),
        ({"files": [{"path": "/etc/issue", "content": "", "mode": "rw"}]}, "octal"),
        ({"files": [{"path": "/etc/issue", "content": "", "mode": "420"}]}, "in quotes"),
        ({"check": [["sshd", "{staged:/etc/x}"]]}, "none of the files"),
        ({"apply": [[]]}, "no command"),
        ({"apply": ["systemctl reload ssh"]}, "no command"),
        ({"apply": [{"bring_up": {"interface": "eth0"}}]}, "no step"),
        ({"apply": [{"command": ["true"]}]}, "no step"),
        ({"apply": [{"command": ["true"], "place": "elsewhere"}]}, "places are files, network, kernel"),
        ({"apply": [{"command": "true", "place": "files"}]}, "no command"),
    ],
)
def test_nonsense_is_refused_in_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(GuardError, match=words):
        Change(**{"subject": "test", **values})


@pytest.mark.parametrize(
    ("step", "place"),
    [
        (["systemctl", "reload", "ssh.service"], "files"),
        (["/usr/sbin/sshd", "-t"], "files"),
        (["sh", "-c", "ip link"], "files"),
        (["/usr/sbin/ip", "link", "set", "eth0", "down"], "network"),
        (["nft", "-f", "x"], "network"),
        (["sysctl", "-w", "net.ipv4.ip_forward=1"], "network"),
        (["sysctl", "--write", "net/ipv4/conf/eth0.1/rp_filter=1"], "network"),
        (["sysctl", "-w", "kernel.yama.ptrace_scope=1"], "kernel"),
        (["sysctl", "-w", "vm.swappiness=1", "net.ipv4.ip_forward=1"], "network"),
        (["sysctl", "-w", "net.core.bpf_jit_harden=2"], "bpf"),
        (["sysctl", "-w", "net.core.bpf_jit_harden=2", "net.core.somaxconn=1"], "network"),
        (["sysctl", "--system"], "network"),
        (["sysctl", "-p", "/etc/sysctl.d/x.conf"], "network"),
        ({"command": ["ip", "link"], "place": "files"}, "files"),
        ({"command": ["ln", "-sfn", "a", "/dev/b"], "place": "kernel"}, "kernel"),
        ({"bring_up": {"interface": "eth0", "uuid": "1"}}, "network"),
    ],
)
def test_a_step_runs_where_it_can(step: Any, place: str) -> None:
    Change(subject="test", apply=[step])
    assert place_of(step) == place


@pytest.mark.parametrize(
    "path", ["/dev/log", "/sys/x", "/proc/sys/kernel/x", "/usr/bin/x", "/lib/modules/x", "/sbin/x"]
)
def test_what_lies_out_of_reach_is_not_begun(host: FakeHost, path: str) -> None:
    host.at("/usr/bin").mkdir(parents=True)
    host.at("/sbin").symlink_to("usr/bin")
    with pytest.raises(GuardError, match="lies where nothing could be put back"):
        snapshot.take(host, Change(subject="test", files=[{"path": path, "content": "x"}]))


def test_what_only_begins_like_it_is_in_reach(host: FakeHost) -> None:
    paths = ("/device", "/usr/local/bin/x", "/usr.conf", "/boot/cmdline.txt")
    snapshot.take(host, Change(subject="test", files=[{"path": path, "content": "x"} for path in paths]))


@pytest.fixture
def attributes(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Extended attributes that a file has; real ones of these kinds ask for more than a test may have."""
    found: dict[str, bytes] = {}
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: list(found))
    monkeypatch.setattr(os, "getxattr", lambda _path, name, **__: found[name])
    monkeypatch.setattr(os, "setxattr", lambda _path, name, value, **__: found.update({name: value}))
    monkeypatch.setattr(os, "removexattr", lambda _path, name, **__: found.pop(name))
    return found


def test_attributes_that_only_the_whole_machine_may_set_are_not_begun(
    host: FakeHost, attributes: dict[str, bytes]
) -> None:
    change = Change(subject="test", files=[{"path": "/etc/issue", "content": "new\n"}])
    attributes |= {"security.capability": b"x", "security.selinux": b"x", "system.posix_acl_access": b"x"}
    snapshot.take(host, change)
    attributes["trusted.note"] = b"x"
    with pytest.raises(GuardError, match=r"/etc/issue has trusted\.note, which could not be put back"):
        snapshot.take(host, change)


@pytest.mark.parametrize("at_work", [True, False])
def test_labels_that_nobody_reads_do_not_count(
    host: FakeHost, attributes: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, *, at_work: bool
) -> None:
    """Where SELinux is off, a file that has been replaced cannot have its label back, and needs none."""
    monkeypatch.setattr(entries, "LABELS", host.at("/etc/issue" if at_work else "/nowhere"))
    path = host.at("/etc/issue")
    attributes["security.selinux"] = b"old"
    was = entries.look(path)[0]
    attributes.clear()
    assert entries.is_as(path, was) != at_work
    contents = host.root / "contents"
    contents.mkdir()
    (contents / was["sha256"]).write_bytes(path.read_bytes())
    path.write_text("new\n")
    entries.put_back(path, was, contents)
    assert ("security.selinux" in attributes) == at_work
    assert entries.is_as(path, was)


def test_the_boot_is_the_one_that_systemd_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, a unit that has a /proc of its own reads that of the whole machine there."""
    own = Host().boot_id()
    monkeypatch.setenv(BOOT_ID, own.replace("-", ""))
    assert Host().boot_id() == own
    monkeypatch.setenv(BOOT_ID, "0123456789abcdef0123456789abcdef")
    assert Host().boot_id() == "01234567-89ab-cdef-0123-456789abcdef"


def test_secrets_are_shown_as_digests(host: FakeHost) -> None:
    file = {"path": "/etc/issue", "content": "hunter2\n", "sensitive": True}
    (shown,) = Change(subject="test", files=[file]).differences(host)
    assert "hunter2" not in str(shown)
    assert "old" not in str(shown)
    assert hashlib.sha256(b"hunter2\n").hexdigest() in shown["after"]


def test_as_wanted_is_no_difference(host: FakeHost) -> None:
    host.at("/etc/issue").chmod(0o644)
    change = Change(
        subject="test",
        files=[{"path": "/etc/issue", "content": "old\n"}, {"path": "/etc/none", "state": "absent"}],
        units=[{"name": "avahi.service", "active": True, "masked": False}],
        sysctls={"net.ipv4.ip_forward": "0"},
    )
    assert change.differences(host) == []
    host.at("/etc/issue").chmod(0o600)
    (shown,) = change.differences(host)
    assert "mode 0600" in shown["before"]
    assert "mode 0644" in shown["after"]


def test_what_is_left_over_of_a_unit_makes_room_for_it(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "37": ("1", "0::/system.slice/ssh.service"),
        "38": ("37", "0::/system.slice/ssh.service"),  # a session, where there is no logind
        "39": ("1", "0::/system.slice/avahi.service"),
    }
    for number, (parent, group) in places.items():
        place = host.at(f"/proc/{number}")
        place.mkdir()
        (place / "cgroup").write_text(f"{group}\n")
        (place / "stat").write_text(f"{number} (a) b) S {parent} 0\n")
    killed: list[int] = []

    def kill(process: int, _signal: int) -> None:
        killed.append(process)
        host.at(f"/proc/{process}/stat").unlink()

    monkeypatch.setattr(os, "kill", kill)
    states = units.look(host, ["ssh.service", "avahi.service"])
    units.put_back(host, states)
    assert killed == []
    host.run(["systemctl", "stop", "ssh.service"])
    units.put_back(host, states)
    assert killed == [37]
    assert units.is_active(units.look(host, ["ssh.service"])["ssh.service"])


@pytest.mark.parametrize("active", [True, False])
def test_a_unit_that_hangs_in_its_end_is_killed(host: FakeHost, *, active: bool) -> None:
    """fail2ban that was stopped before it had its socket: it heard nothing, and systemd waited 90 s for it."""
    name = "fail2ban.service"
    host.run(["systemctl", "start" if active else "stop", name])
    states = units.look(host, [name])
    host.hangs = {name}
    units.settle(host, states, wait=0.1)
    assert ["systemctl", "kill", "--signal=KILL", "--", name] in host.ran
    assert units.look(host, [name])[name]["active"] == ("active" if active else "inactive")
    assert units.differences(host, states) == []
    # One that is as it was is left alone.
    host.ran.clear()
    units.settle(host, states, wait=0.1)
    assert not any("kill" in words for words in host.ran)


def test_a_unit_that_is_told_to_reload_is_kept() -> None:
    change = Change(
        subject="test", apply=[["systemctl", "reload", "ssh.service"], ["systemctl", "stop", "a.service"]]
    )
    assert change.reloads == [["systemctl", "reload", "ssh.service"]]
    assert change.kept_units == ["ssh.service"]


def fake_proc(place: Path, chain: list[tuple[str, dict[str, str], float]]) -> Path:
    """/proc of this process and those above it: command line, environment, start."""
    numbers = [os.getpid(), *range(900001, 900001 + len(chain) - 1), 0]
    for (command, environment, started), number, parent in zip(chain, numbers, numbers[1:], strict=False):
        directory = place / "proc" / str(number)
        directory.mkdir(parents=True)
        ticks = int(started * os.sysconf("SC_CLK_TCK"))
        fields = ["S", str(parent), *["0"] * 17, str(ticks)]
        (directory / "stat").write_text(f"{number} (a) b) {' '.join(fields)}\n")
        (directory / "cmdline").write_bytes(command.replace(" ", "\0").encode())
        (directory / "environ").write_bytes(
            "\0".join(f"{key}={value}" for key, value in environment.items()).encode()
        )
    return place / "proc"


def test_the_peer_is_found_above_sudo(place: Path) -> None:
    connection = {"SSH_CONNECTION": "198.18.0.1 55000 198.18.0.11 22"}
    proc = fake_proc(
        place,
        [
            ("python3 -", {}, 30.0),
            ("sudo python3", connection, 29.0),
            ("sshd: admin@notty", {}, 21.0),
            ("sshd: admin [priv]", {}, 20.0),
            ("sshd: /usr/sbin/sshd -D [listener] 0 of 10", {}, 3.0),
        ],
    )
    assert peer.controller_address(proc) == "198.18.0.1"
    age = peer.connection_age(proc)
    assert age is not None
    assert time.clock_gettime(time.CLOCK_BOOTTIME) - age == pytest.approx(20.0, abs=0.5)


def test_without_ssh_there_is_no_peer(place: Path) -> None:
    proc = fake_proc(place, [("python3 -", {}, 30.0), ("bash", {}, 3.0)])
    assert (peer.controller_address(proc), peer.connection_age(proc)) == (None, None)


def test_a_command_that_hangs_is_killed_with_its_children() -> None:
    done = Host().run(["sh", "-c", "sleep 60 & sleep 60"], timeout=0.3)
    assert (done.code, done.words) == (124, "no answer within 0.3 s")
    assert Host().run(["no-such-program"]).code == 127


def test_the_program_is_whole_and_always_the_same(place: Path) -> None:
    packed = install.archive()
    assert packed == install.archive()
    here = Path(install.__file__).parent
    inside = {Path(name).stem for name in zipfile.ZipFile(BytesIO(packed)).namelist()}
    # What is only for modules stays out.
    assert {path.stem for path in here.glob("*.py")} - inside == {"install", "embed"}
    program = place / "energy-guard.pyz"
    program.write_bytes(packed)
    done = subprocess.run(
        [sys.executable, "-I", program, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout


def test_an_up_to_date_program_is_left_alone(host: FakeHost) -> None:
    host.refuse = {
        "systemctl show --property=LoadState": Done(
            [], 0, "\n\n".join(["LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled"] * 7), ""
        )
    }
    assert install.install(host)
    assert not install.install(host)
    for name in install.UNITS:
        assert "{" not in host.at(f"/etc/systemd/system/{name}").read_text()
    unit = host.at("/etc/systemd/system/energy-guard-boot.service").read_text()
    assert "ConditionPathExists=/var/lib/energy-guard/pending\n" in unit
    # On Debian this is an alias, which must not be loaded as a unit of its own.
    assert "sshd.service" not in unit.partition("Before=")[2]


def test_links_of_system_v_scripts_are_put_back(host: FakeHost) -> None:
    folder = host.at("/etc/rc2.d")
    folder.mkdir(parents=True)
    (folder / "S01ssh").symlink_to("../init.d/ssh")
    change = Change.from_dict({"subject": "hardening", "units": [{"name": "ssh.service", "enabled": False}]})
    was, contents = snapshot.take(host, change)
    # What Debian's `systemctl disable` does besides its own.
    (folder / "S01ssh").rename(folder / "K01ssh")
    assert len(snapshot.differences(host, was)) == 2
    kept = host.root / "kept"
    kept.mkdir()
    snapshot.write(kept, was, contents)
    with hands.Direct(host, was, lambda _: None) as live:
        snapshot.put_back(host, was, kept / "contents", lambda _: None, live)
    assert snapshot.differences(host, was) == []
    assert [path.name for path in folder.iterdir()] == ["S01ssh"]
