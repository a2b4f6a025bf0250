# SPDX-License-Identifier: Apache-2.0
"""Sets a clock that is behind to the last known time: energy-clock-floor.py FILE...

A gateway without a battery for its clock starts in 1970, or where its last image was built. Until the hub's time is
there, which on a site that is cut off may take weeks, readings would carry that time and every certificate would not be
valid yet. The newest time stamp among FILEs, and of this program itself, is a time that has certainly passed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path


def newest(files: Iterable[Path]) -> tuple[float, Path] | None:
    """The newest modification time of those files that are there, with its file."""
    found = []
    for file in files:
        try:
            found.append((file.stat().st_mtime, file))
        except OSError as error:
            # missing as long as the role that writes it has not run; anything else is worth a line
            if not isinstance(error, FileNotFoundError):
                print(f"{file}: {error.strerror}", file=sys.stderr)
    return max(found, default=None)


def shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")  # noqa: UP017 (UTC is 3.11)


def main(arguments: list[str], own: Path) -> int:
    known = newest([*map(Path, arguments), own])
    now = time.time()
    if known is None or now >= known[0]:
        print(f"The clock reads {shown(now)} and is not behind the last known time.")
        return 0
    moment, file = known
    try:
        time.clock_settime(time.CLOCK_REALTIME, moment)
    except OSError as error:
        print(f"The clock reads {shown(now)}, and cannot be set: {error.strerror}", file=sys.stderr)
        return 1
    print(f"The clock read {shown(now)}; set to {shown(moment)}, the time of {file}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(sys.argv[0])))
