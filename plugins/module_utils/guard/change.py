# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What is wanted of a host, and where the host differs from it."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import entries, manager, sysctls, units
from .errors import GuardError, StepError
from .host import Host
from .sysctls import KERNEL, NETWORK

STAGED = re.compile(r"\{staged:([^}]+)\}")
# Where a command of `apply` runs: with the files and systemd's units, or with one of the hands that have live state.
FILES = "files"
PLACES = (FILES, NETWORK, KERNEL)
# What is of no use without the host's network.
NETWORK_PROGRAMS = (
    "arptables",
    "bridge",
    "conntrack",
    "ebtables",
    "ethtool",
    "ip",
    "ip6tables",
    "ip6tables-restore",
    "ipset",
    "iptables",
    "iptables-restore",
    "iw",
    "networkctl",
    "nft",
    "nmcli",
    "resolvectl",
    "ss",
    "tc",
    "wg",
)
RELOADING = (
    "reload",
    "restart",
    "reload-or-restart",
    "try-restart",
    "try-reload-or-restart",
    "condrestart",
    "force-reload",
)


def _identity(name: str, look_up: Any, kind: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return int(look_up(name)[2])
    except KeyError:
        raise GuardError(f"there is no {kind} {name} on the host") from None


@dataclass
class Change:
    """A change under one name; see the documentation of the module `guard` for the keys."""

    subject: str
    files: list[dict[str, Any]] = field(default_factory=list)
    units: list[dict[str, Any]] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    check: list[list[str]] = field(default_factory=list)
    apply: list[Any] = field(default_factory=list)
    keep: dict[str, Any] = field(default_factory=dict)
    probes: list[dict[str, Any]] = field(default_factory=list)
    wait_min: float = 60
    revert: bool = False  # the originals are what is wanted

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z-]*", self.subject):
            raise GuardError(
                f"subject {self.subject!r}: a name of small letters and hyphens is needed, such as network"
            )
        self.files = [self._file(dict(item)) for item in self.files]
        self.sysctls = {name: " ".join(str(value).split()) for name, value in self.sysctls.items()}
        self.units = [{key: value for key, value in item.items() if value is not None} for item in self.units]
        self.keep = {key: value for key, value in self.keep.items() if value}
        self.check, self.apply = [list(map(_words, steps)) for steps in (self.check, self.apply)]
        named = {item["path"] for item in self.files}
        commands: list[Any] = list(self.check)
        for step in self.apply:
            if isinstance(step, dict) and list(step) == ["bring_up"]:
                self._bring_up(step)
            else:
                commands.append(self._placed(step) if isinstance(step, dict) else step)
        for argv in commands:
            if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
                raise GuardError(f"{argv!r} is no command; a list of words is needed, such as [sshd, -t]")
            for path in STAGED.findall(" ".join(argv)):
                if path not in named:
                    raise GuardError(f"{' '.join(argv)}: {path} is none of the files of this change")

    @staticmethod
    def _bring_up(step: dict[str, Any]) -> None:
        wanted = step.get("bring_up")
        if not isinstance(wanted, dict) or set(wanted) != {"interface", "uuid"}:
            raise GuardError(f"{step!r} is no step; {{bring_up: {{interface: eth0, uuid: ...}}}} is one")

    @staticmethod
    def _placed(step: dict[str, Any]) -> Any:
        """The command of a step that says where it runs."""
        if set(step) != {"command", "place"} or step["place"] not in PLACES:
            raise GuardError(
                f"{step!r} is no step; {{command: [ip, link, ...], place: network}} is one, and places are "
                f"{', '.join(PLACES)}"
            )
        return step["command"]

    def _file(self, item: dict[str, Any]) -> dict[str, Any]:
        """A wanted file with all that was not said."""
        path = item.get("path", "")
        if not path.startswith("/") or os.path.normpath(path) != path:
            raise GuardError(f"file {path!r}: an absolute path without detours is needed, such as /etc/issue")
        state = item.get("state") or "file"
        if state not in ("file", "directory", "absent", "link"):
            raise GuardError(f"file {path}: state {state} is none of file, directory, absent, link")
        needed = {"file": "content", "link": "target"}.get(state)
        if needed and item.get(needed) is None:
            raise GuardError(f"file {path}: {needed} is missing")
        mode = str(item.get("mode") or "0644")
        if not re.fullmatch(r"0[0-7]{3}|[0-7]{4}", mode):
            # In YAML, 0644 without quotes is the number 420.
            raise GuardError(f"file {path}: mode {mode!r} is no octal number in quotes, such as '0644'")
        return {
            "path": path,
            "state": state,
            "content": item.get("content"),
            "target": item.get("target"),
            "mode": mode,
            "owner": str(item.get("owner") or "root"),
            "group": str(item.get("group") or "root"),
            "late": bool(item.get("late")),
            "sensitive": bool(item.get("sensitive")),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Change:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The change without the files' contents, which lie beside it."""
        values = asdict(self)
        values["files"] = [
            {**item, "content": None if item["state"] != "file" else ""} for item in values["files"]
        ]
        return values

    # What it concerns

    @property
    def network(self) -> bool:
        return bool(self.keep.get("network"))

    @property
    def paths(self) -> list[str]:
        return [item["path"] for item in self.files]

    @property
    def directories(self) -> list[str]:
        found = [*self.keep.get("directories", []), *(manager.DIRECTORIES if self.network else ())]
        return list(dict.fromkeys(found))

    @property
    def reloads(self) -> list[list[str]]:
        """Commands of `apply` that have a unit read its files: needed as well when the files have been put back."""
        return [argv for argv in map(command_of, self.apply) if argv and _is_reload(argv)]

    @property
    def kept_units(self) -> list[str]:
        found = [item["name"] for item in self.units] + list(self.keep.get("units", []))
        found += [word for step in self.reloads for word in step[2:] if not word.startswith("-")]
        if self.network:
            found.append(manager.UNIT)
        return list(dict.fromkeys(found))

    @property
    def kept_sysctls(self) -> list[str]:
        return list(dict.fromkeys([*self.sysctls, *self.keep.get("sysctls", [])]))

    @property
    def tables(self) -> list[str]:
        return list(self.keep.get("tables", []))

    # What is wanted

    def wanted_entry(self, item: dict[str, Any]) -> dict[str, Any]:
        """What a file of this change is to be, as an entry."""
        if item["state"] == "absent":
            return dict(entries.ABSENT)
        owner = {
            "uid": _identity(item["owner"], pwd.getpwnam, "user"),
            "gid": _identity(item["group"], grp.getgrnam, "group"),
        }
        if item["state"] == "link":
            return {**owner, "type": "link", "target": item["target"]}
        if item["state"] == "directory":
            return {**owner, "type": "directory", "mode": int(item["mode"], 8)}
        digest = hashlib.sha256(content_of(item)).hexdigest()
        return {**owner, "type": "file", "mode": int(item["mode"], 8), "sha256": digest}

    def differing_files(self, host: Host) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The files that are not what is wanted, with their entries."""
        found = []
        for item in self.files:
            entry = self.wanted_entry(item)
            path = host.at(item["path"])
            there = entries.look(path)[0]["type"]
            if there not in (entry["type"], "absent") and "directory" in (there, entry["type"]):
                raise GuardError(
                    f"{item['state']} {item['path']} is a {there} on the host; nothing is changed"
                )
            if not entries.is_as(path, entry):
                found.append((item, entry))
        return found

    def differences(self, host: Host) -> list[dict[str, str]]:
        """What is not as wanted, as --diff shows it; nothing if the host is as wanted."""
        found = [_file_diff(host, item, entry) for item, entry in self.differing_files(host)]
        states = units.look(host, [item["name"] for item in self.units])
        lines = [
            (
                f"{item['name']}: {units.text_of(state)}\n",
                f"{item['name']}: {units.text_of_wanted(item, state)}\n",
            )
            for item, state in ((item, states[item["name"]]) for item in self.units)
            if not units.as_wanted(state, item)
        ]
        values = sysctls.look(host, list(self.sysctls))
        for name, value in self.sysctls.items():
            if values[name] is None:
                raise GuardError(f"this kernel has no setting {name}; nothing is changed")
            if values[name] != value:
                lines.append((f"{name} = {values[name]}\n", f"{name} = {value}\n"))
        if lines:
            before, after = ("".join(side) for side in zip(*lines, strict=True))
            header = {"before_header": "live state", "after_header": "live state"}
            found.append({**header, "before": before, "after": after})
        return found


def content_of(item: dict[str, Any]) -> bytes:
    """What a file of a change is to hold. A byte that is no UTF-8, which a person has written, Python reads as a lone
    surrogate; it stays what it is."""
    content: str = item["content"]
    return content.encode("utf-8", "surrogateescape")


def _words(step: Any) -> Any:
    """A command with its numbers as words, as YAML does not tell them apart."""
    if isinstance(step, dict) and "command" in step:
        return {**step, "command": _words(step["command"])}
    if not isinstance(step, list):
        return step
    return [str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in step]


def teller(host: Host, record: dict[str, Any]) -> Callable[[str], None]:
    """Whoever tells the journal of a change that waits."""

    def tell(text: str) -> None:
        host.say(f"{record['subject']} {record['id']}: {text}")

    return tell


def command_of(step: Any) -> list[str] | None:
    """The command of a step, None where it is something else."""
    if isinstance(step, dict):
        step = step.get("command")
    return step if isinstance(step, list) else None


def text_of(step: Any) -> str:
    """A step in the words in which it is told."""
    argv = command_of(step)
    return " ".join(argv) if argv else f"bring up {step['bring_up']['interface']}"


def place_of(step: Any) -> str:
    """Where a step runs: where it says, or where its program is of use."""
    argv = command_of(step)
    if argv is None:
        return NETWORK
    if isinstance(step, dict):
        return str(step["place"])
    program = argv[0].rpartition("/")[2]
    if program == "sysctl":
        # A file of settings may hold any; those of the network can be set nowhere else.
        names = [word for word in argv[1:] if not word.startswith("-")]
        files = any(word.startswith(("-p", "--load", "--system")) for word in argv[1:])
        found = set(map(sysctls.hand_of, names))
        return found.pop() if len(found) == 1 and not files else NETWORK
    return NETWORK if program in NETWORK_PROGRAMS else FILES


def filled(argv: list[str], base: Path, staged: dict[str, str]) -> list[str]:
    """A command with the places of staged files filled in."""
    return [STAGED.sub(lambda match: str(base / staged[match.group(1)]), word) for word in argv]


def run_step(host: Host, step: Any, base: Path, staged: dict[str, str], left: float) -> None:
    """Run the command of a step. StepError if it fails."""
    done = host.run(filled(command_of(step) or [], base, staged), timeout=left)
    if done.code != 0:
        raise StepError(text_of(step), done.words)


def _is_reload(step: list[str]) -> bool:
    return len(step) > 2 and step[0].rpartition("/")[2] == "systemctl" and step[1] in RELOADING


def _shown(entry: dict[str, Any], content: bytes | None, sensitive: bool, *, head: bool) -> str:
    """A file for people. `head` adds owner and mode."""
    if entry["type"] == "absent":
        return ""
    text = ""
    if head:
        text = f"owner {entry['uid']}:{entry['gid']}"
        text += f", mode {entry['mode']:04o}\n" if "mode" in entry else "\n"
    if entry["type"] == "link":
        return f"{text}link to {entry['target']}\n"
    if sensitive:
        return f"{text}SHA-256 {entry['sha256']}\n"
    return text + (content or b"").decode("utf-8", "replace")


def _file_diff(host: Host, item: dict[str, Any], entry: dict[str, Any]) -> dict[str, str]:
    found, content = entries.look(host.at(item["path"]))
    both = "absent" not in (found["type"], entry["type"])
    head = both and any(found.get(key) != entry.get(key) for key in ("uid", "gid", "mode"))
    wanted = content_of(item) if entry["type"] == "file" else None
    return {
        "before_header": item["path"],
        "after_header": item["path"],
        "before": _shown(found, content, item["sensitive"], head=head),
        "after": _shown(entry, wanted, item["sensitive"], head=head),
    }
