# SPDX-License-Identifier: Apache-2.0
"""What processes cost: CPU seconds and memory, read from the kernel."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far, ended ones too, to the nanosecond.

    /proc/PID/stat has the same in ticks of 10 ms. The clock's number is made as clock_getcpuclockid(3) makes it.
    """
    return time.clock_gettime(~pid << 3 | 2)


def waited(pid: int) -> float:
    """Seconds that the threads of a process which run now were ready and had no processor, others had them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text(encoding="ascii").split()[1]) for one in tasks) / 1e9


def memory(pid: int) -> tuple[int, int]:
    """RSS and PSS of a process in bytes. PSS divides pages that several processes share among them."""
    found = {"Rss": 0, "Pss": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, value = line.split()[:2]
        if name.rstrip(":") in found:
            found[name.rstrip(":")] = int(value) * 1024
    return found["Rss"], found["Pss"]


def fetched(pid: int) -> int:
    """Bytes that a process has had the kernel fetch from disks so far."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def total_cpu(pids: Iterable[int]) -> float:
    """CPU seconds of several processes."""
    return sum(cpu_seconds(pid) for pid in pids)


def total_memory(pids: Iterable[int]) -> tuple[int, int]:
    """RSS and PSS of several processes, added up."""
    each = [memory(pid) for pid in pids]
    return sum(rss for rss, _ in each), sum(pss for _, pss in each)


def machine() -> str:
    """The class of this machine: cores, and the name that its processor gives itself."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else "unknown"


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    holding = [(len(where), kind) for where, kind in mounts if path.resolve().is_relative_to(where)]
    return max(holding)[1]
