# SPDX-License-Identifier: Apache-2.0
"""Changes that would cost a site visit. Each of them takes the operator, or the hub, away from the site for certain."""

from __future__ import annotations

import random
from typing import Any

from tests.fault.lockout.changes import (
    NETWORK,
    TABLE,
    Change,
    Maker,
    connection,
    firewall,
    hardening,
    network,
    probes,
)
from tests.fault.lockout.site import HOSTS_PATH, SSHD_PATH, SYSCTL_PATH, WAN_PATH, WAN_UUID, Site, stranger


def wrong_address(rng: random.Random, site: Site) -> Change:
    address = rng.choice([stranger(rng, site), f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.7"])
    length = 24 if site.routed else rng.choice([19, 24])
    return connection("wrong-address", f"{address}/{length}", site, site.wan(address=f"{address}/{length}"))


def wrong_prefix(rng: random.Random, site: Site) -> Change:
    """The controller falls out of the site's network. On a routed site the gateway does, and nobody says so."""
    length = rng.randint(24, 30)
    content = site.wan(address=f"{site.address}/{length}", gateway="")
    return connection("wrong-prefix", f"/{length}", site, content)


def wrong_gateway(rng: random.Random, site: Site) -> Change:
    """On a flat site the wrong gateway comes with the prefix of a smaller network, as it does when a line is copied."""
    network24 = site.address.rsplit(".", 1)[0]
    gateway = f"{network24}.{rng.randint(200, 250)}"
    content = site.wan(address=f"{site.address}/24", gateway=gateway)
    return connection("wrong-gateway", gateway, site, content)


def stray_route(rng: random.Random, site: Site) -> Change:
    """A route that leads management away, in the profile or by hand."""
    away = f"192.168.10.{rng.randint(100, 250)}"
    # A routed site has its gateway on a route of its own, which no wider one beats.
    match rng.choice(["profile", "profile" if site.routed else "wider", "by hand", "hole"]):
        case "profile":
            extra = [
                f"route8={site.controller}/32,{site.address.rsplit('.', 1)[0]}.{rng.randint(200, 250)},5"
            ]
            return connection("stray-route", extra[0], site, site.wan(extra=extra))
        case "wider":
            # Longer than any of the site's networks, and so it wins.
            first = site.controller.rsplit(".", 1)[0]
            extra = [f"route8={first}.0/{rng.randint(25, 29)},{site.address.rsplit('.', 1)[0]}.251,5"]
            return connection("stray-route", extra[0], site, site.wan(extra=extra))
        case "by hand":
            words = ["ip", "route", "replace", f"{site.controller}/32", "via", away, "dev", "eth1"]
        case _:
            kind = rng.choice(["blackhole", "unreachable", "prohibit"])
            words = ["ip", "route", "replace", kind, f"{site.controller}/32"]
    options = {
        **_marker(rng),
        "subject": "network",
        "apply": [words],
        "keep": network(),
        "probes": probes(site),
    }
    return Change("stray-route", " ".join(words), options)


def drop_everything(rng: random.Random, site: Site) -> Change:
    rule = rng.choice(["drop", "counter drop", "reject", "tcp dport 0-65535 drop", "meta l4proto tcp drop"])
    return firewall("drop-everything", rule, site, site.table(first=rule))


def management_removed(rng: random.Random, site: Site) -> Change:
    other = stranger(rng, site)
    return firewall("management-removed", other, site, site.table(management=other))


def hub_cut(rng: random.Random, site: Site) -> Change:
    """We are let in, and the readings are not let out: only a probe finds that."""
    rule = rng.choice(
        [
            f"ip daddr {site.hub} drop",
            "tcp dport 8883 drop",
            "tcp dport 8000-9000 reject",
            "ct state new drop",
        ]
    )
    return firewall("hub-cut", rule, site, site.table(output=rule))


def new_refused(rng: random.Random, site: Site) -> Change:
    """What is open stays open: a session that was there before would swear that all is well."""
    rule = rng.choice(
        ["tcp flags syn / syn,ack drop", "ct state new drop", "tcp dport 22 ct state new reject"]
    )
    return firewall("new-refused", rule, site, site.table(first=rule))


def black_hole(rng: random.Random, site: Site) -> Change:
    """Small packets pass: the connection opens, and the key exchange hangs."""
    size = rng.randint(200, 900)
    rule = f"tcp sport 22 meta length > {size} drop"
    return firewall("black-hole", rule, site, site.table(output=rule))


def wrong_mtu(rng: random.Random, site: Site) -> Change:
    mtu = rng.randint(68, 110)
    return connection("wrong-mtu", str(mtu), site, site.wan(mtu=mtu))


def interface_down(rng: random.Random, site: Site) -> Change:
    words = rng.choice(
        [
            ["ip", "link", "set", "eth0", "down"],
            ["nmcli", "device", "disconnect", "eth0"],
            ["nmcli", "connection", "down", WAN_UUID],
        ]
    )
    return _interface("interface-down", words, rng, site)


def networking_off(rng: random.Random, site: Site) -> Change:
    """NetworkManager remembers it, also when it starts anew."""
    return _interface("networking-off", ["nmcli", "networking", "off"], rng, site)


def no_address(rng: random.Random, site: Site) -> Change:
    return _interface("no-address", ["ip", "address", "flush", "dev", "eth0"], rng, site)


def _interface(kind: str, words: list[str], rng: random.Random, site: Site) -> Change:
    options = {
        **_marker(rng),
        "subject": "network",
        "apply": [words],
        "keep": network(),
        "probes": probes(site),
    }
    return Change(kind, " ".join(words), options)


def hub_name(rng: random.Random, site: Site) -> Change:
    """Management works, and the hub's name leads elsewhere."""
    other = stranger(rng, site)
    files: list[dict[str, Any]] = [{"path": HOSTS_PATH, "content": site.hosts(other), "mode": "0644"}]
    if rng.random() < 0.5:
        files = [
            {
                "path": "/etc/nsswitch.conf",
                "content": "passwd: files\ngroup: files\nhosts: dns\n",
                "mode": "0644",
            }
        ]
    return Change("hub-name", files[0]["path"], {"subject": "hosts", "files": files, "probes": probes(site)})


def sshd_broken(rng: random.Random, site: Site) -> Change:
    lines = rng.choice(
        [
            {"Port": str(rng.randint(2000, 60000))},
            {"AllowUsers": "nobody"},
            {"DenyUsers": "admin"},
            {"AllowGroups": "wheel"},
            {"ListenAddress": "127.0.0.1"},
            {"HostKey": "/etc/ssh/no_such_key"},
            {"AuthorizedKeysFile": "/nonexistent/%u"},
            {"PubkeyAuthentication": "no"},
            {"ForceCommand": "/bin/false"},
            {"NoSuchOption": "yes"},
        ]
    )
    options = {
        "subject": "sshd",
        "files": [{"path": SSHD_PATH, "content": site.dropin(**lines), "mode": "0644"}],
        # Half of the operators have not asked sshd first; the others learn nothing of most of these.
        "check": [["sshd", "-t", "-f", f"{{staged:{SSHD_PATH}}}"]] if rng.random() < 0.5 else [],
        "apply": [["systemctl", rng.choice(["reload", "restart"]), "ssh.service"]],
        "keep": {"units": ["ssh.service"]},
    }
    return Change("sshd-broken", str(lines), options)


def sshd_masked(rng: random.Random, site: Site) -> Change:
    """Sessions that are open survive this, too."""
    if rng.random() < 0.5:
        # Off at the next boot as well, and so refused at once; or for now only.
        wanted = rng.choice([{"active": False, "enabled": False, "masked": True}, {"active": False}])
        options = {"subject": "hardening", "units": [{"name": "ssh.service", **wanted}]}
        return Change("sshd-masked", str(wanted), options)
    words = rng.choice([["mask", "--now"], ["disable", "--now"], ["mask", "--runtime", "--now"]])
    return _command(rng, "sshd-masked", "hardening", ["systemctl", *words, "ssh.service"])


def sysctl_starved(rng: random.Random, site: Site) -> Change:
    """No room to receive anything: connections open, and nothing comes through."""
    value = f"{rng.randint(1, 3)} {rng.randint(1, 3)} {rng.randint(1, 3)}"
    options = {
        "subject": "hardening",
        "files": [
            {"path": SYSCTL_PATH, "content": f"net.ipv4.tcp_rmem = {value}\n", "mode": "0644", "late": True}
        ],
        "sysctls": {"net.ipv4.tcp_rmem": value},
        "apply": [["systemctl", "restart", "ssh.service"]],
        "keep": {"units": ["ssh.service"]},
    }
    return Change("sysctl-starved", value, options)


def sysctl_reverse_path(rng: random.Random, site: Site) -> Change:
    """Answers leave by a rule of their own, so the way back looks wrong, and strict filtering drops all that comes."""
    mark, table = rng.randint(1, 200), rng.randint(201, 250)
    extra = [
        f"route8={site.controller}/32",
        f"route8_options=table={table}",
        f"routing-rule1=priority 90 fwmark {mark} table {table}",
    ]
    rules = f"""table inet wattfleet {{
    chain answers {{
        type route hook output priority -150; policy accept;
        tcp sport 22 meta mark set {mark}
    }}
}}
"""
    away = ["ip", "route", "replace", f"{site.controller}/32", "dev", "eth1"]
    one = connection("sysctl-reverse-path", f"mark {mark}, table {table}", site, site.wan(extra=extra))
    options = one.options
    options["files"].append({"path": "/etc/nftables.d/mark.nft", "content": rules, "mode": "0644"})
    # Last, since NetworkManager makes the filter of an interface loose when it sees such routes.
    strict = ["sysctl", "--write", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.eth0.rp_filter=1"]
    options["apply"] = [*options["apply"], ["nft", "-f", "/etc/nftables.d/mark.nft"], away, strict]
    options["keep"]["tables"] = ["inet wattfleet"]
    options["keep"]["sysctls"] = ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.rp_filter"]
    return one


def network_manager_masked(rng: random.Random, site: Site) -> Change:
    """Hardening that goes too far: nobody is left to bring the interface up again."""
    down = rng.choice([["ip", "link", "set", "eth0", "down"], ["ip", "address", "flush", "dev", "eth0"]])
    if rng.random() < 0.5:
        wanted = {"active": False, "enabled": False, "masked": True}
        if rng.random() < 0.5:
            del wanted["enabled"], wanted["masked"]
        options = {
            "subject": "hardening",
            "units": [{"name": "NetworkManager.service", **wanted}],
            "apply": [down],
            "keep": network(),
        }
        return Change("network-manager-masked", f"{wanted}, {' '.join(down)}", options)
    words = rng.choice([["mask"], ["mask", "--now"], ["disable", "--now"]])
    mask = ["systemctl", *words, "NetworkManager.service"]
    return _command(rng, "network-manager-masked", "hardening", mask, down, keep=network())


def lost_at_boot(rng: random.Random, site: Site) -> Change:
    """All is well, and every connection is let in, until the host boots the next time."""
    words = rng.choice(
        [
            ["systemctl", "mask", "NetworkManager.service"],
            ["systemctl", "disable", "NetworkManager.service"],
            ["systemctl", "mask", "ssh.service"],
            ["systemctl", "disable", "ssh.service"],
            ["systemctl", "disable", "nftables.service"],
            ["systemctl", "mask", "dbus.service"],
            ["systemctl", "mask", "network.target"],
            ["systemctl", "set-default", "rescue.target"],
            ["ln", "-sfn", "/dev/null", "/etc/systemd/system/NetworkManager.service"],
            ["rm", "/etc/systemd/system/multi-user.target.wants/ssh.service"],
        ]
    )
    if rng.random() < 0.3:
        name = rng.choice(["NetworkManager.service", "ssh.service"])
        options = {"subject": "hardening", "units": [{"name": name, "masked": True}]}
        return Change("lost-at-boot", f"{name} masked by name", options)
    return _command(rng, "lost-at-boot", "hardening", words)


def deleted_profile(rng: random.Random, site: Site) -> Change:
    options = {
        "subject": "network",
        "files": [{"path": WAN_PATH, "state": "absent"}],
        "apply": [["nmcli", "connection", "reload"]],
        "keep": network(),
        "probes": probes(site),
    }
    return Change("deleted-profile", WAN_PATH, options)


def forgotten_profile(rng: random.Random, site: Site) -> Change:
    """NetworkManager dies before it sees that the profile is gone, and leaves the device what it has until the next
    boot."""
    died = ["systemctl", "kill", "--signal=KILL", "NetworkManager.service"]
    options = {
        "subject": "network",
        "files": [{"path": WAN_PATH, "state": "absent"}],
        "apply": [died] if rng.random() < 0.5 else [died, ["sleep", "2"]],
        "keep": network(),
        "probes": probes(site),
    }
    return Change("forgotten-profile", WAN_PATH, options)


def login_refused(rng: random.Random, site: Site) -> Change:
    """sshd is well, and still nobody gets in, or gets anywhere."""
    path, content = rng.choice(
        [
            ("/etc/nologin", "closed for maintenance\n"),
            ("/etc/sudoers.d/admin", "admin ALL=(ALL:ALL) ALL\n"),
            ("/etc/sudoers.d/zz-energy", "admin ALL=(ALL:ALL) !ALL\n"),
            ("/etc/pam.d/sshd", "account required pam_deny.so\nsession required pam_deny.so\n"),
        ]
    )
    mode = "0440" if "sudoers" in path else "0644"
    options = {"subject": "hardening", "files": [{"path": path, "content": content, "mode": mode}]}
    return Change("login-refused", path, options)


def step_fails(rng: random.Random, site: Site) -> Change:
    """The change is cut short by itself: a step that fails, or that never ends."""
    last = rng.choice([["false"], ["sleep", "600"], ["no-such-program"], ["nft", "-f", "/nonexistent"]])
    one = firewall(
        "step-fails", " ".join(last), site, site.table(first=f"tcp dport {rng.randint(1, 21)} drop")
    )
    one.options["files"].append(
        {"path": "/etc/energy-half-done", "content": f"{rng.random()}\n", "mode": "0600"}
    )
    one.options["apply"].append(last)
    return one


def by_network_module(rng: random.Random, site: Site) -> Change:
    """The same mistakes as the network role makes them, whose profile takes the place of the site's."""
    address, length = site.address, 24 if site.routed else 19
    one: dict[str, Any] = {"name": "EnergyWan", "interface": "eth0", "mtu": 0}
    gateway = site.controller if site.routed else None
    match rng.choice(["address", "gateway" if site.routed else "prefix", "mtu", "dhcp", "bond"]):
        case "address":
            address = stranger(rng, site)
        case "gateway":
            gateway = f"{address.rsplit('.', 1)[0]}.{rng.randint(200, 250)}"
        case "prefix":
            length = rng.randint(24, 30)
        case "mtu":
            one["mtu"] = rng.randint(68, 110)
        case "dhcp":
            # Nobody answers there.
            one |= {"ipv4": "auto", "metric": rng.randint(50, 99)}
            options = {"connections": [one], "guard": {"probes": probes(site)}}
            return Change("by-network-module", str(one), options, module=NETWORK)
        case _:
            # Its interface in a bond, which this kernel keeps as profiles: nobody would get in after the next boot.
            # The module refuses that, as long as it is told by which address it is reached.
            one |= {"interface": "bond0", "bond": {"interfaces": ["eth0", "eth1"]}}
    one |= {"addresses": [f"{address}/{length}"], "metric": rng.randint(50, 99)}
    if gateway:
        one["gateway"] = gateway
    options = {"connections": [one], "guard": {"probes": probes(site)}}
    if "bond" in one:
        options["keep"] = [site.address]
    return Change("by-network-module", str(one), options, module=NETWORK)


def by_firewall_module(rng: random.Random, site: Site) -> Change:
    """The same as the firewall role makes them. Most are found with packets before anything is loaded."""
    rule = rng.choice(
        [
            "drop",
            "ct state new drop",
            "tcp dport 8883 drop",
            f"tcp sport 22 meta length > {rng.randint(200, 900)} drop",
        ]
    )
    if rng.random() < 0.3:
        rule, content = "management", site.table(management=stranger(rng, site))
    elif "sport" in rule or "8883" in rule:
        content = site.table(output=rule)
    else:
        content = site.table(first=rule)
    # The module replaces the table by itself.
    content = content[content.index("table inet wattfleet {") :]
    options = {"content": content, "guard": {"probes": probes(site)}}
    return Change("by-firewall-module", rule, options, module=TABLE)


def by_hardening_role(rng: random.Random, site: Site) -> Change:
    """The whole role, with a list of those who may come in that lacks who comes in."""
    wrong = rng.choice(
        [{"hardening_ssh_users": [f"user{rng.randint(1, 99)}"]}, {"hardening_ssh_groups": ["wheel"]}]
    )
    return hardening("by-hardening-role", str(wrong), site, variables=wrong)


def _command(
    rng: random.Random, kind: str, subject: str, *words: list[str], keep: dict[str, Any] | None = None
) -> Change:
    """Commands whose author has not thought of what they leave behind."""
    options = {**_marker(rng), "subject": subject, "apply": [*words], "keep": keep or {}}
    return Change(kind, "; ".join(" ".join(argv) for argv in words), options)


def _marker(rng: random.Random) -> dict[str, Any]:
    """A change has to differ in something that the guard compares, or it would be none."""
    content = f"# {rng.getrandbits(32):08x}\n"
    return {
        "files": [{"path": "/etc/NetworkManager/conf.d/90-energy.conf", "content": content, "mode": "0644"}]
    }


KINDS: dict[str, Maker] = {
    "wrong-address": wrong_address,
    "wrong-prefix": wrong_prefix,
    "wrong-gateway": wrong_gateway,
    "stray-route": stray_route,
    "drop-everything": drop_everything,
    "management-removed": management_removed,
    "hub-cut": hub_cut,
    "new-refused": new_refused,
    "black-hole": black_hole,
    "wrong-mtu": wrong_mtu,
    "interface-down": interface_down,
    "networking-off": networking_off,
    "no-address": no_address,
    "hub-name": hub_name,
    "sshd-broken": sshd_broken,
    "sshd-masked": sshd_masked,
    "sysctl-starved": sysctl_starved,
    "sysctl-reverse-path": sysctl_reverse_path,
    "network-manager-masked": network_manager_masked,
    "lost-at-boot": lost_at_boot,
    "deleted-profile": deleted_profile,
    "forgotten-profile": forgotten_profile,
    "login-refused": login_refused,
    "step-fails": step_fails,
    "by-network-module": by_network_module,
    "by-firewall-module": by_firewall_module,
    "by-hardening-role": by_hardening_role,
}

# Deaths that make a change harmless, so that it is kept rightly.
HARMLESS_WITH = {
    # NetworkManager makes the filter loose when it starts again,
    "sysctl-reverse-path": "nm-killed",
    # gives the interface the addresses of its profile,
    "no-address": "nm-killed",
    # and brings up what was down.
    "interface-down": "nm-killed",
}
