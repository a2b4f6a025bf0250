#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes three package sources below /srv/upgrades that stand for Debian's security updates, for Debian itself and for somebody else, each with
# version 1.1 of a package of its own, and installs version 1.0 of each. energy-secure has a file in /etc that an owner has changed.
set -eu
base=/srv/upgrades
rm -rf $base
mkdir -p $base/build

package() { # NAME VERSION FOLDER
    tree=$base/build/$1
    rm -rf "$tree"
    mkdir -p "$tree/DEBIAN" "$tree/etc" "$3"
    echo "version $2" > "$tree/etc/$1.conf"
    echo "/etc/$1.conf" > "$tree/DEBIAN/conffiles"
    printf '%s\n' "Package: $1" "Version: $2" 'Architecture: all' 'Maintainer: Nobody <nobody@example.com>' \
        'Description: package of a test' > "$tree/DEBIAN/control"
    dpkg-deb --build --root-owner-group "$tree" "$3/$1_$2_all.deb" > /dev/null
}

index() { # FOLDER ORIGIN LABEL SUITE CODENAME
    cd "$1"
    for file in *.deb; do
        dpkg-deb --field "$file"
        printf '%s\n' "Filename: ./$file" "Size: $(stat --format=%s "$file")" "SHA256: $(sha256sum "$file" | cut -d' ' -f1)" ''
    done > Packages
    printf '%s\n' "Origin: $2" "Label: $3" "Suite: $4" "Codename: $5" "Date: $(date --utc --rfc-email)" 'SHA256:' \
        " $(sha256sum Packages | cut -d' ' -f1) $(stat --format=%s Packages) Packages" > Release
    echo "deb [trusted=yes] http://127.0.0.1:8099/${1##*/} ./" >> /etc/apt/sources.list.d/upgrades.list
}

: > /etc/apt/sources.list.d/upgrades.list
for name in secure plain other; do
    package energy-$name 1.0 $base/old
    package energy-$name 1.1 $base/$name
done
index $base/secure Debian Debian-Security stable-security bookworm-security
index $base/plain Debian Debian stable bookworm
index $base/other Somebody Debian-Security stable bookworm
dpkg --install $base/old/*.deb
echo 'changed by its owner' > /etc/energy-secure.conf
