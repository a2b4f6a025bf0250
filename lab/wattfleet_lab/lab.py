# SPDX-License-Identifier: Apache-2.0
"""What can be done with a lab as a whole: bring it up, add and remove hosts, ask about it, take it down."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from wattfleet_lab import (
    cgroups,
    client,
    firmware,
    fleet,
    image,
    kernel,
    network,
    option,
    paths,
    registry,
    ssh,
    sysctls,
)
from wattfleet_lab import host as hosts
from wattfleet_lab.addresses import FIRST_ADDED, Plan, check_host_name
from wattfleet_lab.commands import run
from wattfleet_lab.errors import LabError
from wattfleet_lab.host import Host
from wattfleet_lab.leftovers import lab_processes, leftovers
from wattfleet_lab.metering import describe_meters
from wattfleet_lab.processes import Process
from wattfleet_lab.progress import Progress
from wattfleet_lab.state import State

HUB = "hub"
SPACE_FOR_HOST = 60  # MiB: what a host writes until it is provisioned
METERS_TIMEOUT = 60.0  # s until the simulator has opened all ports
METERS_TRIES = 3
BOOT_TIMEOUT = 120.0  # s for one host, the queue before it not counted


@dataclass(frozen=True)
class Wanted:
    """A host that somebody asks for."""

    name: str
    kind: str
    address: str | None = None  # None: the lab picks one
    energy: list[str] | None = None
    site_file: str | None = None
    model: str = firmware.MODEL
    disk: bool = False


class Lab:
    """A lab by name; it need not exist."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        self.name = check_host_name(name)
        self.state = State.of(name)
        self.progress = progress or Progress()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One change of a lab at a time, over all processes of the machine."""
        lock = paths.MACHINE / f"{self.name}.lock"
        with registry.locked(lock):
            try:
                yield
            finally:
                if not self.state.exists:
                    lock.unlink(missing_ok=True)

    def plan(self) -> Plan:
        """LabError when the lab does not exist."""
        index = self.state.index
        if index is None:
            raise LabError(f"lab {self.name!r} is not up: start it with `wattfleet lab up`")
        return Plan(index)

    def up(self, sites: list[fleet.Site], hub: bool, fleet_file: Path, disks: bool = False) -> None:
        """Boots the gateways and the hub where they are not up yet; all meters are served afterwards. `disks`: new
        ones get a disk of their own."""
        wanted = [Wanted(HUB, HUB, disk=disks)] if hub else []
        with self._locked():
            plan = self._prepare()
            for site in sites:
                address = plan.shift(site.address)
                file = str(site.file)
                wanted.append(
                    Wanted(site.name, "gateway", address, site.energy_addresses, file, site.model, disks)
                )
            present = self._ensure_hosts(plan, wanted)
            gateways = [host for host in self.state.hosts() if host.kind == "gateway"]
            fleet.write_inventory(self.state, plan, fleet_file, gateways)
            self._start_meters(plan, gateways)
        self._boot([host.name for host in present])
        self._wait_for_meters({host.name for host in gateways})

    def add_host(self, wanted: Wanted) -> tuple[Host, bool]:
        """Adds one host and boots it. Returns it, and whether anything had to be done."""
        with self._locked():
            plan = self._prepare()
            before = {host.name for host in self.state.hosts()}
            (host,) = self._ensure_hosts(plan, [wanted])
        booted = self._boot([host.name])
        return host, booted or host.name not in before

    def _prepare(self) -> Plan:
        """All that the lab's hosts share."""
        kernel.require_root()
        kernel.require_containers()
        image.ensure(self.progress)
        is_new = self.state.index is None
        with registry.changing() as machine:
            index = machine.claim(self.name, self.state.path, self.state.index)
            plan = Plan(index)
            self.state.create(plan)
            sysctls.raise_all(machine.restore)
            machine.netns_folder = machine.netns_folder or not network.netns_folder_exists()
        try:
            if client.supervisor(self.state) is None:
                self._clear_up_after_a_killed_supervisor(plan)
            network.ensure_wan(plan)
            client.ensure_supervisor(self.state, plan)
        except LabError:
            # A lab that never began leaves nothing to be cleared up by hand.
            if is_new:
                self._take_down(plan, now=True)
            raise
        return plan

    def _clear_up_after_a_killed_supervisor(self, plan: Plan) -> None:
        abandoned = lab_processes(plan, self.state)
        if abandoned:
            self.progress.say(
                "==> the lab's supervisor is gone: cutting the power of the hosts it has left running"
            )
            self._kill(abandoned)
        for group in cgroups.lab_folders(plan.cgroup):
            cgroups.remove(group)

    def _ensure_hosts(self, plan: Plan, wanted: list[Wanted]) -> list[Host]:
        """Files, networks and SSH entries for the hosts that are wanted; the others stay as they are."""
        present = {host.name: host for host in self.state.hosts()}
        new = [want for want in wanted if want.name not in present]
        if new:
            kernel.require_space(self.state.path, SPACE_FOR_HOST * len(new), "WATTFLEET_STATE")
            self.progress.start(f"making {len(new)} host{'s' if len(new) > 1 else ''}")
            tree = image.ensure(self.progress)
            key = ssh.ensure_key(self.state)
        for want in new:
            host = self._host(plan, want, tree, present)
            folder = self.state.folder(host.name)
            if folder.path.exists():  # left by an `up` that was interrupted
                folder.remove()
            ssh.add_known_host(self.state, host, hosts.create(folder, host, plan, key))
            present[host.name] = host
        for want in wanted:
            host = present[want.name]
            if want.kind == "gateway" and want.energy != host.energy:  # the site file has changed
                host.energy = want.energy
                self.state.folder(host.name).save(host)
        for host in present.values():
            if host.energy is not None:
                network.ensure_energy(plan, host.name, host.energy_addresses)
        self._write_ssh_config()
        self.progress.done()
        return [present[want.name] for want in wanted]

    def _host(self, plan: Plan, want: Wanted, tree: Path, present: dict[str, Host]) -> Host:
        slots = {host.slot for host in present.values()}
        slot = next(number for number in range(len(slots) + 1) if number not in slots)
        taken = {host.address: host.name for host in present.values()}
        address = want.address
        if address is None and want.name == HUB:
            address = str(plan.hub)
        if address is None:
            first = int(plan.network[FIRST_ADDED])
            address = next(
                str(IPv4Address(first + i)) for i in range(4000) if str(IPv4Address(first + i)) not in taken
            )
        if IPv4Address(address) not in plan.network or IPv4Address(address) == plan.controller:
            raise LabError(
                f"address {address} of host {want.name} is not for hosts of lab {self.name}: {plan.network}"
            )
        if address in taken:
            raise LabError(f"address {address} of host {want.name} is {taken[address]}'s already")
        return Host(
            want.name, want.kind, slot, address, str(tree), want.energy, want.site_file, want.model, want.disk
        )

    def _write_ssh_config(self) -> None:
        also = paths.state_root() / "ssh_config" if self.name == option.DEFAULT else None
        ssh.write_config(self.state, self.state.hosts(), also)

    def _start_meters(self, plan: Plan, gateways: list[Host]) -> None:
        if not gateways:
            return
        text = json.dumps(describe_meters(plan, gateways, self.state.epoch), indent=1) + "\n"
        news = not self.state.meters.exists() or self.state.meters.read_text() != text
        if news:
            self.state.meters.write_text(text)  # the simulator reads it only when it is told to
        if news or client.request(self.state, "status")["meters"]["state"] == "none":
            client.request(self.state, "meters")

    def _wait_for_meters(self, sites: set[str]) -> None:
        deadline = time.monotonic() + METERS_TIMEOUT
        while missing := sites - client.simulated_sites(self.state):
            meters = client.request(self.state, "status")["meters"]
            if time.monotonic() > deadline or meters["restarts"] > METERS_TRIES:
                lines = self.state.meters_log.read_text(errors="replace").strip().splitlines()
                raise LabError(
                    f"the hosts are up, but nobody serves the meters of {', '.join(sorted(missing))}; "
                    f"{self.state.meters_log} ends with: {lines[-1] if lines else 'nothing'}"
                )
            time.sleep(0.1)

    def _boot(self, names: list[str]) -> bool:
        """Boots those that are off and waits until all answer SSH. Whether any had to be booted."""
        states = client.request(self.state, "status")["hosts"]
        off = [name for name in names if states.get(name, {}).get("state") not in ("running", "booting")]
        for name in off:
            client.request(self.state, "start", host=name)
        if off:
            self.progress.start(f"booting {len(off)} host{'s' if len(off) > 1 else ''}")
        self.wait_for(names)
        self.progress.done()
        return bool(off)

    def wait_for(self, names: list[str]) -> None:
        """Until these hosts run and answer SSH. LabError when one fails, or nothing moves for too long."""
        waiting = set(names)
        moved = time.monotonic()
        while waiting:
            states = client.request(self.state, "status")["hosts"]
            for name in sorted(waiting):
                now = states[name]
                if now["state"] in ("failed", "off"):
                    raise LabError(f"host {name} is {now['state']}: {now['error'] or 'it was shut down'}")
                if now["state"] == "running" and ssh.answers(self.state.host(name).address):
                    waiting.remove(name)
                    moved = time.monotonic()
            self.progress.tick(f"{len(names) - len(waiting)}/{len(names)}")
            if time.monotonic() - moved > BOOT_TIMEOUT:
                missing = "SSH answer" if states[min(waiting)]["state"] == "running" else "end of the boot"
                raise LabError(
                    f"{', '.join(sorted(waiting))}: no {missing} for {BOOT_TIMEOUT:.0f} s; look into "
                    f"{self.state.folder(min(waiting)).console} or use `wattfleet lab exec`"
                )
            if waiting:
                time.sleep(0.1)

    def start(self, name: str) -> None:
        self._boot([self.state.host(name).name])

    def stop(self, name: str) -> None:
        client.request(self.state, "stop", host=self.state.host(name).name)

    def cut(self, name: str) -> None:
        """Power cut: nothing in the host gets a chance to react, and a disk of its own loses what was not synced. It
        stays off."""
        client.request(self.state, "cut", host=self.state.host(name).name)

    def reboot(self, name: str, wait: bool = True) -> None:
        host = self.state.host(name)
        client.request(self.state, "reboot", host=host.name)
        if wait:
            self.progress.start(f"rebooting {host.name}")
            self.wait_for([host.name])
            self.progress.done()

    def leader(self, name: str) -> int:
        """Pid, on the machine, of a running host's PID 1."""
        host = self.state.host(name)
        now = client.request(self.state, "status")["hosts"].get(host.name, {"state": "off", "leader": None})
        if not now["leader"]:
            raise LabError(f"host {host.name} is {now['state']}")
        return int(now["leader"])

    def remove_host(self, name: str) -> bool:
        """Whether there was such a host. With the last host the lab goes too."""
        kernel.require_root()
        with self._locked():
            if not self.state.exists or name not in {host.name for host in self.state.hosts()}:
                return False
            plan, host = self.plan(), self.state.host(name)
            if len(self.state.hosts()) == 1:
                self._take_down(plan, now=True)
            else:
                if client.supervisor(self.state) is None:
                    self._clear_up_after_a_killed_supervisor(plan)
                else:
                    client.request(self.state, "cut", host=host.name)
                    client.request(self.state, "forget", host=host.name)
                network.remove_energy(plan, host.name)
                self.state.folder(host.name).remove()
                ssh.forget_known_host(self.state, host)
                self._write_ssh_config()
        return True

    def status(self) -> dict[str, Any]:
        """What is there and how it does; `hosts` is empty and `up` false when the lab is not there.

        ``{"lab", "index", "up", "state", "ssh_config", "inventory", "supervisor", "meters": {…},
        "hosts": [{"name", "kind", "address", "state", "boots", "uptime", "boot_seconds", "leader",
        "error"}]}``

        Times are in seconds; `leader` is the pid, on the machine, of the host's PID 1.
        """
        answer: dict[str, Any] = {"pid": None, "hosts": {}, "meters": {"state": "none"}}
        alive = client.supervisor(self.state) is not None
        if alive:
            answer = client.request(self.state, "status")
        described = []
        off = {
            "state": "off",
            "boots": 0,
            "uptime": None,
            "boot_seconds": None,
            "leader": None,
            "error": None,
        }
        for host in self.state.hosts():
            known = {"name": host.name, "kind": host.kind, "address": host.address}
            described.append({**known, **off, **answer["hosts"].get(host.name, {})})
        inventory = self.state.inventory / "fleet.sites.yml"
        return {
            "lab": self.name,
            "index": self.state.index,
            "up": alive,
            "state": str(self.state.path),
            "ssh_config": str(self.state.ssh_config),
            "inventory": str(inventory) if inventory.exists() else None,
            "supervisor": answer["pid"],
            "meters": answer["meters"],
            "hosts": described,
        }

    def down(self, now: bool = False) -> bool:
        """Ends the lab and removes all of it. Whether there was any. LabError names what would not go."""
        kernel.require_root()
        with self._locked():
            index = self.state.index
            if index is None:
                found = registry.read().labs.get(self.name)
                if found is None or found[1] != self.state.path:
                    return False
                index = found[0]
            self._take_down(Plan(index), now)
        return True

    def _take_down(self, plan: Plan, now: bool) -> None:
        self._stop_everything(plan, now)
        self._remove_everything(plan)
        left = leftovers(self.name, plan)
        if left:
            raise LabError(f"lab {self.name!r} is down but for: {'; '.join(left)}")

    def _stop_everything(self, plan: Plan, now: bool) -> None:
        boss = client.supervisor(self.state)
        if boss is not None:
            self.progress.start("shutting the hosts down")
            try:
                client.request(self.state, "shutdown", timeout=90, now=now)
            except LabError as error:
                self.progress.say(f"{error}; ending it by force")
            deadline = time.monotonic() + 5
            while boss.alive and time.monotonic() < deadline:
                time.sleep(0.02)
        self._kill(lab_processes(plan, self.state))
        self.progress.done()

    @staticmethod
    def _kill(processes: list[Process]) -> None:
        for process in processes:
            process.kill()

    def _remove_everything(self, plan: Plan) -> None:
        self.progress.start("removing networks and files")
        for name in network.namespaces(plan):
            run("ip", "netns", "delete", name)
        network.remove_wan(plan)
        network.remove_links(plan)
        for group in cgroups.lab_folders(plan.cgroup):
            cgroups.remove(group)
        for point in kernel.mounts_below(self.state.path):
            run("umount", str(point))
        propagate = Path("/run/systemd/nspawn/propagate")
        for folder in propagate.glob(f"{plan.prefix}*"):
            folder.rmdir()
        if self.state.path.exists():
            shutil.rmtree(self.state.path)
        if self.name == option.DEFAULT:
            (paths.state_root() / "ssh_config").unlink(missing_ok=True)
        with registry.changing() as machine:
            machine.labs.pop(self.name, None)
            if not machine.labs:
                network.remove_blackhole()
                sysctls.put_back(machine.restore)
                if machine.netns_folder and network.remove_netns_folder():
                    machine.netns_folder = False
        self.progress.done()
