# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Which links another service than NetworkManager configures, now or at the next boot: systemd-networkd or ifupdown."""

from __future__ import annotations

import pathlib
import re
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils import _services

NETWORKD, IFUPDOWN = "systemd-networkd.service", "networking.service"
# What systemd-networkd notes of a link that one of its files names; of all others it says "unmanaged".
_FILE = re.compile(r"^NETWORK_FILE=(.+)$", re.MULTILINE)
_UNMANAGED = re.compile(r"^ADMIN_STATE=unmanaged$", re.MULTILINE)
# run-parts(8), as "source-directory" has it.
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def managers(run_command: _services.RunCommand, root: str = "/") -> dict[str, dict[str, str]]:
    """By link the `service` and the `file` of it that names the link. A service that is neither running nor started at
    boot has no say, whatever its files are."""
    top = pathlib.Path(root)
    named = [(NETWORKD, *one) for one in _by_networkd(top)] + [(IFUPDOWN, *one) for one in _by_ifupdown(top)]
    if not named:
        return {}
    states = _services.read(sorted({service for service, _link, _file in named}), run_command)
    return {
        link: {"service": service, "file": file}
        for service, link, file in named
        if _has_a_say(states[service])
    }


def _has_a_say(state: dict[str, t.Any]) -> bool:
    return state["active"] == "active" or state["enabled"] in ("enabled", "enabled-runtime", "generated")


def _by_networkd(top: pathlib.Path) -> t.Iterator[tuple[str, str]]:
    for link in sorted((top / "sys/class/net").glob("*")):
        index = _text(link / "ifindex").strip()
        told = _text(top / "run/systemd/netif/links" / index) if index else ""
        file = _FILE.search(told)
        if file and not _UNMANAGED.search(told):
            yield link.name, file[1]


def _by_ifupdown(top: pathlib.Path) -> list[tuple[str, str]]:
    """The links that interfaces(5) describes and has brought up by itself."""
    described: dict[str, str] = {}
    begun: set[str] = set()
    files, seen = [top / "etc/network/interfaces"], set()
    while files:
        file = files.pop(0)
        if file in seen:
            continue
        seen.add(file)
        for line in _text(file).replace("\\\n", " ").splitlines():
            word, *rest = line.split() or [""]
            if word == "iface" and rest:
                described.setdefault(rest[0].partition(":")[0], f"/{file.relative_to(top)}")
            elif word == "auto" or word.startswith("allow-"):
                begun.update(name.partition(":")[0] for name in rest)
            elif word in ("source", "source-directory"):
                for pattern in rest:
                    files += _sourced(top, file, pattern, word == "source-directory")
    return [(link, file) for link, file in sorted(described.items()) if link in begun and link != "lo"]


def _sourced(top: pathlib.Path, file: pathlib.Path, pattern: str, directory: bool) -> list[pathlib.Path]:
    place = top if pattern.startswith("/") else file.parent
    found = sorted(place.glob(pattern.lstrip("/") + ("/*" if directory else "")))
    return [one for one in found if one.is_file() and (not directory or _PLAIN.fullmatch(one.name))]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
