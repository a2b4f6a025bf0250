# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The program and its units on the host: written when a change begins, if they differ."""

from __future__ import annotations

import io
import sys
import zipfile
from types import ModuleType

from . import durable, engine, errors, hands, host, program, store, sysctls, units

PROGRAM = "/usr/local/lib/energy-guard/energy-guard.pyz"
PACKAGE = "energy_guard"
BOOT = "energy-guard-boot.service"
# What of this package runs in a module only. The program is made of the rest: of all that importing it has brought
# here, and so of what Ansible has shipped with the module.
NOT_PARTS = ("embed", "install")
MAIN = f"import sys\n\nfrom {PACKAGE}.program import main\n\nsys.exit(main())\n"

COMMON = """Type=oneshot
Environment=PATH={path} {boot_id}=%b
SyslogIdentifier=energy-guard
OOMScoreAdjust=-900
# Each unit gives up what it can do without. All have a mount namespace; where none can be set up the host is restarted.
NoNewPrivileges=yes
DevicePolicy=closed
IPAddressDeny=any
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
"""
# Whatever undoes a change has to reach every file, its owner and its mode, and systemd.
FILES = """CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_SETFCAP
PrivateNetwork=yes
ProtectKernelTunables=yes
"""
# systemd 252 makes a /dev of its own in /tmp first, and cannot where the disk is full. What undoes a change is to start
# then as well, so this is only for what applies one, and for the boot, which has the restore behind it.
DEVICES = """PrivateDevices=yes
"""
BOOTING = """CapabilityBoundingSet=CAP_SYS_ADMIN
"""
HIDDEN = """ProtectProc=invisible
"""
# What the distribution has put there is no matter of a change.
RESTORING = """ProtectSystem=yes
ReadWritePaths=-/usr/local -/boot -/efi
"""
# Not for what applies a change: its commands are not ours to know.
UNDOING = """SystemCallFilter=~@resources
UMask=0077
"""
# Nothing here may wait for a file system that is somewhere else, as ProtectSystem=strict does: the network that leads
# there may be what is to be put back.
HAND = """ProtectProc=invisible
ProtectSystem=full
RestrictSUIDSGID=yes
SystemCallFilter=~@privileged
KillMode=control-group
KillSignal=SIGKILL
TimeoutStopSec=5
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
{common}{files}{devices}{booting}{undoing}ExecStart={python} -I -B {program} restore --boot
TimeoutStartSec=180

[Install]
WantedBy=sysinit.target
"""
RESTORE_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Undo a change of this host that nobody has confirmed
StartLimitIntervalSec=0

[Service]
{common}{files}{hidden}{restoring}{undoing}ExecStart={python} -I -B {program} restore
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
{common}{files}{devices}{hidden}ExecStart={python} -I -B {program} apply
# A restore kills it with all that it has started, whatever that is doing.
KillMode=control-group
KillSignal=SIGKILL
TimeoutStopSec=5
"""
NETWORK_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Set and compare the network for a change of this host
StartLimitIntervalSec=0

[Service]
{common}{undoing}{hand}CapabilityBoundingSet=CAP_NET_ADMIN
ProtectHome=yes
RestrictAddressFamilies=AF_NETLINK
ExecStart={python} -I -B {program} hand network
"""
KERNEL_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Set and compare settings of the kernel for a change of this host
StartLimitIntervalSec=0

[Service]
{common}{undoing}{hand}# The second is what kernel.yama.ptrace_scope asks for.
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_PTRACE
PrivateNetwork=yes
# Of a network that nobody has: who sets something there is to be told.
ReadOnlyPaths=-/proc/sys/net
ExecStart={python} -I -B {program} hand kernel
"""
BPF_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Set and compare settings of the kernel's BPF for a change of this host
StartLimitIntervalSec=0

[Service]
{common}{undoing}{hand}# They are those of the host's network, and yet ask for this.
CapabilityBoundingSet=CAP_SYS_ADMIN
ProtectHome=yes
ExecStart={python} -I -B {program} hand bpf
"""
# It does nothing itself: systemd restarts the host, however it ends. The next boot undoes the change by its files.
# Its timer is gone then, so this happens once.
REBOOT_UNIT = """# Written by Ansible (wattfleet.energy.guard); what is changed here is undone by the next change.
[Unit]
Description=Restart this host, since a change of it cannot be undone otherwise
ConditionPathExists={base}/pending
ConditionPathExists=!{compared}
SuccessAction=reboot
FailureAction=reboot

[Service]
{common}CapabilityBoundingSet=
DynamicUser=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateUsers=yes
ProtectHome=yes
ProtectKernelTunables=yes
ProtectProc=invisible
SystemCallFilter=~@resources @privileged
ExecStart=/bin/true
"""


# The hands first: what works on files is of no use without them.
UNITS = {
    hands.UNITS[sysctls.NETWORK]: NETWORK_UNIT,
    hands.UNITS[sysctls.KERNEL]: KERNEL_UNIT,
    hands.UNITS[sysctls.BPF]: BPF_UNIT,
    engine.REBOOT: REBOOT_UNIT,
    BOOT: BOOT_UNIT,
    engine.RESTORE: RESTORE_UNIT,
    engine.APPLY: APPLY_UNIT,
}


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
        "compared": hands.COMPARED,
        "python": sys.executable,
        "program": PROGRAM,
        "restore": engine.RESTORE,
        "common": COMMON.format(path=host.PATH, boot_id=host.BOOT_ID),
        "files": FILES,
        "devices": DEVICES,
        "restoring": RESTORING,
        "booting": BOOTING,
        "hidden": HIDDEN,
        "undoing": UNDOING,
        "hand": HAND,
    }
    return {f"{units.LINKS}/{name}": text.format(**words) for name, text in UNITS.items()}


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
    state = units.look(there, list(UNITS))
    if units.is_masked(state[BOOT]) or state[BOOT]["enabled"] != "enabled":
        units.bring(there, "enable", BOOT)
        changed = True
        state = units.look(there, list(UNITS))
    unusable = [name for name, words in state.items() if words["load"] != "loaded"]
    if unusable or state[BOOT]["enabled"] != "enabled":
        raise errors.GuardError(f"systemd does not load {', '.join(unusable) or BOOT}, so nothing is changed")
    return changed
