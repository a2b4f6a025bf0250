# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Whether sshd follows the file of the role hardening, by what sshd itself makes of all its files.

It does not where sshd_config has no Include, names a keyword before it, or has a Match for who comes. host_state tells
it of a host as it is. The role puts this file on the host as well, as a program that ends its guarded change: hence
nothing but the standard library.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FILE = "/etc/ssh/sshd_config.d/10-energy.conf"
_KEYWORD = re.compile(r"^[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t=]", re.MULTILINE)
_TOLD = 3  # differences in words; without the Include there are dozens
_SHOWN = 60  # characters of a value; lists of algorithms are longer

RunCommand = Callable[[list[str]], tuple[int, str, str]]


def overruled(session: str | None, run: RunCommand, file: str = FILE) -> str | None:
    """What of the file is not in force, in one line; None if all of it is, or if there is no such file.

    `session` describes a connection in the words of `sshd -C`, and is asked about besides what holds for everybody.
    """
    path, program = Path(file), shutil.which("sshd", path="/usr/local/sbin:/usr/sbin:/sbin")
    try:
        if program is None or not path.is_file():
            return None
        keywords = list(dict.fromkeys(_KEYWORD.findall(path.read_text(encoding="utf-8"))))
        # By itself it shows what it is to mean: sshd completes what it takes away from lists, and has words of its own.
        wanted = _settings(run, [program, "-T", "-f", file])
        for match in [[], ["-C", session]] if session else [[]]:
            found = _settings(run, [program, "-T", *match])
            lines = [
                f"{keyword} is {_shown(found, keyword)}, wanted is {_shown(wanted, keyword)}"
                for keyword in keywords
                if found.get(keyword.lower()) != wanted.get(keyword.lower())
            ]
            if lines:
                more = f"; {len(lines) - _TOLD} more differ" if len(lines) > _TOLD else ""
                whom = f" for {session}" if match else ""
                return (
                    f"sshd does not follow {file}{whom}: {'; '.join(lines[:_TOLD])}{more}. See that "
                    "/etc/ssh/sshd_config includes it before anything else, and that no other file says otherwise"
                )
    except (OSError, _RefusalError) as error:
        return str(error)
    return None


class _RefusalError(Exception):
    """sshd does not take its files."""


def _settings(run: RunCommand, command: list[str]) -> dict[str, list[str]]:
    """All that sshd says of its settings: the values of each, by its name in small letters."""
    code, out, err = run(command)
    if code != 0:
        raise _RefusalError(f"{' '.join(command)} fails: {' '.join((err or out).split())}")
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        keyword, _space, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def _shown(settings: dict[str, list[str]], keyword: str) -> str:
    text = " ".join(settings.get(keyword.lower(), [])) or "not set"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def main() -> None:
    """As a program: one argument, the session, which may be empty."""
    line = overruled(sys.argv[1] or None, _run)
    if line:
        sys.exit(line)


if __name__ == "__main__":
    main()
