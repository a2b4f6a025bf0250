# SPDX-License-Identifier: Apache-2.0
"""The protection taken away, from outside the guard: then the campaign has to turn red."""

from __future__ import annotations

from tests.fault.lockout.host import LabHost
from tests.fault.lockout.plan import Round

# The guard believes that all is well; its timer fires, and what it should start does nothing.
_NO_TIMER = """set -eu
mkdir -p /run/systemd/system/energy-guard-restore.service.d
cat > /run/systemd/system/energy-guard-restore.service.d/control.conf <<'EOF'
[Service]
ExecStart=
ExecStart=/bin/true
Restart=no
EOF
systemctl daemon-reload
"""

_NO_BOOT = """set -eu
mkdir -p /etc/systemd/system/energy-guard-boot.service.d
cat > /etc/systemd/system/energy-guard-boot.service.d/control.conf <<'EOF'
[Unit]
ConditionPathExists=/nonexistent
EOF
systemctl daemon-reload
"""

TAKEN = {"timer": _NO_TIMER, "boot": _NO_BOOT}


def take_away(host: LabHost, what: str) -> None:
    host.exec("sh", "-s", stdin=TAKEN[what])


def rounds(what: str, seed: int) -> list[Round]:
    """Changes that cannot undo themselves, with a death after which only what was taken away could help."""
    kinds = ("wrong-address", "drop-everything", "interface-down", "sshd-broken")
    death = {"timer": "controller", "boot": "cut"}[what]
    return [Round(number, f"{seed}/{number}", kind, death) for number, kind in enumerate(kinds, 1)]
