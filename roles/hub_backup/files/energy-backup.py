# SPDX-License-Identifier: Apache-2.0
"""Backs the hub up: its databases, and the files that nobody could make again.

    energy-backup.py database full|diff|incr STANZA …   as postgres
    energy-backup.py files --keep N PATH …              as root
    energy-backup.py restore-files                      as root: what is missing on this host comes back

pgBackRest keeps both in its repositories, under the same passphrase.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import io
import itertools
import json
import os
import pwd
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

CONFIG = Path("/etc/pgbackrest")
LOCK = Path("/var/spool/pgbackrest/energy-backup.lock")
# Where they are in a repository, beside `archive` and `backup`.
FOLDER = "energy-hub"


class BackupError(Exception):
    """What could not be done, in one line."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Back the hub up.")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("database")
    one.add_argument("type", choices=("full", "diff", "incr"))
    one.add_argument("stanzas", nargs="+")
    one.set_defaults(run=lambda options: databases(options.type, options.stanzas))
    one = commands.add_parser("files")
    one.add_argument("--keep", type=int, required=True)
    one.add_argument("paths", nargs="+", type=Path)
    one.set_defaults(run=lambda options: files(options.paths, options.keep))
    one = commands.add_parser("restore-files")
    one.set_defaults(run=lambda _: restore_files())
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (BackupError, OSError) as error:
        print(f"energy-backup: ERR {error}", file=sys.stderr)
        return 1
    return 0


def databases(kind: str, stanzas: list[str]) -> None:
    """Each into every repository; one that fails keeps nobody from the others. Raises BackupError."""
    failed = []
    # The first backup of all may take hours, and pgBackRest would refuse another one meanwhile.
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stanza, number in itertools.product(stanzas, repositories()):
            chosen = [f"--stanza={stanza}", f"--repo={number}", f"--type={kind}", "--log-level-console=info"]
            if subprocess.run(["pgbackrest", *chosen, "backup"], check=False).returncode:
                failed.append(f"{stanza} at repository {number}")
    if failed:
        raise BackupError(f"no backup of {', '.join(failed)}: pgBackRest says above why")


def files(paths: list[Path], keep: int) -> None:
    """Into every repository. Raises BackupError, OSError."""
    content = pack(paths)
    name = time.strftime("%Y%m%dT%H%M%SZ.tar.gz", time.gmtime())
    failed = []
    for number in repositories():
        try:
            pgbackrest(number, "repo-put", f"{FOLDER}/{name}", content=content)
            for old in kept(number)[:-keep]:
                pgbackrest(number, "repo-rm", f"{FOLDER}/{old}")
        except BackupError as error:
            failed.append(str(error))
    if failed:
        raise BackupError("; ".join(failed))
    print(f"{len(content)} bytes as {name}")


def pack(paths: Iterable[Path]) -> bytes:
    """What there is of `paths`, with owners by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in paths:
            if path.exists():
                archive.add(path)
    return buffer.getvalue()


def restore_files(root: Path = Path("/")) -> None:
    """The newest of the first repository that has one. What is on this host stays as it is. Raises BackupError,
    OSError."""
    for number in repositories():
        names = kept(number)
        if names:
            content = pgbackrest(number, "repo-get", f"{FOLDER}/{names[-1]}", key=passphrase(number))
            unpack(content, names[-1], root)
            return
    print("no files in the repository")


def unpack(content: bytes, name: str, root: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                target = root / member.name
                if ".." in target.parts or not member.isreg():
                    continue
                source = archive.extractfile(member)
                assert source is not None, "a regular file has content"
                _restore(target, source.read(), member, name)
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(f"{FOLDER}/{name} cannot be read: {error}") from None


def _restore(target: Path, content: bytes, member: tarfile.TarInfo, name: str) -> None:
    if target.exists():
        # A log has grown meanwhile. Of a key there can be only one that is right.
        if target.suffix == ".key" and target.read_bytes() != content:
            print(f"kept: {target} is another one than in {name}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        # On a new hub the user of the service is not there yet; the role that makes it takes the file over.
        with contextlib.suppress(KeyError):
            owner = pwd.getpwnam(member.uname)
            os.fchown(handle, owner.pw_uid, owner.pw_gid)
        os.fchmod(handle, member.mode & 0o777)
        stream.write(content)
        stream.flush()
        os.fsync(handle)
    print(f"restored: {target}")


def kept(number: int) -> list[str]:
    """The archives of files in a repository, oldest first."""
    found = json.loads(pgbackrest(number, "repo-ls", "--output=json", FOLDER) or b"{}")
    return sorted(name for name in found if name.endswith(".tar.gz"))


def pgbackrest(number: int, *arguments: str, content: bytes = b"", key: str = "") -> bytes:
    """Raises BackupError. The key goes by the environment, where other users do not see it."""
    command = ["pgbackrest", f"--repo={number}", *arguments]
    environment = os.environ | ({"PGBACKREST_CIPHER_PASS": key} if key else {})
    done = subprocess.run(command, input=content, capture_output=True, check=False, env=environment)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace")
        raise BackupError(f"pgbackrest {arguments[0]} at repository {number}: {' '.join(said.split())}")
    return done.stdout


def settings() -> dict[str, str]:
    """What pgBackRest's files say for all stanzas."""
    found: dict[str, str] = {}
    for path in (CONFIG / "pgbackrest.conf", *sorted((CONFIG / "conf.d").glob("*.conf"))):
        parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
        parser.read_string(path.read_text())
        if parser.has_section("global"):
            found |= parser["global"]
    return found


def repositories() -> list[int]:
    given = settings()
    return list(
        itertools.takewhile(
            lambda number: any(name.startswith(f"repo{number}-") for name in given), itertools.count(1)
        )
    )


def passphrase(number: int) -> str:
    return settings().get(f"repo{number}-cipher-pass", "")


if __name__ == "__main__":
    sys.exit(main())
