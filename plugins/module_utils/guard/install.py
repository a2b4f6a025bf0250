# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The program and its units on the host: written when a change begins, if they differ."""

from __future__ import annotations

import io
import sys
import zipfile
from types import ModuleType

from . import durable, engine, errors, host, program, store, units

PROGRAM = "/usr/local/lib/energy-guard/energy-guard.pyz"
PACKAGE = "energy_guard"
BOOT = "energy-guard-boot.service"
# What of this package runs in a module only. The program is made of the rest: of all that importing it has brought
# here, and so of what Ansible has shipped with the module.
NOT_PARTS = ("embed", "install")
MAIN = f"import sys\n\nfrom {PACKAGE}.program import main\n\nsys.exit(main())\n"

COMMON = """Type=oneshot
Environment=PATH={path}
SyslogIdentifier=energy-guard
OOMScoreAdjust=-900
# What undoes a change has to reach all that a change may touch. It gives up what it can do without.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_SETFCAP CAP_SYS_ADMIN
NoNewPrivileges=yes
DevicePolicy=closed
IPAddressDeny=any
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
"""
# Not for what applies a change: its commands are not ours to know.
UNDOING = """SystemCallFilter=~@resources
UMask=0077
"""
# The boot makes all but files and units from those. This takes a mount namespace, one more thing that could keep a unit
# from starting: the boot has the restore behind it, and that has nothing. Nothing is to be put back below /dev.
BOOTING = """PrivateDevices=yes
PrivateMounts=yes
PrivateNetwork=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
"""
# Live state besides: links and tables, and settings of the kernel (kernel.yama.ptrace_scope asks for the second).
LIVE = """CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_PTRACE
RestrictAddressFamilies=AF_NETLINK
"""
BOOT_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Undo a change of this host that was not confirmed before it went down
DefaultDependencies=no
ConditionPathExists={base}/pending
RequiresMountsFor={base} /etc
After=local-fs.target systemd-remount-fs.service
# What waits for sysinit.target, as sshd and NetworkManager do, need not be named. sshd.service, an alias on Debian,
# must not be: see at_boot() in units.py.
Before=sysinit.target systemd-sysctl.service network-pre.target nftables.service energy-firewall.service
Conflicts=shutdown.target
Before=shutdown.target
OnFailure={restore}

[Service]
{common}{undoing}{booting}ExecStart={python} -I -B {program} restore --boot
TimeoutStartSec=180

[Install]
WantedBy=sysinit.target
"""
RESTORE_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Undo a change of this host that nobody has confirmed
StartLimitIntervalSec=0

[Service]
{common}{live}{undoing}ExecStart={python} -I -B {program} restore
# It never gives up: until the host is exactly as it was, it is tried again.
Restart=on-failure
RestartSec=3
TimeoutStartSec=180
"""
APPLY_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Apply a change of this host that waits for its confirmation
OnFailure={restore}
StartLimitIntervalSec=0

[Service]
{common}{live}# Some commands ask the kernel about links by a socket that they never connect.
RestrictAddressFamilies=AF_INET AF_INET6
ExecStart={python} -I -B {program} apply
# A restore kills it with all that it has started, whatever that is doing.
KillMode=control-group
KillSignal=SIGKILL
TimeoutStopSec=5
"""


def parts() -> list[ModuleType]:
    """The modules that the program is made of."""
    package = program.__name__.rpartition(".")[0]
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.rpartition(".")[0] == package and name.rpartition(".")[2] not in NOT_PARTS
    ]


def archive() -> bytes:
    """The program as one file, the same bytes for the same sources."""
    files = {"__main__.py": MAIN, f"{PACKAGE}/__init__.py": ""}
    for part in parts():
        spec = part.__spec__
        source = spec.loader.get_source(part.__name__) if spec and spec.loader else None  # type: ignore[attr-defined]  # Ansible's loader has get_source, the protocol does not
        if source is None:
            raise errors.GuardError(f"the source of {part.__name__} cannot be read; nothing is changed")
        files[f"{PACKAGE}/{part.__name__.rpartition('.')[2]}.py"] = source
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(files):
            packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name], zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def unit_files() -> dict[str, str]:
    words = {
        "base": store.BASE,
        "python": sys.executable,
        "program": PROGRAM,
        "restore": engine.RESTORE,
        "common": COMMON.format(path=host.PATH),
        "live": LIVE,
        "undoing": UNDOING,
        "booting": BOOTING,
    }
    return {
        f"{units.LINKS}/{name}": text.format(**words)
        for name, text in ((BOOT, BOOT_UNIT), (engine.RESTORE, RESTORE_UNIT), (engine.APPLY, APPLY_UNIT))
    }


def install(there: host.Host) -> bool:
    """Bring program and units up to date; whether anything had to be done."""
    wanted = {PROGRAM: archive(), **{path: text.encode() for path, text in unit_files().items()}}
    changed = False
    for path, content in wanted.items():
        place = there.at(path)
        try:
            found = place.read_bytes()
        except FileNotFoundError:
            found = b""
        if found != content:
            durable.make_directory(place.parent)
            durable.write(place, content, mode=0o644)
            changed = True
    if changed:
        units.reload_manager(there)
    state = units.look(there, [BOOT, engine.RESTORE, engine.APPLY])
    if units.is_masked(state[BOOT]) or state[BOOT]["enabled"] != "enabled":
        units.bring(there, "enable", BOOT)
        changed = True
        state = units.look(there, [BOOT, engine.RESTORE, engine.APPLY])
    unusable = [name for name, words in state.items() if words["load"] != "loaded"]
    if unusable or state[BOOT]["enabled"] != "enabled":
        raise errors.GuardError(f"systemd does not load {', '.join(unusable) or BOOT}, so nothing is changed")
    return changed
