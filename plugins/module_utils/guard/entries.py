# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Files, links and directories: what they are, and how they become that again.

An entry tells a path's type, mode, owner, extended attributes, and the digest of its content or its target. The content
itself lies beside the entries, in a file named by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from . import durable

ABSENT: dict[str, Any] = {"type": "absent"}


# Where SELinux is not at work nobody reads its labels, and only a privilege over the whole machine sets them.
LABEL, LABELS = "security.selinux", Path("/sys/fs/selinux/enforce")
CAPABILITIES = "security.capability"


def _attributes(path: Path) -> dict[str, str]:
    """Extended attributes, access lists and labels among them."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {
            name: base64.b64encode(os.getxattr(path, name, follow_symlinks=False)).decode("ascii")
            for name in sorted(names)
        }
    except OSError:
        return {}  # the file system has none


def _counting(attributes: dict[str, str]) -> dict[str, str]:
    """Attributes without the labels that nobody reads."""
    return {name: value for name, value in attributes.items() if name != LABEL or LABELS.exists()}


def not_ours(entry: dict[str, Any]) -> list[str]:
    """Attributes of an entry that could not be put back: they take that privilege always."""
    return [
        name
        for name in entry.get("attributes", {})
        if name.startswith(("trusted.", "security.")) and name not in (LABEL, CAPABILITIES)
    ]


def look(path: Path) -> tuple[dict[str, Any], bytes | None]:
    """What a path is, with the content of a file."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return dict(ABSENT), None
    entry: dict[str, Any] = {"uid": status.st_uid, "gid": status.st_gid}
    if stat.S_ISLNK(status.st_mode):
        return {**entry, "type": "link", "target": str(path.readlink())}, None
    entry["mode"] = stat.S_IMODE(status.st_mode)
    entry["attributes"] = _attributes(path)
    if stat.S_ISDIR(status.st_mode):
        return {**entry, "type": "directory"}, None
    if not stat.S_ISREG(status.st_mode):
        return {**entry, "type": "special"}, None
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {**entry, "type": "file", "sha256": digest, "time": status.st_mtime_ns}, content


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two entries tell the same. The time of the last change is put back, but does not count."""

    ignored = {"time", "if_empty"}
    if "attributes" not in one or "attributes" not in other:
        ignored.add("attributes")  # a file that was never there has none that could be asked for

    def essence(entry: dict[str, Any]) -> dict[str, Any]:
        essential = {key: value for key, value in entry.items() if key not in ignored}
        if "attributes" in essential:
            essential["attributes"] = _counting(essential["attributes"])
        return essential

    return essence(one) == essence(other)


def is_as(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a path is what its entry says."""
    found = look(path)[0]
    if entry.get("if_empty") and found["type"] == "directory":
        # Made for a file of ours; somebody else's file in it keeps it.
        return any(path.iterdir())
    return same(found, entry)


def missing_above(path: Path, root: Path) -> list[Path]:
    """The directories above a path that do not exist."""
    found = []
    for parent in path.parents:
        if parent == root or parent.exists():
            break
        found.append(parent)
    return found


def walk(directory: Path) -> list[Path]:
    """All that is below a directory; a directory comes before what is in it."""
    found: list[Path] = []
    for path in sorted(directory.iterdir()):
        found.append(path)
        if path.is_dir() and not path.is_symlink():
            found += walk(path)
    return found


def _give(path: Path, entry: dict[str, Any]) -> None:
    """Give a file or directory its owner, mode, extended attributes and time, and bring them to the disk."""
    os.chown(path, entry["uid"], entry["gid"], follow_symlinks=False)
    path.chmod(entry["mode"])
    found = _counting(_attributes(path))
    wanted = _counting(entry.get("attributes", found))
    for name in found.keys() - wanted.keys():
        os.removexattr(path, name, follow_symlinks=False)
    for name, value in wanted.items():
        if found.get(name) != value:
            os.setxattr(path, name, base64.b64decode(value), follow_symlinks=False)
    if "time" in entry:
        os.utime(path, ns=(entry["time"], entry["time"]), follow_symlinks=False)
    durable.sync_file(path)


def _clear(path: Path) -> None:
    """Remove whatever stands where something else has to be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    durable.watch("removed", path)
    durable.sync_file(path.parent)


def put_back(path: Path, entry: dict[str, Any], contents: Path) -> bool:
    """Make a path what its entry says; whether there was anything to do. `contents` holds the files by digest."""
    if is_as(path, entry):
        return False
    found = look(path)[0]
    kind = entry["type"]
    if kind == "absent":
        if entry.get("if_empty"):
            durable.remove(path)
        else:
            _clear(path)
        return True
    if found["type"] == "directory" and kind != "directory":
        _clear(path)
    durable.make_directory(path.parent)
    if kind == "directory":
        if found["type"] not in ("directory", "absent"):
            _clear(path)
        durable.make_directory(path, mode=entry["mode"])
        _give(path, entry)
    elif kind == "link":
        durable.link(path, entry["target"], (entry["uid"], entry["gid"]))
    elif kind == "file":
        if found.get("sha256") != entry["sha256"]:
            content = (contents / entry["sha256"]).read_bytes()
            durable.write(path, content, mode=entry["mode"], owner=(entry["uid"], entry["gid"]))
        _give(path, entry)
    return True
