#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes all of a host that hardening may touch to a file: picture.py FILE, or compares it: picture.py FILE --compare

/etc whole (types, modes, owners, contents), states of units, packages, the host's own settings of the kernel, the
tables of the packet filter, and what sshd makes of its files.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

# The guard's own units stay: they are no part of what is hardened. The others are rewritten by programs as they run.
EXCEPTIONS = ("energy-guard", "/etc/resolv.conf")
# Counters and the like, and what the kernel computes by itself.
VOLATILE = (
    "net.netfilter.nf_conntrack_count",
    "net.ipv4.route.",
    "net.ipv4.tcp_fastopen_key",
    "net.ipv6.conf.eth",
)
# Of these what the role sets all the same.
SET = (".accept_redirects", ".accept_source_route")


def entry(path: Path) -> list[object]:
    status = path.lstat()
    kind = oct(status.st_mode)
    if path.is_symlink():
        return [kind, str(path.readlink())]
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return [kind, status.st_uid, status.st_gid, digest]


def output(*argv: str) -> list[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout.splitlines()


def settings() -> dict[str, str]:
    found = {}
    for line in output("sysctl", "--all"):
        name, _equals, value = line.partition(" = ")
        if name.startswith("net.") and (name.endswith(SET) or not name.startswith(VOLATILE)):
            found[name] = value
    return found


def units() -> dict[str, str]:
    """How units start, and which are up; what comes and goes by itself is left out."""
    states = {}
    for line in output("systemctl", "list-unit-files", "--no-legend", "--no-pager"):
        name, state = line.split()[:2]
        if not name.endswith(".scope"):
            states[name] = state
    for line in output(
        "systemctl",
        "list-units",
        "--no-legend",
        "--no-pager",
        "--plain",
        "--type=service,socket,timer",
        "--state=active",
    ):
        name = line.split()[0]
        if not name.startswith(
            (
                "user@",
                "user-runtime-dir@",
                "systemd-tmpfiles-clean",
                "apt-",
                "NetworkManager-dispatcher",
                "systemd-hostnamed",
            )
        ):
            states[f"{name} runs"] = "yes"
    return states


def picture() -> dict[str, object]:
    return {
        "files": {str(path): entry(path) for path in sorted(Path("/etc").rglob("*"))},
        "units": units(),
        "packages": output("dpkg-query", "--show", "--showformat=${Package} ${Version} ${Status}\n"),
        "settings": settings(),
        "tables": output("nft", "list", "tables"),
        "sshd": output("sshd", "-T"),
    }


def differences(before: object, after: object, where: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted(before.keys() | after.keys())
            for line in differences(before.get(key), after.get(key), f"{where} {key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and where in ("packages", "tables", "sshd"):
        return [f"{where}: {line} is gone" for line in before if line not in after] + [
            f"{where}: {line} was not there" for line in after if line not in before
        ]
    return [] if before == after else [f"{where}: {before} before, {after} now"]


def main() -> None:
    file = Path(sys.argv[1])
    now = json.loads(json.dumps(picture()))
    if "--compare" not in sys.argv:
        file.write_text(json.dumps(now))
        return
    before = json.loads(file.read_text())
    lines = [line for part in now for line in differences(before[part], now[part], part)]
    lines = [line for line in lines if not any(exception in line for exception in EXCEPTIONS)]
    print("\n".join(lines))
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
