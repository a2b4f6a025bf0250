# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What host_state reads unless it is told otherwise: all that the roles of this collection compare with.

A role that begins to compare something adds it here, one line each, sorted.
"""

from __future__ import annotations

PACKAGES = [
    "chrony",
    "fail2ban",
    "libpam-pwquality",
    "logrotate",
    "mosquitto",
    "network-manager",
    "nftables",
    "openssh-server",
    "postgresql",
    "python3-cryptography",
    "python3-systemd",
    "unattended-upgrades",
]

ACCOUNTS = [
    "energy",
    "energy-hub",
    "energy-tls",
]

# Paths, and patterns as a shell has them. Of private keys (*.key) the content is not looked at.
FILES = [
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
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
]

# Public files whose content is compared, and not only its digest.
TEXTS = [
    "/etc/hosts",
    "/etc/login.defs",
    "/etc/ssl/energy/*.crt",
    "/etc/ssl/energy/*.csr",
]

UNITS = [
    "NetworkManager.service",
    "apache2.service",
    "avahi-daemon.service",
    "avahi-daemon.socket",
    "chrony.service",
    "cups-browsed.service",
    "cups.path",
    "cups.service",
    "cups.socket",
    "dovecot.service",
    "energy-firewall.service",
    "energy-gateway.service",
    "energy-lazytime.service",
    "energy-persistence.service",
    "exim4.service",
    "fail2ban.service",
    "inetd.service",
    "inetutils-inetd.service",
    "lighttpd.service",
    "mosquitto.service",
    "nfs-server.service",
    "nftables.service",
    "nginx.service",
    "nmbd.service",
    "openbsd-inetd.service",
    "postfix.service",
    "proftpd.service",
    "pure-ftpd.service",
    "rpcbind.service",
    "rpcbind.socket",
    "rsync.service",
    "smbd.service",
    "snmpd.service",
    "ssh.service",
    "sshd.service",
    "telnet.socket",
    "tftpd-hpa.service",
    "vsftpd.service",
    "xinetd.service",
]

# Settings of the kernel.
SYSCTLS = [
    "dev.tty.ldisc_autoload",
    "fs.protected_fifos",
    "fs.protected_hardlinks",
    "fs.protected_regular",
    "fs.protected_symlinks",
    "fs.suid_dumpable",
    "kernel.core_uses_pid",
    "kernel.dmesg_restrict",
    "kernel.kptr_restrict",
    "kernel.perf_event_paranoid",
    "kernel.randomize_va_space",
    "kernel.sysrq",
    "kernel.unprivileged_bpf_disabled",
    "kernel.yama.ptrace_scope",
    "net.core.bpf_jit_harden",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.all.accept_source_route",
    "net.ipv4.conf.all.log_martians",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.secure_redirects",
    "net.ipv4.conf.all.send_redirects",
    "net.ipv4.conf.default.accept_redirects",
    "net.ipv4.conf.default.accept_source_route",
    "net.ipv4.conf.default.log_martians",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.default.secure_redirects",
    "net.ipv4.conf.default.send_redirects",
    "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.icmp_ignore_bogus_error_responses",
    "net.ipv4.tcp_rfc1337",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.accept_redirects",
    "net.ipv6.conf.all.accept_source_route",
    "net.ipv6.conf.default.accept_redirects",
    "net.ipv6.conf.default.accept_source_route",
]
