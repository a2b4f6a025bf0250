# SPDX-License-Identifier: Apache-2.0
"""A host below a temporary directory: real files, and a systemd that does what little is asked of it here."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).resolve().parents[3] / ".collections"
if str(COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS))

from ansible_collections.wattfleet.energy.plugins.module_utils.guard import hands
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Done, Host
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.timer import SERVICE

WANTS = "/etc/systemd/system/multi-user.target.wants"


class FakeHost(Host):
    """Its systemd keeps its state in files, so that it outlives a process that is killed, as the real one does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fake = root.with_name(root.name + ".systemd")
        self.fake.mkdir(exist_ok=True)
        self.said: list[str] = []
        self.ran: list[list[str]] = []
        self.refuse: dict[str, Done] = {}  # first words of a command -> its answer
        self.late = 0.0
        # Units that do not end before they are killed; systemd has a job for them.
        self.hangs: set[str] = set()
        # Hands that systemd cannot start.
        self.lame: set[str] = set()
        self._hands: list[threading.Thread] = []

    def say(self, text: str, *, bad: bool = False) -> None:
        self.said.append(text)

    def now(self) -> float:
        return time.monotonic() + self.late

    def sync(self) -> None:
        """What the machine's other programs have written is no matter of these tests."""

    def boot_id(self) -> str:
        return self._state().get("boot", "first")

    def reboot(self) -> None:
        """Units are started by their links; the timer is gone."""
        state = self._state()
        state |= {"boot": state.get("boot", "first") + "+", "timers": {}}
        for name in state.get("active", {}):
            state["active"][name] = self.enabled(name) == "enabled"
        self._keep(state)

    def enabled(self, name: str) -> str:
        own = self.at(f"/etc/systemd/system/{name}")
        if own.is_symlink():
            return "masked"
        return "enabled" if self.at(f"{WANTS}/{name}").is_symlink() else "disabled"

    def _state(self) -> dict[str, Any]:
        path = self.fake / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _keep(self, state: dict[str, Any]) -> None:
        (self.fake / "state.json").write_text(json.dumps(state))

    def timer_of(self, service: str) -> float | None:
        return self._state().get("timers", {}).get(service.replace(".service", ".timer"))

    @property
    def timer(self) -> float | None:
        return self.timer_of(SERVICE)

    def run(self, argv: list[str], *, timeout: float = 20, stdin: str | None = None) -> Done:
        self.ran.append(argv)
        for words, done in self.refuse.items():
            if " ".join(argv).startswith(words):
                return done
        code, out = self._answer(argv)
        return Done(argv, code, out, "")

    def _answer(self, argv: list[str]) -> tuple[int, str]:
        state = self._state()
        active, timers = state.setdefault("active", {}), state.setdefault("timers", {})
        program, verb, *names = [word for word in argv if word not in ("--", "--no-block", "--quiet")]
        if program == "systemd-run":
            moments = [float(word.partition("=")[2][:-1]) for word in argv if word.startswith("--on-boot")]
            unit = next(word.partition("=")[2] for word in argv if word.startswith("--unit="))
            timers[unit.replace(".service", ".timer")] = min(moments)
        elif program == "systemd-detect-virt":
            return 1, ""
        elif program != "systemctl":
            return 0, ""
        elif verb == "show" and names[-1].endswith(".timer"):
            fires = timers.get(names[-1])
            return 0, "ActiveState=inactive\n" if fires is None else (
                f"ActiveState=active\nSubState=waiting\nNextElapseUSecMonotonic={fires}s\n"
            )
        elif verb == "list-unit-files":
            found = [name for name in names if not name.startswith("--")]
            return 0, "".join(f"{name} {self.enabled(name)} enabled\n" for name in found)
        elif verb == "show":
            return 0, "\n".join(self._shown(name, active) for name in names[1:])
        elif verb == "restart":
            for name, unit in hands.UNITS.items():
                if unit in names and name not in self.lame:
                    self._hands.append(threading.Thread(target=self._serve, args=(name,), daemon=True))
                    self._hands[-1].start()
        elif verb == "kill":
            self.hangs -= set(names)
        elif verb in ("start", "stop"):
            for name in names:
                if name.endswith(".timer"):
                    timers.pop(name, None)
                elif not (verb == "start" and self.enabled(name) == "masked"):
                    active[name] = verb == "start" and not name.startswith("energy-guard")
        elif verb in ("enable", "disable", "mask", "unmask"):
            for name in names:
                link = self.at(f"/etc/systemd/system/{name}" if "mask" in verb else f"{WANTS}/{name}")
                link.unlink(missing_ok=True)
                if verb in ("enable", "mask"):
                    link.parent.mkdir(exist_ok=True)
                    link.symlink_to("/dev/null" if verb == "mask" else f"/lib/systemd/system/{name}")
        self._keep(state)
        return 0, ""

    def _serve(self, name: str) -> None:
        with suppress(SystemExit):  # a test has it die
            hands.serve(self, name)

    def rest(self) -> None:
        """Wait until all hands have seen that nobody asks any more."""
        while self._hands:
            self._hands.pop().join()

    def _shown(self, name: str, active: dict[str, bool]) -> str:
        enabled = self.enabled(name)
        load = "masked" if enabled == "masked" else "loaded"
        runs = "active" if active.get(name) else "inactive"
        if name in self.hangs:
            return f"LoadState={load}\nActiveState=deactivating\nUnitFileState={enabled}\nJob=7\n"
        return f"LoadState={load}\nActiveState={runs}\nUnitFileState={enabled}\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, where there is one: each of these tests waits for the disk thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="guard.", dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def host(place: Path) -> FakeHost:
    """A host with a few files, links and units."""
    root = place / "root"
    for name in (
        "etc/keep/below",
        "etc/ssh",
        "etc/systemd/system/multi-user.target.wants",
        "proc/sys/net/ipv4",
        "run",
        "var/lib",
    ):
        (root / name).mkdir(parents=True)
    (root / "etc/ssh/sshd_config").write_text("Port 22\n")
    (root / "etc/ssh/sshd_config").chmod(0o600)
    (root / "etc/issue").write_text("old\n")
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    (root / "etc/keep/a").write_bytes(b"\x00\xff binary")
    (root / "etc/keep/below/b").write_text("b\n")
    (root / "proc/sys/net/ipv4/ip_forward").write_text("0\n")
    (root / f"{WANTS[1:]}/avahi.service").symlink_to("/lib/systemd/system/avahi.service")
    fake = FakeHost(root)
    fake._keep({"active": {"avahi.service": True, "ssh.service": True}})
    return fake


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every path with its type, mode, owner and content, but for what the kernel makes and the guard keeps."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith(("proc", "run/energy-guard", "var/lib/energy-guard")):
            continue
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found
