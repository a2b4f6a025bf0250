# SPDX-License-Identifier: Apache-2.0
"""The one long-lived process of a lab: it owns the hosts' containers and the meter simulator.

``python -m wattfleet_lab.supervisor STATE_FOLDER LAB INDEX`` is started by `up`; others talk to it over
``control.sock``: one JSON object a line each way, ``{"op": …, "host": …}`` answered by ``{"ok": true, …}`` or
``{"ok": false, "error": "one line"}``.

============  =================================================================================
``status``    everything it knows
``start``     boots a host that is off; answers at once
``stop``      shuts a host down; answers when it is off
``cut``       takes a host's power away: SIGKILL for all of it
``reboot``    asks a host to reboot; answers at once
``meters``    starts the meter simulator, or has it read its description again
``shutdown``  stops all hosts (``"now": true``: cuts them) and ends
============  =================================================================================
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from wattfleet_lab import cgroups, network
from wattfleet_lab.addresses import Plan
from wattfleet_lab.container import REBOOTED, nspawn_command
from wattfleet_lab.errors import LabError
from wattfleet_lab.files import write_json
from wattfleet_lab.host import Host
from wattfleet_lab.processes import Process, children
from wattfleet_lab.state import State

BOOTS_AT_ONCE = 4  # more would only share the machine's processors
BOOT_PATIENCE = 60.0  # s until the next host may boot although this one has not finished
STOP_TIMEOUT = 20.0  # s for a clean shutdown, then the power goes
POWEROFF = signal.SIGRTMIN + 4  # systemd(1): starts poweroff.target
REBOOT = signal.SIGRTMIN + 5  # systemd(1): starts reboot.target
READY = "READY=1"  # sd_notify(3)
METERS_BACKOFF_MAX = 30.0  # s

log = logging.getLogger("wattfleet_lab.supervisor")


class RunningHost:
    """A host as the supervisor sees it: off, booting, running or failed."""

    def __init__(self, lab: Supervisor, name: str) -> None:
        self.lab = lab
        self.name = name
        self.folder = lab.state.folder(name)
        self.state = "off"
        self.boots = 0
        self.booted_at: float | None = None  # time.time() of the host's own word that it is up
        self.boot_seconds: float | None = None
        self.last_error: str | None = None
        self.leader: Process | None = None  # the container's PID 1
        self.container: Process | None = None  # systemd-nspawn
        self.power = False  # whether it is to come back when it reboots
        self.task: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "boots": self.boots,
            "uptime": None if self.booted_at is None else round(time.time() - self.booted_at, 1),
            "boot_seconds": self.boot_seconds,
            "leader": self.leader.pid if self.leader else None,
            "error": self.last_error,
        }

    def start(self) -> None:
        if self.task is not None and not self.task.done():
            return
        self.power, self.last_error, self.state = True, None, "booting"
        self.task = asyncio.create_task(self._powered())

    async def _powered(self) -> None:
        """From power on to power off, over any number of reboots."""
        try:
            while True:
                status = await self._boot()
                if status != REBOOTED or not self.power:
                    break
                self.state = "booting"
                log.info("%s reboots", self.name)
            if self.power and status:
                self.state, self.last_error = (
                    "failed",
                    f"the container ended with status {status}: {self._last_words()}",
                )
                log.error("%s: %s", self.name, self.last_error)
            else:
                self.state = "off"
                log.info("%s is off", self.name)
        except (LabError, OSError) as error:
            self.state, self.last_error = "failed", str(error)
            log.exception("%s failed", self.name)
        finally:
            self.power = False

    def _last_words(self) -> str:
        lines = self.folder.console.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    async def _boot(self) -> int:
        """One boot until the container ends. Returns nspawn's exit status (negative: killed by a signal)."""
        # An abstract address: it needs no file and no short path.
        address = f"wattfleet/{os.getpid()}/{self.name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notifications:
            notifications.bind("\0" + address)
            async with self.lab.boots:
                if not self.power:
                    return 0
                host = self.folder.load()
                self.folder.mount(host)
                groups = self.lab.prepare_groups(self.name)
                process = await self._spawn(host, groups, address)
                ended = asyncio.create_task(process.wait())
                booted = asyncio.Event()
                listener = asyncio.create_task(self._listen(host, notifications, booted))
                ready = asyncio.create_task(booted.wait())
                await asyncio.wait(
                    {ended, listener, ready}, timeout=BOOT_PATIENCE, return_when=asyncio.FIRST_COMPLETED
                )
            await asyncio.wait({ended, listener}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            trouble = listener.exception() if listener.done() else None
            if trouble is not None and not ended.done() and self.power:
                self.kill()  # without its cables it is of no use
            else:
                trouble = None  # a host that loses its power while it boots has lost its cables as well
            status = await ended
            if listener.cancel():
                await asyncio.wait({listener})
                self._hear_the_rest(notifications)
        self.leader = self.container = None
        self.booted_at = None
        self.folder.running.unlink(missing_ok=True)
        for group in groups:
            cgroups.remove(group)
        if trouble is not None:
            raise trouble
        return status

    async def _spawn(self, host: Host, groups: list[Path], address: str) -> asyncio.subprocess.Process:
        path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        with self.folder.console.open("ab") as console:
            process = await asyncio.create_subprocess_exec(
                *nspawn_command(self.lab.plan, host, self.folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=console,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": path, "NOTIFY_SOCKET": "@" + address},
                start_new_session=True,
                preexec_fn=lambda: cgroups.enter(groups),
            )
        self.container = Process.of(process.pid)
        self._record()
        return process

    async def _listen(self, host: Host, notifications: socket.socket, booted: asyncio.Event) -> None:
        """Take what the host tells for as long as it runs; ends only by an exception.

        A socket that nobody reads holds ten messages. With the eleventh nspawn waits, with nspawn the host's PID 1, and
        the whole host stands still.
        """
        loop = asyncio.get_running_loop()
        since = time.monotonic()
        while True:
            message = (await loop.sock_recv(notifications, 4096)).decode(errors="replace").splitlines()
            for line in message:
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self.leader = Process.of(int(line.partition("=")[2]))
                    self._record()
                    await asyncio.to_thread(
                        network.attach, self.lab.plan, host.name, host.slot, host.energy is not None
                    )
            if READY in message and not booted.is_set():
                booted.set()
                self.boots += 1
                self.state, self.booted_at = "running", time.time()
                self.boot_seconds = round(time.monotonic() - since, 2)
                log.info("%s is up after %.2f s (boot %d)", self.name, self.boot_seconds, self.boots)

    def _hear_the_rest(self, notifications: socket.socket) -> None:
        """A host that was up for an instant may have ended before it was heard: the boot still counts."""
        while True:
            try:
                message = notifications.recv(4096)
            except BlockingIOError:
                return
            if READY in message.decode(errors="replace").splitlines():
                self.boots += 1

    def _record(self) -> None:
        """For a `down` that comes after the supervisor has been killed."""
        pids = {
            "container": self.container.as_json() if self.container else None,
            "leader": self.leader.as_json() if self.leader else None,
        }
        write_json(self.folder.running, pids)

    def kill(self) -> None:
        """Everything in the container dies with its PID 1; nspawn notices and ends."""
        self.power = False
        if self.leader is None and self.container is not None:
            for pid in children(self.container.pid):
                self.leader = Process.of(pid)
        if self.leader is not None and self.leader.send(signal.SIGKILL):
            return
        if self.container is not None:
            self.container.send(signal.SIGKILL)

    async def cut(self) -> None:
        if self.task is None or self.task.done():
            return
        self.power = False
        host = self.folder.load()
        self.kill()
        self.folder.lose_power(host)
        await self.task
        await asyncio.to_thread(self.folder.unmount_disk, host)

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        if self.task is None or self.task.done():
            return
        self.power = False
        # A host that has not booted yet takes no orders.
        if self.state == "running" and self.leader is not None:
            self.leader.send(POWEROFF)
            await asyncio.wait({self.task}, timeout=timeout)
        if not self.task.done():
            log.warning("%s does not shut down: its power is cut", self.name)
            await self.cut()

    def reboot(self) -> None:
        if self.state != "running" or self.leader is None:
            raise LabError(f"host {self.name} is {self.state}: it cannot reboot; use start")
        self.state = "booting"
        self.leader.send(REBOOT)


class Meters:
    """The meter simulator, started again when it ends by itself."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self.last_end: str | None = None
        self.task: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        alive = self.process is not None and self.process.returncode is None
        if self.task is None:
            return {"state": "none"}
        return {
            "state": "running" if alive else "failed",
            "pid": self.process.pid if alive and self.process else None,
            "restarts": self.restarts,
            "last_end": self.last_end,
        }

    async def start_or_reload(self) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self._keep_running())
            return
        # Its control socket tells that it listens to signals; one that starts just now would die of SIGHUP.
        while self.process is not None and self.process.returncode is None:
            if self.state.meters_socket.exists():
                self.process.send_signal(signal.SIGHUP)
                return
            await asyncio.sleep(0.05)

    async def _keep_running(self) -> None:
        delay = 1.0
        while True:
            since = time.monotonic()
            self.state.meters_socket.unlink(missing_ok=True)
            with self.state.meters_log.open("ab") as output:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "wattfleet_lab.meters",
                    "--description", str(self.state.meters),
                    "--control", str(self.state.meters_socket),
                    "--log", str(self.state.meters_log),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            status = await self.process.wait()
            self.last_end = (
                f"status {status} after {time.monotonic() - since:.0f} s, see {self.state.meters_log}"
            )
            log.error("the meter simulator ended: %s", self.last_end)
            delay = (
                1.0 if time.monotonic() - since > METERS_BACKOFF_MAX else min(delay * 2, METERS_BACKOFF_MAX)
            )
            await asyncio.sleep(delay)
            self.restarts += 1

    async def stop(self) -> None:
        if self.task is None:
            return
        self.task.cancel()
        await asyncio.wait({self.task})
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 5)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        self.task = None


class Supervisor:
    """All hosts of a lab, and the control socket."""

    def __init__(self, state: State, plan: Plan) -> None:
        self.state = state
        self.plan = plan
        self.hosts: dict[str, RunningHost] = {}
        self.meters = Meters(state)
        self.boots = asyncio.Semaphore(BOOTS_AT_ONCE)
        self.groups = cgroups.own_folders(plan.cgroup)
        self.ended = asyncio.Event()

    def prepare_groups(self, host: str) -> list[Path]:
        folders = [group / host for group in self.groups]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    def host(self, name: str) -> RunningHost:
        if not (self.state.folder(name).path / "host.json").exists():
            raise LabError(f"no host {name!r} in lab {self.state.name!r}")
        if name not in self.hosts:
            self.hosts[name] = RunningHost(self, name)
        return self.hosts[name]

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request.get("op")
        if operation == "status":
            return {
                "pid": os.getpid(),
                "hosts": {name: host.describe() for name, host in self.hosts.items()},
                "meters": self.meters.describe(),
            }
        if operation == "meters":
            await self.meters.start_or_reload()
        elif operation == "shutdown":
            await self.shutdown(now=bool(request.get("now")))
        elif operation in ("start", "stop", "cut", "reboot", "forget"):
            await self._on_host(operation, self.host(str(request.get("host"))))
        else:
            raise LabError(f"unknown request {operation!r}")
        return {}

    async def _on_host(self, operation: str, host: RunningHost) -> None:
        if operation == "start":
            host.start()
        elif operation == "stop":
            await host.stop()
        elif operation == "cut":
            await host.cut()
        elif operation == "reboot":
            host.reboot()
        else:
            await host.stop()
            del self.hosts[host.name]

    async def shutdown(self, now: bool) -> None:
        log.info("shutting down%s", " at once" if now else "")
        await self.meters.stop()
        running = list(self.hosts.values())
        await asyncio.gather(*(host.cut() if now else host.stop() for host in running))
        for group in self.groups:
            cgroups.remove(group)
        self.ended.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    reply = {"ok": True, **await self.answer(json.loads(line))}
                except (LabError, ValueError) as error:
                    reply = {"ok": False, "error": str(error)}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            log.info("a client went away in the middle of an answer")
        finally:
            writer.close()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: asyncio.ensure_future(self.shutdown(now=True)))
        self.state.socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, str(self.state.socket))
        self.state.socket.chmod(0o600)
        me = Process.of(os.getpid())
        assert me is not None
        write_json(self.state.supervisor, me.as_json())
        log.info("supervisor of lab %s (index %d) is up, pid %d", self.state.name, self.plan.index, me.pid)
        await self.ended.wait()
        server.close()
        self.state.socket.unlink(missing_ok=True)
        self.state.supervisor.unlink(missing_ok=True)
        log.info("supervisor ends")


def main(arguments: list[str]) -> int:
    folder, name, index = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(Supervisor(State(name, Path(folder)), Plan(int(index))).run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
