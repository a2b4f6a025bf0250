# SPDX-License-Identifier: Apache-2.0
"""How a host's container is started."""

from __future__ import annotations

from wattfleet_lab.addresses import Plan
from wattfleet_lab.host import Folder, Host

# How nspawn ends when a container that runs with --keep-unit reboots: whoever started it starts it again.
REBOOTED = 133


def nspawn_command(plan: Plan, host: Host, folder: Folder) -> list[str]:
    """The systemd-nspawn command line of a host.

    ``--register=no --keep-unit`` needs neither systemd nor machined on this machine; ``--notify-ready``
    passes on the host's own word that it has booted.
    """
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--notify-ready=yes",
        f"--directory={folder.root}",
        f"--machine={plan.machine(host.name)}",
        f"--hostname={host.name}",
        f"--network-veth-extra={plan.veth(host.slot, 'w')}:eth0",
        f"--network-veth-extra={plan.veth(host.slot, 'e')}:eth1",
        "--console=pipe",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        # As on a machine of its own, the clock may be asked whether it is right. Setting it takes CAP_SYS_TIME.
        "--system-call-filter=adjtimex clock_adjtime",
    ]
