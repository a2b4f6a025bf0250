#!/bin/sh
# Turns a bare Debian tree into the base image of a lab host. mmdebstrap runs it as a customize hook:
# $1 is the tree, $MMDEBSTRAP_APT_CONFIG makes apt work on it from outside, $WATTFLEET_POOL names the
# packages of the offline pool.
set -eu
root=$1

# The offline pool: what roles install, with all dependencies that the image itself does not have yet.
pool=$root/srv/packages
mkdir -p "$pool/partial"
# shellcheck disable=SC2086  # the list is split on purpose
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends --download-only \
    -o Dir::Cache::archives="$pool" install $WATTFLEET_POOL
rm -rf "$pool/partial" "$pool/lock"
(cd "$pool" && apt-ftparchive packages . > Packages && apt-ftparchive release . > Release.new && mv Release.new Release)
echo 'deb [trusted=yes] file:/srv/packages ./' > "$root/etc/apt/sources.list"
rm -rf "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
chroot "$root" apt-get -qq update

# The operator's account: a key only (each lab adds its own), sudo without a password.
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo,systemd-journal admin
echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/admin"
chmod 0440 "$root/etc/sudoers.d/admin"
mkdir -p "$root/etc/ssh/sshd_config.d"
printf '%s\n' 'PasswordAuthentication no' 'PermitRootLogin no' 'UseDNS no' > "$root/etc/ssh/sshd_config.d/lab.conf"
# Every host gets keys and an identity of its own.
rm -f "$root"/etc/ssh/ssh_host_*
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"

# NetworkManager leaves links that somebody else made alone unless it is told that they are its own.
cat > "$root/etc/NetworkManager/conf.d/lab.conf" <<'CONF'
[main]
plugins=keyfile
dns=none
no-auto-default=*

[device]
match-device=interface-name:eth0,interface-name:eth1
managed=1
CONF
rm -f "$root/etc/network/interfaces" "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"

# Logs outlive a reboot, and stay small.
mkdir -p "$root/etc/systemd/journald.conf.d" "$root/var/log/journal"
printf '%s\n' '[Journal]' 'Storage=persistent' 'SystemMaxUse=32M' 'RateLimitIntervalSec=0' 'Audit=no' \
    > "$root/etc/systemd/journald.conf.d/lab.conf"

# All hosts of a machine have one clock: chronyd asks for the time and tells it, and sets nothing (-x).
mkdir -p "$root/etc/systemd/system/chrony.service.d"
printf '%s\n' '[Unit]' 'ConditionCapability=' '[Service]' 'ExecStart=' 'ExecStart=!/usr/sbin/chronyd -x $DAEMON_OPTS' \
    > "$root/etc/systemd/system/chrony.service.d/lab.conf"

# Work that a container cannot or need not do: consoles, devices, file systems, timers of the distribution.
chroot "$root" systemctl --quiet mask \
    console-getty.service getty.target getty-static.service \
    systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-remount-fs.service systemd-binfmt.service systemd-modules-load.service \
    proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    modprobe@.service kmod-static-nodes.service dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service wpa_supplicant.service systemd-pstore.service
chroot "$root" systemctl --quiet set-default multi-user.target
chroot "$root" systemctl --quiet enable ssh.service NetworkManager.service
chroot "$root" systemctl --quiet disable nftables.service

echo 'LANG=C.UTF-8' > "$root/etc/default/locale"
: > "$root/etc/hostname"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/log/apt "$root"/var/log/*.log
