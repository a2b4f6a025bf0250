# SPDX-License-Identifier: Apache-2.0
"""One host of a lab: what it is, its overlay of the base image, and the identity it has from the start."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from wattfleet_lab import firmware, kernel
from wattfleet_lab.addresses import Plan
from wattfleet_lab.commands import run
from wattfleet_lab.disk import Disk
from wattfleet_lab.errors import LabError
from wattfleet_lab.files import write_json

ADMIN = 1000  # uid and gid of `admin` in the image

_CONNECTION = """\
[connection]
id=wan
uuid={uuid}
type=ethernet
interface-name=eth0

[ipv4]
method=manual
address1={address}/{length},{gateway}

[ipv6]
method=disabled
"""


@dataclass
class Host:
    """What `hosts/<name>/host.json` holds.

    `kind` is gateway, hub or plain; `slot` numbers the host's links; `image` is the tree it is an overlay of;
    `energy` holds the addresses of the devices in its energy network, or None when it has no such network;
    `site_file` is the gateway's file in the fleet's inventory, `model` what its firmware says that it is.
    `disk`: what it writes lies on a file system of its own, which a power cut takes what was not synced from.
    """

    name: str
    kind: str
    slot: int
    address: str
    image: str
    energy: list[str] | None = None
    site_file: str | None = None
    model: str = firmware.MODEL
    disk: bool = False
    machine_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def energy_addresses(self) -> list[IPv4Address]:
        return [IPv4Address(address) for address in self.energy or []]


class Folder:
    """The files of one host: ``host.json``, ``run.json`` while it runs, ``console.log``, and the overlay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root"
        self.disk = Disk(path / "disk.img", path / "disk")
        self.console = path / "console.log"
        self.running = path / "run.json"

    def load(self) -> Host:
        return Host(**json.loads((self.path / "host.json").read_text()))

    def save(self, host: Host) -> None:
        write_json(self.path / "host.json", asdict(host))

    def mount(self, host: Host) -> None:
        """Puts the overlay together, unless it is. What the host has changed stays in `upper`."""
        if kernel.is_mounted(self.root):
            return
        if not Path(host.image).is_dir():
            raise LabError(
                f"the base image {host.image} of host {host.name} is gone: take the lab down and up again"
            )
        changes = self.path
        if host.disk:
            self.disk.mount()
            changes = self.disk.folder
        upper, work = changes / "upper", changes / "work"
        for folder in (upper, work, self.root):
            folder.mkdir(exist_ok=True)
        options = f"lowerdir={host.image},upperdir={upper},workdir={work}"
        try:
            run("mount", "-t", "overlay", f"wattfleet-{host.name}", "-o", options, str(self.root))
        except LabError as error:
            raise LabError(
                f"{error}: overlays need a folder on ext4, xfs, btrfs or tmpfs; set WATTFLEET_STATE to one"
            ) from None

    def lose_power(self, host: Host) -> None:
        """What was written and not synced is gone, where the host has a disk of its own."""
        if host.disk:
            self.disk.lose_power()

    def unmount_disk(self, host: Host) -> None:
        """After the power was lost and everything has ended: the next boot finds what the disk has."""
        if host.disk:
            self._unmount()
            self.disk.let_go()

    def _unmount(self) -> None:
        for point in kernel.mounts_below(self.path):
            run("umount", str(point))

    def remove(self) -> None:
        self._unmount()
        shutil.rmtree(self.path, ignore_errors=False)


def create(folder: Folder, host: Host, plan: Plan, authorized_key: str) -> str:
    """Makes a host's files. Returns its public SSH host key (``ssh-ed25519 AAAA…``)."""
    folder.path.mkdir(parents=True)
    try:
        folder.mount(host)
        key = _give_identity(folder.root, host, plan, authorized_key)
        if host.kind != "hub":
            firmware.give(folder.root, host.model)
    except BaseException:
        folder.remove()
        raise
    # Last: a folder without host.json is a host that was never finished.
    folder.save(host)
    return key


def _give_identity(root: Path, host: Host, plan: Plan, authorized_key: str) -> str:
    (root / "etc/hostname").write_text(host.name + "\n")
    (root / "etc/hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.1.1\t{host.name}\n")
    (root / "etc/machine-id").write_text(host.machine_id + "\n")
    connection = root / "etc/NetworkManager/system-connections/wan.nmconnection"
    connection.write_text(
        _CONNECTION.format(
            uuid=uuid.uuid5(uuid.NAMESPACE_DNS, f"wan.{host.machine_id}"),
            address=host.address,
            length=plan.network.prefixlen,
            gateway=plan.controller,
        )
    )
    connection.chmod(0o600)
    ssh = root / "home/admin/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "authorized_keys").write_text(authorized_key + "\n")
    for path in (ssh, ssh / "authorized_keys"):
        os.chown(path, ADMIN, ADMIN)
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f", str(host_key))
    return " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
