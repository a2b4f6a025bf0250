# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""All that a change may touch, as it was: taken, compared, put back.

A snapshot is a dictionary that goes to a file as JSON; the contents of files lie beside it, named by their digests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from . import durable, entries, manager, network, sysctls, tables, units, ways
from .change import Change
from .errors import GuardError
from .host import Host

LARGEST = 64 * 1024 * 1024
SYSTEMD = ("/etc/systemd/", "/run/systemd/", "/usr/lib/systemd/", "/lib/systemd/", "/usr/local/lib/systemd/")
RUNLEVELS = tuple(f"/etc/rc{level}.d" for level in "0123456S")
RUNTIME = "/run/systemd/system"
Tell = Callable[[str], None]
# What the units that put back cannot write, since systemd closes it to them, or what is gone with the next boot.
OUT_OF_REACH = ("/dev", "/proc", "/sys", "/usr", "/lib/modules")
IN_REACH = "/usr/local"
NO_LIVE: dict[str, Any] = {"sysctls": {}, "tables": {}, "network": None}


class Live(Protocol):
    """Who sets and compares live state of the kernel; see hands.py."""

    def put_back(self, what: str, **options: bool) -> None: ...

    def differences(self) -> list[str]: ...


def _name(host: Host, path: Path) -> str:
    return "/" + str(path.relative_to(host.root))


def _out_of_reach(host: Host, path: Path) -> bool:
    # Where it really lies: /lib and others are links.
    root, real = host.root.resolve(), path.parent.resolve() / path.name
    within = [base for base in (*OUT_OF_REACH, IN_REACH) if real.is_relative_to(root / base.lstrip("/"))]
    return bool(within) and IN_REACH not in within


def _generated(path: Path, content: bytes | None) -> bool:
    return content is not None and path.parent.name == "system-connections" and manager.generated(content)


def _below(directory: Path) -> list[Path]:
    """What is below a kept directory, without what its owner makes by himself."""
    if not directory.is_dir() or directory.is_symlink():
        return []
    return [path for path in entries.walk(directory) if not _generated(path, entries.look(path)[1])]


def _unit_links(host: Host) -> list[Path]:
    """What systemctl makes when it enables and masks: links, and the directories that they are in."""
    # On Debian it renames the links of a service's old init script as well.
    found = [path for base in RUNLEVELS for path in sorted(host.at(base).glob("[SK]*")) if path.is_symlink()]
    base = host.at(units.LINKS)
    below = entries.walk(base) if base.is_dir() else []
    found += [path for path in below if path.is_symlink() or (path.is_dir() and _holds_links(path))]
    # `systemctl mask --runtime`.
    return found + [path for path in sorted(host.at(RUNTIME).glob("*")) if path.is_symlink()]


def _holds_links(directory: Path) -> bool:
    return directory.suffix in (".wants", ".requires", ".upholds")


def unit_links(host: Host) -> dict[str, dict[str, Any]]:
    return {_name(host, path): entries.look(path)[0] for path in _unit_links(host)}


def take(
    host: Host, change: Change, more: list[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The host as it is, as far as a change may touch it, and the contents of its files by digest. `more` are paths."""
    found: dict[str, Any] = {}
    contents: dict[str, bytes] = {}

    def add(path: Path) -> None:
        entry, content = entries.look(path)
        if entry["type"] == "special":
            raise GuardError(
                f"{_name(host, path)} is neither file, link nor directory and could not be put back"
            )
        if _out_of_reach(host, path):
            raise GuardError(f"{_name(host, path)} lies where nothing could be put back; nothing is changed")
        beyond = entries.not_ours(entry)
        if beyond:
            raise GuardError(
                f"{_name(host, path)} has {', '.join(beyond)}, which could not be put back; nothing is changed"
            )
        if content is not None:
            contents[entry["sha256"]] = content
        found[_name(host, path)] = entry

    for name in change.paths + change.directories + (more or []):
        path = host.at(name)
        add(path)
        for parent in entries.missing_above(path, host.root):
            found[_name(host, parent)] = {**entries.ABSENT, "if_empty": True}
    for name in change.directories:
        for path in _below(host.at(name)):
            add(path)
    if sum(map(len, contents.values())) > LARGEST:
        raise GuardError(
            f"what would have to be kept is larger than {LARGEST // 1024**2} MiB; nothing is changed"
        )
    # The ways in are kept whatever is changed: commands can do to them what no change names.
    coming = ways.look(host)
    names = list(dict.fromkeys([*change.kept_units, *coming]))
    return {
        "entries": found,
        "directories": change.directories,
        "ways": coming,
        "links": unit_links(host) if names else None,
        "units": units.look(host, names),
        "sysctls": sysctls.look(host, change.kept_sysctls),
        "tables": tables.look(host, change.tables),
        "network": network.look(host) if change.network else None,
        "reloads": change.reloads,
    }, contents


def _lost_at_boot(name: str) -> bool:
    """/run is empty after a boot, whatever was there before it."""
    return name.startswith("/run/")


def _appeared(host: Host, was: dict[str, Any], *, boot: bool) -> list[Path]:
    """What is there now and was not: in the kept directories, and among the links of units."""
    found = [
        path
        for name in was["directories"]
        if not (boot and _lost_at_boot(name + "/"))
        for path in _below(host.at(name))
        if _name(host, path) not in was["entries"]
    ]
    if was["links"] is not None:
        known = was["links"].keys() | was["entries"].keys()
        appeared = [(_name(host, path), path) for path in _unit_links(host)]
        found += [path for name, path in appeared if name not in known and not (boot and _lost_at_boot(name))]
    return found


def _entries(was: dict[str, Any], *, boot: bool) -> dict[str, dict[str, Any]]:
    """All entries, a directory before what is in it."""
    both = {**(was["links"] or {}), **was["entries"]}
    return {name: both[name] for name in sorted(both) if not (boot and _lost_at_boot(name))}


def _files_differ(host: Host, was: dict[str, Any], *, boot: bool) -> list[str]:
    lines = [
        f"{name} is not as it was"
        for name, entry in _entries(was, boot=boot).items()
        if not entries.is_as(host.at(name), entry)
    ]
    return lines + [f"{_name(host, path)} was not there" for path in _appeared(host, was, boot=boot)]


def part(was: dict[str, Any], hand: str) -> dict[str, Any]:
    """What of a snapshot is live state that one of the hands has."""
    own = {name: value for name, value in was["sysctls"].items() if sysctls.hand_of(name) == hand}
    others = was if hand == sysctls.NETWORK else NO_LIVE
    return {"sysctls": own, "tables": others["tables"], "network": others["network"]}


def hands_of(was: dict[str, Any]) -> list[str]:
    """The hands that a snapshot needs."""
    return [hand for hand in sysctls.HANDS if any(part(was, hand).values())]


def differences(host: Host, was: dict[str, Any]) -> list[str]:
    """Where the host is not as it was."""
    return static_differences(host, was) + live_differences(host, was)


def static_differences(host: Host, was: dict[str, Any], *, boot: bool = False) -> list[str]:
    """Where files and units are not as they were. While the host boots the files alone count: all else is made from
    them."""
    lines = _files_differ(host, was, boot=boot)
    return lines if boot else lines + units.differences(host, was["units"])


def live_differences(host: Host, was: dict[str, Any]) -> list[str]:
    """Where live state of the kernel is not as it was."""
    lines = sysctls.differences(host, was["sysctls"]) + tables.differences(host, was["tables"])
    return lines + (network.differences(host, was["network"]) if was["network"] else [])


def _put_files_back(host: Host, was: dict[str, Any], contents: Path, *, boot: bool) -> list[str]:
    """Put files, links and directories back; the names of those that had changed."""
    changed = []
    for path in reversed(_appeared(host, was, boot=boot)):
        entries.put_back(path, entries.ABSENT, contents)
        changed.append(_name(host, path))
    wanted = _entries(was, boot=boot)
    gone = [name for name in reversed(wanted) if wanted[name]["type"] == "absent"]
    for name in [*(name for name in wanted if name not in gone), *gone]:
        # A write that was cut has left this.
        durable.temporary_name(host.at(name)).unlink(missing_ok=True)
        if entries.put_back(host.at(name), wanted[name], contents):
            changed.append(name)
    return changed


def _reload(host: Host, was: dict[str, Any], tell: Tell) -> None:
    """Have the units read their files again that were told to when the change was applied."""
    for argv in was["reloads"]:
        names = [word for word in argv[2:] if not word.startswith("-")]
        if not any(units.is_active(was["units"][name]) for name in names if name in was["units"]):
            continue
        done = host.run(argv, timeout=15)
        if done.code != 0:
            tell(f"{' '.join(argv)}: {done.words}; restarting instead")
            host.run(["systemctl", "restart", "--", *names], timeout=15)


def _each(parts: list[tuple[str, Callable[[], object]]], tell: Tell) -> None:
    """A part that fails does not keep the others from being put back."""
    for name, one in parts:
        try:
            one()
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest has to be put back
            tell(f"{name}: {error}")


def put_back(
    host: Host, was: dict[str, Any], contents: Path, tell: Tell, live: Live | None, *, gentle: bool = False
) -> None:
    """Make the host what it was; compare afterwards. While it boots there is no live state that could be put back."""
    changed: list[str] = []
    boot = live is None

    def files() -> None:
        changed.extend(_put_files_back(host, was, contents, boot=boot))
        if changed:
            tell(f"put back: {', '.join(changed)}")
        if any(name.startswith(SYSTEMD) for name in changed):
            units.reload_manager(host)

    parts: list[tuple[str, Callable[[], object]]] = [("files", files)]
    if live is None:
        parts.append(("units", lambda: units.put_back_at_boot(host, was["units"])))
        if was["network"] and was["network"]["manager"]["on"]:
            parts.append(("network", lambda: manager.switch_on(host)))
    else:
        there = live
        parts += [
            ("settings", lambda: there.put_back("settings")),
            ("units", lambda: units.put_back(host, was["units"])),
            ("reload", lambda: _reload(host, was, tell)),
            ("network", lambda: _put_network_back(was, changed, there, gentle=gentle)),
            ("units", lambda: units.settle(host, was["units"])),
        ]
    _each(parts, tell)


def _put_network_back(was: dict[str, Any], changed: list[str], live: Live, *, gentle: bool) -> None:
    if was["network"]:
        profiles = any(name.startswith(manager.DIRECTORIES) for name in changed)
        live.put_back("network", profiles_changed=profiles, gentle=gentle)


def put_live_back(host: Host, was: dict[str, Any], what: str, tell: Tell, **options: bool) -> None:
    """Put live state back: `settings` of the kernel with the tables, or the `network`, which needs them first."""
    if what == "network":
        network.put_back(host, was["network"], tell, **options)
        return
    settings: list[tuple[str, Callable[[], object]]] = [
        ("sysctls", lambda: sysctls.put_back(host, was["sysctls"])),
        ("tables", lambda: tables.put_back(host, was["tables"])),
    ]
    _each(settings, tell)


def write(directory: Path, was: dict[str, Any], contents: dict[str, bytes]) -> None:
    """Write a snapshot into a directory, not yet to the disk: the caller syncs the whole."""
    (directory / "contents").mkdir(mode=0o700, exist_ok=True)
    for digest, content in contents.items():
        (directory / "contents" / digest).write_bytes(content)
    # Only the directory above, which is root's alone, keeps the contents from others.
    (directory / "snapshot.json").write_text(json.dumps(was), encoding="utf-8")
