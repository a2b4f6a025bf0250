# SPDX-License-Identifier: Apache-2.0
"""What the base image is made of.

The digest names the image: whoever changes anything here or in image.sh gets a new one.
"""

from __future__ import annotations

import hashlib
import platform

from wattfleet_lab import paths

SUITE = "bookworm"

# What is on a gateway before Wattfleet has ever touched it, plus what an operator expects to find there.
PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "ethtool",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netcat-openbsd",
    "network-manager",
    "nftables",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-apt",
    "python3-cryptography",
    "python3-yaml",
    "sudo",
    "systemd",
    "systemd-sysv",
    "vim-tiny",
)

# What roles install on the hosts, from the offline pool in /srv/packages (dependencies come along).
# Some are there to be found and closed: avahi-daemon, inetutils-telnetd, vsftpd.
POOL = (
    "acct",
    "acl",
    "aide",
    "apt-show-versions",
    "auditd",
    "avahi-daemon",
    "chrony",
    "debsums",
    "fail2ban",
    "haproxy",
    "inetutils-telnetd",
    "libpam-pwquality",
    "libpam-tmpdir",
    "libpq5",
    "logrotate",
    "lynis",
    "mosquitto",
    "mosquitto-clients",
    "needrestart",
    "openbsd-inetd",
    "pgbackrest",
    "postgresql",
    "python3-psycopg2",
    "python3-systemd",
    "sysstat",
    "unattended-upgrades",
    "vsftpd",
)

# Manuals and translations double the unpacked size, and nobody reads them here.
EXCLUDED_PATHS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

SCRIPT = paths.PACKAGE / "image.sh"


def digest() -> str:
    """First 16 hex digits of the SHA-256 of everything that decides what is in the image."""
    recipe = hashlib.sha256()
    for part in (platform.machine(), SUITE, *PACKAGES, "", *POOL, "", *EXCLUDED_PATHS, SCRIPT.read_text()):
        recipe.update(part.encode() + b"\0")
    return recipe.hexdigest()[:16]
