# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What files are like: type, mode, owner, digest, and the text of small public ones. Never a private key's content."""

from __future__ import annotations

import grp
import hashlib
import pathlib
import pwd
import ssl
import stat
import typing as t

_HASHED_MAX = 64 * 1024 * 1024
_TEXT_MAX = 256 * 1024
_PATTERN = frozenset("*?[")
_PRIVATE = b"PRIVATE KEY-----"


def describe(paths: list[str]) -> dict[str, dict[str, t.Any]]:
    """Each of `paths`, and each file that one of them matches as a pattern; a link itself and not what it leads to."""
    return {path: _describe_one(path) for path in expand(paths)}


def read_texts(paths: list[str]) -> dict[str, str | None]:
    """The contents of `paths`; None where there is no file, or none that may be shown."""
    return {path: _read_one(path) for path in expand(paths)}


def expand(paths: list[str]) -> list[str]:
    """The paths (all absolute) that `paths` name, each once, sorted. A pattern that matches nothing names nothing."""
    found: set[str] = set()
    for path in paths:
        found.update(map(str, pathlib.Path("/").glob(path[1:])) if _PATTERN & set(path) else [path])
    return sorted(found)


def key_pairs(paths: list[str]) -> dict[str, bool]:
    """Whether each of the certificates that `paths` name belongs to the key beside it. OpenSSL compares the two, and
    nothing of the key is kept or told."""
    found = {}
    for path in expand(paths):
        key = pathlib.Path(path).with_suffix(".key")
        if path.endswith(".crt") and key.exists():
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key, password=_no_password)
                found[path] = True
            except (OSError, ValueError):
                found[path] = False
    return found


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to open it")


def _describe_one(path: str) -> dict[str, t.Any]:
    told: dict[str, t.Any] = dict.fromkeys(("mode", "owner", "group", "size", "sha256", "target"))
    try:
        found = pathlib.Path(path).lstat()
    except OSError:
        # A part of the path is missing, or is no directory: either way there is no such file.
        return {"type": "absent", **told}
    told["mode"] = f"{stat.S_IMODE(found.st_mode):04o}"
    told["owner"] = _owner(found.st_uid)
    told["group"] = _group(found.st_gid)
    told["size"] = found.st_size
    if stat.S_ISLNK(found.st_mode):
        told["target"] = str(pathlib.Path(path).readlink())
        return {"type": "link", **told}
    if stat.S_ISDIR(found.st_mode):
        return {"type": "directory", **told}
    if not stat.S_ISREG(found.st_mode):
        return {"type": "other", **told}
    if not path.endswith(".key") and found.st_size <= _HASHED_MAX:
        told["sha256"] = _digest(path)
    return {"type": "file", **told}


def _digest(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with pathlib.Path(path).open("rb", buffering=0) as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def _read_one(path: str) -> str | None:
    if path.endswith(".key"):
        return None
    try:
        if not stat.S_ISREG(pathlib.Path(path).stat().st_mode):
            return None
        with pathlib.Path(path).open("rb") as stream:
            data = stream.read(_TEXT_MAX + 1)
    except OSError:
        return None
    # Whatever a file is called: a key that somebody has put into it stays here.
    if len(data) > _TEXT_MAX or _PRIVATE in data:
        return None
    return data.decode("utf-8", "replace")


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
