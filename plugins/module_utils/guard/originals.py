# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What was there before the first change of a subject: kept from that change on, and put back by a revert."""

from __future__ import annotations

from typing import Any

from . import durable, snapshot
from .change import Change
from .errors import GuardError
from .host import Host
from .store import Store


def _own(change: Change, was: dict[str, Any]) -> dict[str, Any]:
    """What of a snapshot belongs to the subject: what it names, not what else lies in the kept directories."""
    paths = change.paths
    own = {
        name: entry
        for name, entry in was["entries"].items()
        if name in paths or (entry.get("if_empty") and any(path.startswith(name + "/") for path in paths))
    }
    return {
        "entries": own,
        "directories": [],
        "links": None,
        # The ways in, which are kept with every change, are nothing of this subject's.
        "units": {name: state for name, state in was["units"].items() if name in change.kept_units},
        "unit_links": {
            name: entry for name, entry in (was["links"] or {}).items() if entry["type"] == "link"
        },
        # Where those links are: a directory may be gone with its last link when it is needed again.
        "link_directories": {
            name: entry for name, entry in (was["links"] or {}).items() if entry["type"] == "directory"
        },
        "sysctls": was["sysctls"],
        "tables": was["tables"],
        "network": was["network"],
        "reloads": was["reloads"],
    }


def _merged(first: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Originals with what a later change of the subject touches for the first time."""
    merged = dict(first)
    # Links of units that this subject has not touched so far are as they were all the time.
    new_units = set(later["units"]) - set(first["units"])
    for key in ("entries", "units", "sysctls", "tables"):
        merged[key] = {**later[key], **first[key]}
    merged["unit_links"] = {
        **{name: entry for name, entry in later["unit_links"].items() if _concerns(name, entry, new_units)},
        **first["unit_links"],
    }
    merged["link_directories"] = {**later["link_directories"], **first["link_directories"]}
    merged["network"] = first["network"] or later["network"]
    merged["reloads"] = first["reloads"] + [argv for argv in later["reloads"] if argv not in first["reloads"]]
    return merged


def _concerns(name: str, entry: dict[str, Any], names: set[str]) -> bool:
    """Whether a link enables, masks or renames one of these units."""
    target = entry.get("target", "").rpartition("/")[2]
    return bool({name.rpartition("/")[2], target, f"{target}.service"} & names)


def prepare(store: Store, change: Change, was: dict[str, Any], contents: dict[str, bytes]) -> None:
    """Lay the subject's originals beside a change, for finish() to take over when it is confirmed."""
    if change.revert:
        return
    first, own = store.original_snapshot(change.subject), _own(change, was)
    known = {}
    own["unit_links"] = {
        name: entry for name, entry in own["unit_links"].items() if _concerns(name, entry, set(own["units"]))
    }
    if first is not None:
        merged = _merged(first, own)
        if merged == first:
            return
        own = merged
        for path in (store.originals(change.subject) / "contents").iterdir():
            known[path.name] = path.read_bytes()
    digests = {entry["sha256"] for entry in own["entries"].values() if entry["type"] == "file"}
    directory = store.new / "originals"
    directory.mkdir(mode=0o700)
    both = {**contents, **known}
    snapshot.write(directory, own, {digest: both[digest] for digest in digests})


def as_snapshot(host: Host, first: dict[str, Any]) -> dict[str, Any]:
    """Originals in the form of a snapshot of the host as it is now: other units' links stay as they are."""
    links = {name: entry for name, entry in snapshot.unit_links(host).items() if entry["type"] == "link"}
    foreign = {
        name: entry for name, entry in links.items() if not _concerns(name, entry, set(first["units"]))
    }
    own = first["unit_links"]
    known = {**first["link_directories"], **snapshot.unit_links(host)}
    directories = {
        name: entry
        for name, entry in known.items()
        if entry["type"] == "directory" and any(path.startswith(name + "/") for path in {**foreign, **own})
    }
    return {**first, "links": {**foreign, **own, **directories} if first["units"] else None}


def differences(host: Host, store: Store, subject: str) -> list[str] | None:
    """Where the host is not as before the first change of a subject; None if it was never changed."""
    first = store.original_snapshot(subject)
    return None if first is None else snapshot.differences(host, as_snapshot(host, first))


def change_of(store: Store, subject: str, **more: Any) -> Change:
    """The change that puts a subject's originals back."""
    first = store.original_snapshot(subject)
    if first is None:
        raise GuardError(
            f"there are no originals of {subject}; it has never been changed, or has been reverted"
        )
    keep = {
        "units": list(first["units"]),
        "sysctls": list(first["sysctls"]),
        "tables": list(first["tables"]),
        "network": first["network"] is not None,
    }
    return Change(subject=subject, keep=keep, revert=True, **more)


def take(host: Host, store: Store, change: Change) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The snapshot of a revert: all that the originals name, as it is now. Lays the originals beside it."""
    first = store.original_snapshot(change.subject)
    if first is None:
        raise GuardError(f"there are no originals of {change.subject}")
    wanted = as_snapshot(host, first)
    was, contents = snapshot.take(host, change, more=list(first["entries"]))
    was["reloads"] = first["reloads"]
    directory = store.new / "originals"
    directory.mkdir(mode=0o700)
    kept = store.originals(change.subject) / "contents"
    snapshot.write(directory, wanted, {path.name: path.read_bytes() for path in kept.iterdir()})
    return was, contents


def forget(store: Store, subject: str) -> None:
    """Drop originals that the host agrees with already."""
    there = store.originals(subject)
    old = there.with_name(f".{there.name}.old")
    durable.remove_tree(old)
    durable.rename(there, old)
    durable.remove_tree(old)


def text_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
