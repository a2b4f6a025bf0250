# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What host_state reads unless it is told otherwise: all that the roles of this collection compare with.

A role that begins to compare something adds it here, one line each, sorted.
"""

from __future__ import annotations

PACKAGES = [
    "acl",
    "chrony",
    "fail2ban",
    "libpq5",
    "logrotate",
    "mosquitto",
    "network-manager",
    "nftables",
    "postgresql",
    "postgresql-15",
    "python3-cryptography",
    "python3-psycopg2",
    "python3-yaml",
    "python3.11-cryptography",
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
    "/etc/energy-hub",
    "/etc/energy-hub/*",
    "/etc/energy/config.yaml",
    "/etc/energy/device_mapping.json",
    "/etc/hosts",
    "/etc/logrotate.d/energy",
    "/etc/logrotate.d/energy-audit",
    "/etc/mosquitto/energy.acl",
    "/etc/mosquitto/mosquitto.conf",
    "/etc/nftables.d/wattfleet.nft",
    "/etc/postgresql/*/main/conf.d/energy.conf",
    "/etc/postgresql/*/main/pg_hba.conf",
    "/etc/postgresql/*/main/pg_ident.conf",
    "/etc/ssl/energy",
    "/etc/ssl/energy/*",
    "/etc/systemd/system/energy-*",
    "/etc/systemd/system/mosquitto.service.d",
    "/etc/systemd/system/mosquitto.service.d/energy.conf",
    "/etc/systemd/system/nftables.service.d/energy-firewall.conf",
    "/opt/energy",
    "/opt/energy-hub",
    "/opt/energy-hub/current",
    "/opt/energy-hub/releases",
    "/opt/energy-hub/releases/*",
    "/opt/energy-hub/releases/*/energy-hub.pyz",
    "/opt/energy/current",
    "/opt/energy/releases",
    "/opt/energy/releases/*",
    "/opt/energy/releases/*/energy-collector.pyz",
    "/usr/local/bin/energy-hub",
    "/usr/local/lib/energy-broker",
    "/usr/local/lib/energy-broker/*",
    "/usr/local/lib/energy-clock/energy-clock-floor.py",
    "/var/log/energy-audit",
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
    "energy-crl-watch.timer",
    "energy-firewall.service",
    "energy-gateway.service",
    "energy-ingest.service",
    "energy-lazytime.service",
    "energy-persistence.service",
    "energy-refusals.service",
    "fail2ban.service",
    "mosquitto.service",
    "nftables.service",
    "ssh.service",
]
