# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What host_state reads unless it is told otherwise: all that the roles of this collection compare with.

A role that begins to compare something adds it here, one line each, sorted.
"""

from __future__ import annotations

PACKAGES = [
    "chrony",
    "fail2ban",
    "logrotate",
    "mosquitto",
    "network-manager",
    "nftables",
    "postgresql",
    "python3-cryptography",
]

ACCOUNTS = [
    "energy",
    "energy-hub",
    "energy-tls",
]

# Paths, and patterns as a shell has them. Of private keys (*.key) the content is not looked at.
FILES = [
    "/etc/chrony.conf",
    "/etc/chrony/chrony.conf",
    "/etc/energy",
    "/etc/energy/config.yaml",
    "/etc/energy/device_mapping.json",
    "/etc/hosts",
    "/etc/logrotate.d/energy",
    "/etc/mosquitto/energy.acl",
    "/etc/mosquitto/mosquitto.conf",
    "/etc/nftables.d/wattfleet.nft",
    "/etc/ssl/energy",
    "/etc/ssl/energy/*",
    "/etc/systemd/system/energy-*",
    "/etc/systemd/system/mosquitto.service.d/energy.conf",
    "/etc/systemd/system/nftables.service.d/energy-firewall.conf",
    "/opt/energy",
    "/opt/energy/current",
    "/opt/energy/releases",
    "/opt/energy/releases/*",
    "/opt/energy/releases/*/energy-collector.pyz",
    "/usr/local/lib/energy-clock/energy-clock-floor.py",
    "/usr/local/lib/energy-firewall/load-keeping-others",
]

# Public files whose content is compared, and not only its digest.
TEXTS = [
    "/etc/hosts",
    "/etc/ssl/energy/*.crt",
    "/etc/ssl/energy/*.csr",
]

UNITS = [
    "NetworkManager.service",
    "chrony.service",
    "chronyd.service",
    "energy-clock-floor.service",
    "energy-clock-save.timer",
    "energy-firewall.service",
    "energy-gateway.service",
    "energy-lazytime.service",
    "energy-persistence.service",
    "fail2ban.service",
    "mosquitto.service",
    "nftables.service",
    "ssh.service",
]
