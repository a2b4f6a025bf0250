# SPDX-License-Identifier: Apache-2.0
# Prints all of a host that a change may touch and a restore has to bring back. Runs in the host, by its standard input.
cd / || exit 1
find /etc /usr/local -xdev \( -type f -o -type l -o -type d \) \
    -not -path '*energy-guard*' -not -path /etc/resolv.conf -printf '%p %y %m %u:%g %l ' \
    \( -type f -exec sh -c 'sha256sum < "$0"' {} \; -o -printf '\n' \) | sort
ip -oneline address show | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/ valid_lft.*//'
ip -oneline link show | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/link\/.*//'
ip route
ip -6 route
for folder in /proc/sys/net/ipv[46]/conf/*; do
    grep --no-messages . "$folder/accept_ra" "$folder/addr_gen_mode" "$folder/use_tempaddr" "$folder/rp_filter"
done
nft --stateless list ruleset
systemctl show --property=Id,ActiveState,UnitFileState,LoadState ssh.service NetworkManager.service NetworkManager-wait-online.service
nmcli --terse --fields UUID,DEVICE,STATE connection show --active | grep --invert-match ':lo:'
sysctl net.ipv4.conf.all.log_martians net.ipv4.ip_forward
