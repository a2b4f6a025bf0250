# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (the messages stand here as they are printed, one line each)
"""Every fault that one file can have, with the exact lines that the user reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from plugins.module_utils.inventory.profiles import Profiles

PROFILES = Profiles().names

# What stands in the file, what stands there instead, and the faults from the line number on.
SITE_FAULTS = [
    pytest.param(
        "region: emea",
        "regoin: emea",
        ['2: regoin: unknown key, did you mean "region"?'],
        id="unknown-key",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nqqq: red",
        [
            "7: qqq: unknown key, expected site, name, region, ring, critical, redundancy_pair, timezone, gateway, link, maintenance, network, firewall, interval, buses, radios, meters, collector, device_mapping, hardening or firmware"
        ],
        id="unknown-key-like-no-other",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nhardening: {listeners: [{port: 0}], unattended_updates: true}",
        [
            "7: hardening.listeners[0].port: found 0, expected a whole number from 1 to 65535",
            '7: hardening.unattended_updates: unknown key, did you mean "unattended_upgrades"?',
        ],
        id="hardening",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nhardening: {listeners: [{port: 80, address: 10.0.0.0/8, process: a b}]}",
        [
            '7: hardening.listeners[0].address: found "10.0.0.0/8", expected "loopback", or an IPv4 address such as "192.168.10.10"',
            '7: hardening.listeners[0].process: found "a b", expected the name of a process, up to 15 characters as `ss -lntup` shows it, such as "portal"',
        ],
        id="hardening-listener",
    ),
    pytest.param(
        "model: moxa-uc-8220",
        "modle: moxa-uc-8220",
        ['5: gateway.modle: unknown key, did you mean "model"?'],
        id="unknown-key-nested",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nfirewall: {accept: [{port: 80, protocol: icmp, comment: x}]}",
        ['7: firewall.accept[0].protocol: found "icmp", expected tcp or udp'],
        id="firewall-protocol",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nfirewall: {accept: [{port: 80, sources: [10.0.0.1/8], comment: x}]}",
        [
            '7: firewall.accept[0].sources[0]: found "10.0.0.1/8", an address inside a network, expected "10.0.0.0/8" or "10.0.0.1/32"'
        ],
        id="firewall-host-bits",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nfirewall: {output_accept: [{port: 514, comment: syslog}]}",
        [
            '7: firewall.output_accept: found without "output: restricted", expected both: else everything may go out'
        ],
        id="firewall-output-accept-alone",
    ),
    pytest.param(
        "host: 192.168.10.20",
        "host: 192.168.10.20, baudrate: 9600",
        [
            "11: buses[0].baudrate: unknown key, expected name, type, host, port, connect_delay, pipeline, timeout or request_gap"
        ],
        id="unknown-key-in-a-bus",
    ),
    pytest.param(
        "report: 60",
        "report: 1.5",
        ["23: meters[4].report: found 1.5, expected a multiple of the polling interval, 1 s"],
        id="report-no-multiple",
    ),
    pytest.param(
        "report: 60, ",
        "",
        ["23: meters[4].raw: found without report, expected both: without report every sample travels"],
        id="raw-without-report",
    ),
    pytest.param(
        "commit_interval: 10",
        "commit_interval: 30",
        ["25: collector.buffer.commit_interval: found 30, expected a number from 1 to 10 (seconds)"],
        id="commit-interval-too-long",
    ),
    pytest.param(
        "  supply/active_power:",
        "  suply/active_power:",
        [
            '30: device_mapping.suply/active_power: found "suply", expected one of the site\'s meters; did you mean "supply"?'
        ],
        id="calibration-of-no-meter",
    ),
    pytest.param(
        "2026-02-28T12:00:00Z",
        "2026-01-28T12:00:00Z",
        [
            '31: device_mapping.supply/active_power[1].from: found "2026-01-28T12:00:00Z", expected a time after "2026-01-31T12:00:00Z"'
        ],
        id="calibrations-out-of-order",
    ),
    pytest.param(
        "2026-02-28T12:00:00Z",
        "28.02.2026",
        [
            '31: device_mapping.supply/active_power[1].from: found "28.02.2026", expected a time in UTC such as "2026-01-31T12:00:00Z"'
        ],
        id="calibration-without-a-time",
    ),
    pytest.param(
        "2026-02-28T12:00:00Z",
        "2026-02-29T12:00:00Z",
        [
            '31: device_mapping.supply/active_power[1].from: found "2026-02-29T12:00:00Z", expected a day and a time that exist'
        ],
        id="calibration-on-no-day",
    ),
    pytest.param(
        "2026-03-03T09:40:00Z",
        "2026-03-03T25:40:00Z",
        ['15: meters[1].since: found "2026-03-03T25:40:00Z", expected a day and a time that exist'],
        id="meter-since-no-time",
    ),
    pytest.param(
        "2026-03-03T09:40:00Z",
        "2026-03-03T09:40:00",
        [
            '15: meters[1].since: found "2026-03-03T09:40:00", expected a time in UTC such as "2026-01-31T12:00:00Z"'
        ],
        id="meter-since-without-utc",
    ),
    pytest.param(
        "ct_ratio: 200:5",
        "ct-ratio: 200:5",
        ['14: meters[0].ct-ratio: unknown key, did you mean "ct_ratio"?'],
        id="unknown-key-in-a-meter",
    ),
    pytest.param(
        "timezone: Europe/Paris\n",
        "",
        [
            '1: timezone: missing, expected a time zone of the form Area/City such as "Europe/Paris", or "UTC", here or in the fleet file\'s defaults'
        ],
        id="missing-key",
    ),
    pytest.param(
        "  wan: {interface: eth0, address: 10.20.4.11/24,",
        "wan: {interface: eth0,",
        ["9: not YAML: did not find expected key (column 3)"],
        id="broken-flow-mapping",
    ),
    pytest.param(
        "network:\n  wan: {interface: eth0, address: 10.20.4.11/24, gateway: 10.20.4.1}\n  energy: {interface: eth1, address: 192.168.10.10/24}\n",
        "",
        ["1: network: missing, expected a mapping with wan and energy"],
        id="missing-required-top",
    ),
    pytest.param(
        "type: rtu, ",
        "",
        ["12: buses[1].type: missing, expected modbus-tcp, rtu-over-tcp or rtu"],
        id="missing-bus-type",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: lan",
        ['6: link: found "lan", expected a mapping such as "{type: lan}"'],
        id="mapping-expected",
    ),
    pytest.param(
        "buses:\n  - {name: hall, type: modbus-tcp, host: 192.168.10.20}\n  - {name: yard, type: rtu, device: /dev/ttyS0}",
        "buses: {}",
        ["10: buses: found a mapping, expected a list of at least one bus"],
        id="list-expected",
    ),
    pytest.param(
        "unit: 1,",
        'unit: "1",',
        [
            '14: meters[0].unit: found "1" in quotes, expected a whole number from 0 to 255 without 248 to 254, without quotes'
        ],
        id="number-quoted",
    ),
    pytest.param(
        "unit: 1,",
        "unit: one,",
        ['14: meters[0].unit: found "one", expected a whole number from 0 to 255 without 248 to 254'],
        id="number-expected",
    ),
    pytest.param(
        "unit: 1,",
        "unit: 1.5,",
        ["14: meters[0].unit: found 1.5, expected a whole number from 0 to 255 without 248 to 254"],
        id="whole-number-expected",
    ),
    pytest.param(
        "unit: 1,",
        "unit: 010,",
        ["14: meters[0].unit: found 010, expected a whole number from 0 to 255 without 248 to 254"],
        id="octal-number",
    ),
    pytest.param(
        "region: emea",
        "region:",
        [
            '2: region: found nothing, expected a name that starts with a letter, of up to 31 characters a-z, 0-9 and "-", such as "emea"'
        ],
        id="key-without-a-value",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nname: [a]",
        ["7: name: found a list, expected text on one line, without a template"],
        id="text-expected",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\ncritical: yes",
        ["7: critical: found yes, expected true or false"],
        id="yes-for-true",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nname: no",
        [
            '7: name: found no without quotes, which YAML reads as true or false, expected text on one line, without a template; for text write "no"'
        ],
        id="no-for-text",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nname: 22:30",
        [
            '7: name: found 22:30 without quotes, which YAML reads as a number in base 60, expected text on one line, without a template; for text write "22:30"'
        ],
        id="sexagesimal-text",
    ),
    pytest.param(
        "name: supply",
        "name: 1234",
        [
            '14: meters[0].name: found 1234 without quotes, which YAML reads as a number, expected a name of characters a-z and 0-9 with single "-" between, such as "main"; for text write "1234"'
        ],
        id="number-as-text",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nname: 2026-01-01",
        [
            '7: name: found 2026-01-01 without quotes, which YAML reads as a date, expected text on one line, without a template; for text write "2026-01-01"'
        ],
        id="date-as-text",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nname: \"{{ lookup('pipe', 'id') }}\"",
        ["7: name: found \"{{ lookup('pipe', 'id') }}\", expected text on one line, without a template"],
        id="template",
    ),
    pytest.param(
        "region: emea",
        "region: !vault emea",
        [
            '2: region: found the YAML tag !vault, expected a name that starts with a letter, of up to 31 characters a-z, 0-9 and "-", such as "emea", without a tag'
        ],
        id="yaml-tag",
    ),
    pytest.param(
        "host: 192.168.10.20",
        "host: 192.168.10.300",
        ['11: buses[0].host: found "192.168.10.300", expected an IPv4 address such as "192.168.10.20"'],
        id="bad-address",
    ),
    pytest.param(
        "192.168.10.10/24",
        "192.168.10.10/255.255.255.0",
        [
            '9: network.energy.address: found "192.168.10.10/255.255.255.0", expected an IPv4 address with its prefix length such as "192.168.10.10/24"'
        ],
        id="mask-dotted",
    ),
    pytest.param(
        "192.168.10.10/24",
        "192.168.10.10",
        [
            '9: network.energy.address: found "192.168.10.10", expected an IPv4 address with its prefix length such as "192.168.10.10/24"'
        ],
        id="mask-missing",
    ),
    pytest.param(
        "192.168.10.10/24",
        "192.168.10.10/33",
        [
            '9: network.energy.address: found "192.168.10.10/33", expected an IPv4 address with its prefix length such as "192.168.10.10/24"'
        ],
        id="mask-too-long",
    ),
    pytest.param(
        "192.168.10.10/24",
        "192.168.10.0/24",
        [
            '9: network.energy.address: found "192.168.10.0/24", the network itself, expected an address of a host in 192.168.10.0/24'
        ],
        id="network-address",
    ),
    pytest.param(
        "192.168.10.10/24",
        "192.168.10.255/24",
        [
            '9: network.energy.address: found "192.168.10.255/24", the broadcast address, expected an address of a host in 192.168.10.0/24'
        ],
        id="broadcast-address",
    ),
    pytest.param(
        "gateway: 10.20.4.1}",
        "gateway: 10.20.5.1}",
        ['8: network.wan.gateway: found "10.20.5.1", expected an address in 10.20.4.0/24'],
        id="router-outside-of-the-wan",
    ),
    pytest.param(
        "gateway: 10.20.4.1}",
        "gateway: 10.20.4.11}",
        ["8: network.wan.gateway: found \"10.20.4.11\", the site's own address, expected the router's"],
        id="router-is-the-site-itself",
    ),
    pytest.param(
        "192.168.10.10/24",
        "10.20.0.10/16",
        [
            '5: gateway.address: found "10.20.4.11", in the energy network 10.20.0.0/16, expected an address that the controller reaches',
            "9: network.energy.address: found 10.20.0.0/16, which overlaps the WAN 10.20.4.0/24, expected networks apart",
            '11: buses[0].host: found "192.168.10.20", expected an address in the energy network 10.20.0.0/16',
        ],
        id="energy-network-overlaps-wan",
    ),
    pytest.param(
        "192.168.10.10/24",
        "10.1.0.130/25",
        [
            "9: network.energy.address: found 10.1.0.128/25, which overlaps the management network 10.1.0.0/24, expected networks apart",
            '11: buses[0].host: found "192.168.10.20", expected an address in the energy network 10.1.0.128/25',
        ],
        id="energy-network-overlaps-management",
    ),
    pytest.param(
        "interface: eth1",
        "interface: eth0",
        ['9: network.energy.interface: found "eth0", the WAN\'s, expected another interface'],
        id="same-interface",
    ),
    pytest.param(
        "192.168.10.10/24",
        "10.1.1.10/24",
        [
            "9: network.energy.address: found 10.1.1.0/24, which holds the hub's address, expected networks apart",
            '11: buses[0].host: found "192.168.10.20", expected an address in the energy network 10.1.1.0/24',
        ],
        id="hub-in-the-energy-network",
    ),
    pytest.param(
        "address: 10.20.4.11}",
        "address: 192.168.10.99}",
        [
            '5: gateway.address: found "192.168.10.99", in the energy network 192.168.10.0/24, expected an address that the controller reaches'
        ],
        id="management-address-in-the-energy-network",
    ),
    pytest.param(
        "host: 192.168.10.20",
        "host: 192.168.11.20",
        [
            '11: buses[0].host: found "192.168.11.20", expected an address in the energy network 192.168.10.0/24'
        ],
        id="bus-outside-of-the-energy-network",
    ),
    pytest.param(
        "host: 192.168.10.20",
        "host: 192.168.10.10",
        ["11: buses[0].host: found \"192.168.10.10\", the gateway's own address, expected the device's"],
        id="bus-is-the-gateway-itself",
    ),
    pytest.param(
        "host: 192.168.10.20",
        "host: 192.168.10.255",
        ['11: buses[0].host: found "192.168.10.255", expected an address of a host in 192.168.10.0/24'],
        id="bus-on-the-broadcast-address",
    ),
    pytest.param(
        "unit: 2, profile: eastron-sdm630",
        "unit: 1, profile: eastron-sdm630",
        [
            '15: meters[1].unit: found 1 on bus "hall", as "supply" (meters[0]) has, expected a unit of its own'
        ],
        id="two-meters-with-one-unit-on-one-bus",
    ),
    pytest.param(
        "name: press",
        "name: supply",
        ['15: meters[1].name: found "supply", as in meters[0], expected a name of its own'],
        id="two-meters-of-one-name",
    ),
    pytest.param(
        "name: yard",
        "name: hall",
        [
            '12: buses[1].name: found "hall", as in buses[0], expected a name of its own',
            '16: meters[2].bus: found "yard", expected one of the site\'s buses: hall',
        ],
        id="two-buses-of-one-name",
    ),
    pytest.param(
        "type: rtu, device: /dev/ttyS0",
        "type: rtu-over-tcp, host: 192.168.10.20",
        [
            '12: buses[1].host: found "192.168.10.20" and port 502, as in buses[0], expected one bus for each: a bus has one master'
        ],
        id="two-buses-to-one-host-and-port",
    ),
    pytest.param(
        "bus: yard",
        "bus: yrad",
        ['16: meters[2].bus: found "yrad", expected one of the site\'s buses; did you mean "yard"?'],
        id="unknown-bus",
    ),
    pytest.param(
        "bus: yard, unit: 2",
        "bus: yard, unit: 255",
        ["16: meters[2].unit: found 255 on a bus of type rtu, expected a whole number from 1 to 247"],
        id="unit-255-on-a-serial-bus",
    ),
    pytest.param(
        "unit: 1,",
        "unit: 250,",
        ["14: meters[0].unit: found 250, expected a whole number from 0 to 255 without 248 to 254"],
        id="reserved-unit",
    ),
    pytest.param(
        "200:5",
        '"200"',
        ['14: meters[0].ct_ratio: found "200", expected a ratio like "200:5"'],
        id="ct-ratio-without-secondary",
    ),
    pytest.param(
        "200:5",
        "200",
        ['14: meters[0].ct_ratio: found 200, expected a ratio like "200:5"'],
        id="ct-ratio-as-a-number",
    ),
    pytest.param(
        "200:5",
        "0:5",
        ['14: meters[0].ct_ratio: found "0:5", expected a ratio like "200:5"'],
        id="ct-ratio-with-primary-zero",
    ),
    pytest.param(
        "200:5",
        "200:0",
        ['14: meters[0].ct_ratio: found 200:0, expected a ratio like "200:5"'],
        id="ct-ratio-with-secondary-zero",
    ),
    pytest.param(
        "200:5",
        "200/5",
        ['14: meters[0].ct_ratio: found "200/5", expected a ratio like "200:5"'],
        id="ct-ratio-with-a-slash",
    ),
    pytest.param(
        "200:5",
        "5:200",
        ['14: meters[0].ct_ratio: found "5:200", expected primary before secondary, such as "200:5"'],
        id="ct-ratio-reversed",
    ),
    pytest.param(
        "carlo-gavazzi-em24",
        "carlo-gavazi-em24",
        [
            '16: meters[2].profile: found "carlo-gavazi-em24", expected a profile; did you mean "carlo-gavazzi-em24"?'
        ],
        id="unknown-profile",
    ),
    pytest.param(
        "carlo-gavazzi-em24",
        "xyz",
        [
            f'16: meters[2].profile: found "xyz", expected a profile: {", ".join(PROFILES[:-1])} or {PROFILES[-1]}'
        ],
        id="unknown-profile-like-no-other",
    ),
    pytest.param(
        "role: main",
        "role: mian",
        [
            '14: meters[0].role: found "mian", expected main, consumption, generation, storage or process; did you mean "main"?'
        ],
        id="unknown-role",
    ),
    pytest.param(
        "ring: early",
        "ring: erly",
        ['3: ring: found "erly", expected one of the fleet\'s rings; did you mean "early"?'],
        id="ring-unknown",
    ),
    pytest.param(
        "ring: early\n",
        "",
        [
            '1: ring: missing, expected a name that starts with a letter, of up to 31 characters a-z, 0-9 and "-", such as "early", here or in the fleet file\'s defaults'
        ],
        id="ring-missing",
    ),
    pytest.param(
        "Europe/Paris",
        "Europe/Pari",
        [
            '4: timezone: found "Europe/Pari", expected a time zone of the IANA database; did you mean "Europe/Paris"?'
        ],
        id="time-zone-does-not-exist",
    ),
    pytest.param(
        "Europe/Paris",
        "CET",
        [
            '4: timezone: found "CET", expected a time zone of the form Area/City such as "Europe/Paris", or "UTC"'
        ],
        id="time-zone-abbreviation",
    ),
    pytest.param(
        "region: emea",
        "region: EMEA West",
        [
            '2: region: found "EMEA West", expected a name that starts with a letter, of up to 31 characters a-z, 0-9 and "-", such as "emea"'
        ],
        id="region-makes-no-group",
    ),
    pytest.param(
        "ring: early",
        "ring: 1st",
        [
            '3: ring: found "1st", expected a name that starts with a letter, of up to 31 characters a-z, 0-9 and "-", such as "early"'
        ],
        id="ring-makes-no-group",
    ),
    pytest.param(
        "moxa-uc-8220",
        "Moxa UC-8220",
        [
            '5: gateway.model: found "Moxa UC-8220", expected a model name of characters a-z, 0-9 and "-", such as "moxa-uc-8220"'
        ],
        id="model-makes-no-group",
    ),
    pytest.param(
        "site: plant-a",
        "site: Plant_A",
        [
            '1: site: found "Plant_A", expected a site name of up to 39 characters a-z, 0-9 and "-", such as "plant-a"'
        ],
        id="site-makes-no-host",
    ),
    pytest.param(
        "site: plant-a",
        "site: hub",
        ['1: site: found "hub", which Ansible or Wattfleet already uses, expected another name'],
        id="site-name-is-taken",
    ),
    pytest.param(
        "site: plant-a",
        "site: plant-x",
        ['1: site: found "plant-x" in the file plant-a.yml, expected "plant-a", the file\'s name'],
        id="file-name-differs-from-site",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nredundancy_pair: plant-a",
        ['7: redundancy_pair: found "plant-a", the site itself, expected another site'],
        id="redundancy-pair-is-the-site-itself",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\nredundancy_pair: plant-z",
        ['7: redundancy_pair: found "plant-z", expected a site of this fleet'],
        id="redundancy-pair-does-not-exist",
    ),
    pytest.param(
        "ring: early",
        "ring: canary\ncritical: true",
        [
            '3: ring: found "canary" with "critical: true", expected a later ring: the first takes no critical site'
        ],
        id="critical-site-in-the-canary-ring",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\ninterval: 0.05",
        ["7: interval: found 0.05, expected a number from 0.1 to 3600 (seconds)"],
        id="interval-too-short",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\ninterval: 4000",
        ["7: interval: found 4000, expected a number from 0.1 to 3600 (seconds)"],
        id="interval-too-long",
    ),
    pytest.param(
        "{type: lan}",
        "{type: wifi}",
        ['6: link.type: found "wifi", expected lan, cellular or satellite'],
        id="link-type",
    ),
    pytest.param(
        "device: /dev/ttyS0",
        "device: /dev/ttyS0, baudrate: 9601",
        ["12: buses[1].baudrate: found 9601, expected 1200, 2400, 4800, 9600, 19200, 38400, 57600 or 115200"],
        id="baudrate",
    ),
    pytest.param(
        "device: /dev/ttyS0",
        "device: /dev/ttyS0, parity: none",
        ['12: buses[1].parity: found "none", expected N, E or O'],
        id="parity",
    ),
    pytest.param(
        "profile: carlo-gavazzi-em24",
        "profile: carlo-gavazzi-em24, channels: {a: {input: 1, signal: 4-20mA, low: 0, high: 1, unit: V}}",
        [
            '16: meters[2].channels: found channels, expected none: "carlo-gavazzi-em24" has no analogue inputs'
        ],
        id="channels-without-analogue-inputs",
    ),
    pytest.param(
        "\n    channels:\n      flow: {input: 1, signal: 4-20mA, low: 0, high: 100, unit: m3/h}",
        "",
        [
            '17: meters[3].channels: missing, expected a channel for each input in use: "advantech-adam-6017" has analogue inputs'
        ],
        id="analogue-inputs-without-channels",
    ),
    pytest.param(
        "\n      flow: {input: 1, signal: 4-20mA, low: 0, high: 100, unit: m3/h}",
        " {}",
        ["21: meters[3].channels: found an empty mapping, expected a mapping of at least one channel"],
        id="no-channel",
    ),
    pytest.param(
        "input: 1,",
        "input: 9,",
        ['22: meters[3].channels.flow.input: found 9, expected 1 to 8, the inputs of "advantech-adam-6017"'],
        id="channel-of-an-input-that-is-not-there",
    ),
    pytest.param(
        "unit: m3/h}",
        "unit: m3/h}\n      level: {input: 1, signal: 0-10V, low: 0, high: 9, unit: m}",
        ['23: meters[3].channels.level.input: found 1, as in "flow", expected each input once'],
        id="two-channels-of-one-input",
    ),
    pytest.param(
        "high: 100",
        "high: 0",
        ["22: meters[3].channels.flow.high: found 0, equal to low, expected another value"],
        id="channel-without-a-range",
    ),
    pytest.param(
        "flow: {input",
        "Flow: {input",
        [
            '22: meters[3].channels.Flow: found "Flow", expected a name of characters a-z and 0-9 with single "-" between, such as "flow-temperature"'
        ],
        id="channel-name",
    ),
    pytest.param(
        "region: emea",
        "region: emea\nregion: apac",
        ["3: region: found a second time, first in line 2, expected once"],
        id="duplicate-key",
    ),
    pytest.param(
        "unit: 1,",
        "unit: 1, unit: 2,",
        ["14: meters[0].unit: found a second time, first in line 14, expected once"],
        id="duplicate-key-nested",
    ),
    pytest.param(
        "link: {type: lan}",
        "link: {type: lan}\n<<: {region: x}",
        ["7: <<: merge keys are not supported, expected each key written out"],
        id="merge-key",
    ),
    pytest.param(
        "region: emea",
        "region: emea: x",
        [
            '2: not YAML: mapping values are not allowed in this context (column 13); quote text that contains ": ", and indent the keys of one mapping alike'
        ],
        id="syntax-colon",
    ),
    pytest.param(
        "\n  wan:",
        "\n\twan:",
        [
            "8: not YAML: found character that cannot start any token (column 1); indent with spaces, and quote text that starts with %, @ or `"
        ],
        id="syntax-tab",
    ),
    pytest.param(
        "ring: early",
        " ring: early",
        [
            '3: not YAML: mapping values are not allowed in this context (column 6); quote text that contains ": ", and indent the keys of one mapping alike'
        ],
        id="syntax-indent",
    ),
    pytest.param(
        "link: {type: lan}",
        "---\nlink: {type: lan}",
        [
            "6: not YAML: found a second document (column 1); expected one document a file, without a second ---"
        ],
        id="two-documents",
    ),
    pytest.param(
        "link: {type: lan}",
        "? [a, b]\n: x\nlink: {type: lan}",
        ["6: found a list as a key, expected a name"],
        id="list-as-a-key",
    ),
    pytest.param(
        "region: emea",
        "region: *none",
        ["2: not YAML: found undefined alias (column 9)"],
        id="unknown-alias",
    ),
    pytest.param(
        "gateway: 10.20.4.1}",
        "gateway: 10.20.4.1, dns: [10.0.0.1, 10.0.0.1]}",
        ['8: network.wan.dns[1]: found "10.0.0.1" twice, expected each once'],
        id="name-server-twice",
    ),
]

FLEET_FAULTS = [
    pytest.param(
        "fleet: demo",
        "flet: demo",
        ['2: flet: unknown key, did you mean "fleet"?'],
        id="unknown-key",
    ),
    pytest.param(
        "rings: [canary, early, critical]\n",
        "",
        ["1: rings: missing, expected a list of at least one ring"],
        id="missing-key",
    ),
    pytest.param(
        "early, critical",
        "early, early",
        ['3: rings[2]: found "early" twice, expected each once'],
        id="ring-twice",
    ),
    pytest.param(
        "[canary, early, critical]",
        "[]",
        ["3: rings: found an empty list, expected a list of at least one ring"],
        id="no-rings",
    ),
    pytest.param(
        "wattfleet.energy.sites",
        "wattfleet.energy.site",
        [
            '1: plugin: found "wattfleet.energy.site", expected wattfleet.energy.sites; did you mean "wattfleet.energy.sites"?'
        ],
        id="plugin",
    ),
    pytest.param(
        "10.1.0.0/24",
        "10.1.0.7/24",
        [
            '4: management.networks[0]: found "10.1.0.7/24", an address inside a network, expected "10.1.0.0/24" or "10.1.0.7/32"'
        ],
        id="network-host-bits",
    ),
    pytest.param(
        "10.1.0.0/24",
        "0.0.0.0/0",
        [
            '4: management.networks[0]: found "0.0.0.0/0", which is everybody, expected the networks of those who may log in'
        ],
        id="network-everybody",
    ),
    pytest.param(
        "10.1.0.0/24]",
        '"2001:db8::1::/64"]',
        [
            '4: management.networks[0]: found "2001:db8::1::/64", expected a network such as "192.168.10.0/24" or "2001:db8::/64"'
        ],
        id="network-no-ipv6",
    ),
    pytest.param(
        "10.1.0.0/24]",
        '10.1.0.0/24], rescue: ["2001:db8::1/64"]',
        [
            '4: management.rescue[0]: found "2001:db8::1/64", an address inside a network, expected "2001:db8::/64" or "2001:db8::1/128"'
        ],
        id="rescue-host-bits",
    ),
    pytest.param(
        "address: 10.1.1.2",
        "address: 10.1.1.2, accept: [{port: 443}]",
        [
            "5: hub.accept[0].comment: missing, expected text on one line, without quotes, backslashes and templates"
        ],
        id="hub-accept-without-comment",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: demo\ndefaults: {firewall: {accept: [{port: 80, port_end: 79, comment: x}]}}",
        ["3: defaults.firewall.accept[0].port_end: found 79, expected a port after 80"],
        id="defaults-firewall-ports",
    ),
    pytest.param(
        "address: 10.1.1.2",
        "address: 10.1.1.2, port: 70000",
        ["5: hub.port: found 70000, expected a whole number from 1 to 65535"],
        id="port",
    ),
    pytest.param(
        "hub.energy.example",
        "Hub Energy",
        ['5: hub.name: found "Hub Energy", expected a host name such as "hub.energy.example"'],
        id="hubname",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: demo\ndefaults: {intervall: 5}",
        ['3: defaults.intervall: unknown key, did you mean "interval"?'],
        id="defaults-unknown",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: demo\ndefaults: {site: x}",
        [
            "3: defaults.site: unknown key, expected region, ring, critical, timezone, gateway, link, maintenance, network, firewall, interval, collector or hardening"
        ],
        id="defaults-own",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: demo\ndefaults: {ring: rest}",
        ['3: defaults.ring: found "rest", expected one of the fleet\'s rings: canary, critical or early'],
        id="defaults-ring",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: demo\ndefaults: {timezone: Mars/Olympus}",
        [
            '3: defaults.timezone: found "Mars/Olympus", expected a time zone of the IANA database, such as "Europe/Paris"'
        ],
        id="defaults-tz",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: demo\nsites: plants",
        ['3: sites: found "plants", which cannot be read as a folder: No such file or directory'],
        id="folder",
    ),
    pytest.param(
        "fleet: demo",
        "fleet: [demo",
        ["3: not YAML: did not find expected ',' or ']' (column 6)"],
        id="syntax",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), SITE_FAULTS)
def test_fault_in_site_file(
    broken_site: Callable[[str, str], list[str]], old: str, new: str, expected: list[str]
) -> None:
    assert broken_site(old, new) == [f"sites/plant-a.yml:{line}" for line in expected]


@pytest.mark.parametrize(("old", "new", "expected"), FLEET_FAULTS)
def test_fault_in_fleet_file(
    broken_fleet: Callable[[str, str], list[str]], old: str, new: str, expected: list[str]
) -> None:
    found = [line for line in broken_fleet(old, new) if line.startswith("fleet.sites.yml")]
    assert found == [f"fleet.sites.yml:{line}" for line in expected]
