# SPDX-License-Identifier: Apache-2.0
"""Every command line that any process of this machine is started with, those of the lab's hosts included.

Sampling /proc misses what lives for milliseconds. So the kernel tells: its audit subsystem reports the arguments of
each execve, however short the process lives, and counts the reports that it had to leave out. The environment is not
part of a report; it is read from /proc when that comes, and may be gone by then.

Constants and layouts: include/uapi/linux/audit.h.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

NETLINK_AUDIT = 9
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
AUDIT_GET, AUDIT_SET, AUDIT_ADD_RULE, AUDIT_DEL_RULE = 1000, 1001, 1011, 1012
AUDIT_SYSCALL, AUDIT_EXECVE, AUDIT_END_OF_EVENT = 1300, 1309, 1320
FILTER_EXIT, ALWAYS = 4, 2
FIELD_ARCH, EQUAL = 11, 0x40000000
SET_ENABLED, SET_PID, SET_BACKLOG_LIMIT, SET_BACKLOG_WAIT = 0x01, 0x04, 0x10, 0x20
# Machine: its number in records, execve, execveat.
MACHINES = {"x86_64": (0xC000003E, 59, 322), "aarch64": (0xC00000B7, 221, 281)}
SETTINGS = SET_ENABLED | SET_BACKLOG_LIMIT | SET_BACKLOG_WAIT
NLM_REQUEST_ACK = 0x05
NLMSG_ERROR = 2
HEADER = struct.Struct("=IHHII")
STATUS = struct.Struct("=11I")
BACKLOG = 65536  # records that the kernel keeps while we are busy; beyond that a process waits for us
WAIT = 60 * 100  # jiffies that it waits, rather than being left out
SERIAL = re.compile(rb"audit\([\d.]+:(\d+)\)")
STARTED = re.compile(rb" success=yes .* pid=(\d+) ")
# a0="plain" or a0=hexadecimal; what is long comes in parts, a0[0]=…, over several records.
ARGUMENT = re.compile(rb" a\d+(?:\[(\d+)\])?=(?:\"([^\"]*)\"|([0-9A-F]+))")


class Executions:
    """As a context, collects while its body runs: `seen` are the distinct command lines and environments."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.started = 0  # processes that were started
        self.unread = 0  # of these, whose environment was gone before it could be read
        self.lost = 0  # reports that the kernel could not keep
        self._known: set[bytes] = set()
        self._events: dict[bytes, bytearray] = {}  # those of which more is to come, by their serial number
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Executions:
        machine = platform.machine()
        assert machine in MACHINES, f"no system call numbers are known for {machine}: add them to MACHINES"
        self._rule = _rule(*MACHINES[machine])
        self._control, self._records = _Requests(), _Requests()
        self._before = self._control.status()
        reader = self._before[3]
        assert reader == 0, f"process {reader} reads the kernel's audit records: stop it for this test"
        # Who names himself the reader gets the records on the socket that he says so by.
        self._records.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._records.set(SET_PID, pid=os.getpid())
        self._thread.start()
        with suppress(FileNotFoundError):  # a run that was killed has left it
            self._control.ask(AUDIT_DEL_RULE, self._rule)
        self._control.set(SETTINGS, enabled=1, backlog=BACKLOG, wait=WAIT)
        self._control.ask(AUDIT_ADD_RULE, self._rule)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._control.ask(AUDIT_DEL_RULE, self._rule)
        enabled, backlog, wait = self._before[1], self._before[5], self._before[9]
        self._control.set(SETTINGS, enabled=enabled, backlog=backlog, wait=wait)
        # What is on its way is still read; after that nothing more comes.
        self._ended.set()
        self._thread.join()
        self.lost = self._control.status()[6] - self._before[6]
        self._control.set(SET_PID, pid=0)
        self._control.socket.close()
        self._records.socket.close()

    def _read(self) -> None:
        self._records.socket.settimeout(0.5)
        while True:
            try:
                self._take(self._records.socket.recv(65536))
            except TimeoutError:
                if self._ended.is_set():
                    return

    def _take(self, data: bytes) -> None:
        _length, kind, _flags, _sequence, _sender = HEADER.unpack_from(data)
        text = data[HEADER.size :]
        serial = SERIAL.search(text)
        if serial is None:
            return
        event = serial[1]
        if kind == AUDIT_SYSCALL:
            started = STARTED.search(text)
            if started is not None:  # and not one of the folders of PATH in which the program is not
                self.started += 1
                self._take_environment(int(started[1]))
        elif kind == AUDIT_EXECVE:
            command = self._events.setdefault(event, bytearray())
            for part, plain, coded in ARGUMENT.findall(text):
                command += b"" if part.strip(b"0") else b"\0"
                command += bytes.fromhex(coded.decode()) if coded else plain
        elif kind == AUDIT_END_OF_EVENT and event in self._events:
            self._keep(bytes(self._events.pop(event)))

    def _take_environment(self, pid: int) -> None:
        try:
            self._keep(Path(f"/proc/{pid}/environ").read_bytes())
        except OSError:
            self.unread += 1

    def _keep(self, data: bytes) -> None:
        if data not in self._known:
            self._known.add(data)
            self.seen += data + b"\n"


class _Requests:
    """A socket by which the kernel's audit is asked and set."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT)
        self.socket.settimeout(30)
        self._number = 0

    def status(self) -> tuple[int, ...]:
        """struct audit_status: its fields by their place."""
        data = self.ask(AUDIT_GET, b"", answer=AUDIT_GET)
        return STATUS.unpack_from(data.ljust(STATUS.size, b"\0"))

    def set(self, mask: int, *, enabled: int = 0, pid: int = 0, backlog: int = 0, wait: int = 0) -> None:
        self.ask(AUDIT_SET, STATUS.pack(mask, enabled, 0, pid, 0, backlog, 0, 0, 0, wait, 0))

    def ask(self, kind: int, payload: bytes, answer: int | None = None) -> bytes:
        """Send a request; what `answer` brings, and an error of the kernel's as OSError."""
        self._number += 1
        header = HEADER.pack(HEADER.size + len(payload), kind, NLM_REQUEST_ACK, self._number, 0)
        self.socket.send(header + payload)
        found, is_acknowledged = b"", False
        while not is_acknowledged or (answer is not None and not found):
            data = self.socket.recv(65536)
            _length, got, _flags, sequence, _sender = HEADER.unpack_from(data)
            if got == NLMSG_ERROR and sequence == self._number:
                (code,) = struct.unpack_from("=i", data, HEADER.size)
                if code:
                    raise OSError(-code, f"audit request {kind}: {os.strerror(-code)}")
                is_acknowledged = True
            elif got == answer:
                found = data[HEADER.size :]
        return found


def _rule(machine: int, *calls: int) -> bytes:
    """struct audit_rule_data: report each of these system calls as it returns."""
    mask = [0] * 64
    for call in calls:
        mask[call // 32] |= 1 << call % 32
    first = [FILTER_EXIT, ALWAYS, 1]
    fields, values, operators = ([one] + [0] * 63 for one in (FIELD_ARCH, machine, EQUAL))
    return struct.pack("=260I", *first, *mask, *fields, *values, *operators, 0)
