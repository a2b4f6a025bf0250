# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Tries a ruleset with real packets before it is loaded, in two scratch network namespaces joined by cables.

One namespace stands for the host: it gets the ruleset, and cables with the names of the host's interfaces. The
other is all that is outside, and has the addresses of those who knock. The host's own network takes no part,
and all of it is gone when the process that made it ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import subprocess
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h; os.unshare came with Python 3.12
_PATIENCE = 2.0  # s; a handshake takes microseconds here, but the host may be busy
_SILENCE = 0.3  # s without a handshake are a no


class Knock(NamedTuple):
    """One TCP connection to try, and whether it should come through.

    `out` is the interface by which the host sends to the other end, `back` the one where the host's own address
    is; they differ where routing is asymmetric.
    """

    source: str
    destination: str
    port: int
    incoming: bool
    expected: bool
    out: str
    back: str

    @property
    def here(self) -> str:
        return self.destination if self.incoming else self.source

    @property
    def there(self) -> str:
        return self.source if self.incoming else self.destination


class NoTrialError(Exception):
    """The host lacks what a trial needs, so that nothing is known of the ruleset."""


def try_ruleset(script: str, knocks: Sequence[Knock]) -> list[bool]:
    """Which of the connections come through when the ruleset in the file `script` is in force."""
    reader, writer = os.pipe()
    child = os.fork()  # whoever enters a namespace stays in it, and this process is needed outside
    if child == 0:
        os.close(reader)
        try:
            told: object = _Trial().run(script, knocks)
        except NoTrialError as error:
            told = str(error)
        except BaseException:  # noqa: BLE001 the parent process tells it
            told = traceback.format_exc()
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = json.loads(stream.read() or b'"the trial ended without an answer"')
    os.waitpid(child, 0)
    if isinstance(answer, str):
        raise NoTrialError(answer)
    return [bool(one) for one in answer]


class _Trial:
    """Both namespaces, and a process that goes back and forth between them."""

    def run(self, script: str, knocks: Sequence[Knock]) -> list[bool]:
        _unshare()
        self._outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        # `ip` wants a process to tell it where the far ends of the cables belong.
        keeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            _unshare()
            self._host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._wire(knocks, keeper.pid)
            _run(["nft", "--file", script])
            return [self._comes_through(knock) for knock in knocks]
        finally:
            keeper.communicate()

    def _wire(self, knocks: Sequence[Knock], outside: int) -> None:
        names = sorted({name for knock in knocks for name in (knock.out, knock.back)})
        far = {name: f"far{number}" for number, name in enumerate(names)}
        _ip(f"link add {name} type veth peer name {far[name]} netns {outside}" for name in names)
        _ip(f"link set {name} up" for name in ["lo", *names])
        _allow_asymmetry()
        _ip({f"address replace {_alone(knock.here)} dev {knock.back}" for knock in knocks})
        _ip({f"route replace {knock.there} dev {knock.out}" for knock in knocks})
        _enter(self._outside)
        _ip(f"link set {name} up" for name in ["lo", *far.values()])
        _allow_asymmetry()
        # Whoever it is has to answer for his address on whichever cable he is looked for.
        _ip(
            {
                f"address replace {_alone(knock.there)} dev {cable}"
                for knock in knocks
                for cable in far.values()
            }
        )
        _ip({f"route replace {knock.here} dev {far[knock.back]}" for knock in knocks})
        _enter(self._host)

    def _comes_through(self, knock: Knock) -> bool:
        """Whether the kernel has made the whole handshake."""
        listening, calling = self._host, self._outside
        if not knock.incoming:
            listening, calling = calling, listening
        family = socket.AF_INET6 if ":" in knock.source else socket.AF_INET
        _enter(listening)
        with socket.create_server((knock.destination, knock.port), family=family) as listener:
            _enter(calling)
            with socket.socket(family) as caller:
                caller.bind((knock.source, 0))
                caller.setblocking(False)
                caller.connect_ex((knock.destination, knock.port))
                wait = _PATIENCE if knock.expected else _SILENCE
                ready, _writable, _broken = select.select([listener], [], [], wait)
                return bool(ready)


def _alone(address: str) -> str:
    """The address as the only one of its network; nobody else can have it here, so nobody is asked."""
    return f"{address}/128 nodad" if ":" in address else f"{address}/32"


def _allow_asymmetry() -> None:
    """The kernel's own look at return paths is no part of the ruleset."""
    for setting in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
        setting.write_text("0", encoding="ascii")


def _ip(lines: Iterable[str]) -> None:
    _run(["ip", "-batch", "-"], "\n".join(sorted(lines)) + "\n")


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoTrialError(f"{' '.join(command)}: {done.stderr.strip()}")


def _unshare() -> None:
    _call("unshare", _NEW_NETWORK)


def _enter(namespace: int) -> None:
    _call("setns", namespace, _NEW_NETWORK)


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise NoTrialError(f"{name}: {os.strerror(ctypes.get_errno())}")
