# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The site file and the fleet file: the one place that says which keys there are and what they may hold.

docs/reference/site-file.md and docs/reference/schema/*.json are written from here by
tools/generate_schema.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .collector_keys import MOMENT, collector, device_mapping
from .firewall_keys import ANY_NETWORK, accept, firewall
from .firmware_keys import fleet_firmware, site_firmware
from .gate_keys import gates
from .hardening_keys import hardening
from .kinds import (
    FLEET,
    OPTIONAL,
    Choice,
    Flag,
    Fork,
    Key,
    Kind,
    Listing,
    Number,
    OneNumber,
    Record,
    Table,
    Text,
    Variants,
)
from .network_keys import ADDRESS, PART_NAME, network
from .radio_keys import radio_meter, radios
from .rollout_keys import link_keys, maintenance, rollout

_NAME = r"[a-z0-9][a-z0-9-]{0,38}"
_POSITIVE = r"[1-9][0-9]{0,6}(?:\.[0-9]{1,4})?"
# What Jinja would take for a template; without it a value is the same to Ansible whether it is trusted or
# not.
_NO_TEMPLATE = r"(?!.*\{[{%#])"

# The inventory's own hosts and groups, and the names that Ansible gives a meaning.
RESERVED_SITES = ("all", "brokers", "critical", "gateways", "hub", "localhost", "ungrouped")

PLUGIN = "wattfleet.energy.sites"

SITE_NAME = Text(
    'a site name of up to 39 characters a-z, 0-9 and "-", such as "plant-a"', _NAME, RESERVED_SITES
)
GROUP_NAME = Text(
    'a name that starts with a letter, of up to 31 characters a-z, 0-9 and "-", such as "emea"',
    r"[a-z][a-z0-9-]{0,30}",
)
FLEET_NAME = replace(GROUP_NAME, expected=GROUP_NAME.expected.replace("emea", "northwind"))
RING_NAME = replace(GROUP_NAME, expected=GROUP_NAME.expected.replace("emea", "early"))
MODEL_NAME = Text('a model name of characters a-z, 0-9 and "-", such as "moxa-uc-8220"', _NAME)
PERSON_NAME = Text("text on one line, without a template", rf"{_NO_TEMPLATE}[^\x00-\x1f\x7f]+", limit=200)
HOST_NAME = Text(
    'a host name such as "hub.energy.example"',
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*",
    limit=253,
)
BROKER_NAME = Text(
    'a broker\'s name that starts with "broker-", of up to 31 characters a-z, 0-9 and "-", such as "broker-1"',
    r"broker-[a-z0-9][a-z0-9-]{0,22}",
)
DATABASE_NAME = Text(
    'a name that starts with a letter, of up to 31 characters a-z and 0-9, such as "second"',
    r"[a-z][a-z0-9]{0,30}",
    ("main",),
)
TIMEZONE = Text(
    'a time zone of the form Area/City such as "Europe/Paris", or "UTC"',
    r"UTC|[A-Z][A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}",
)
RATIO = Text('a ratio like "200:5"', rf"{_POSITIVE}:{_POSITIVE}", literal=True)
USER = Text('a user name such as "admin"', r"[a-z_][a-z0-9_-]{0,31}")
DEVICE = Text('a device path such as "/dev/ttyS0"', r"/dev/[A-Za-z0-9/_.:-]+")
FOLDER = Text('a folder beside the fleet file such as "sites"', r"[A-Za-z0-9_.-][A-Za-z0-9_./ -]*")
UNIT = Text('a unit in UCUM such as "Cel", "bar" or "%"', rf"{_NO_TEMPLATE}[!-~]+", limit=40)
POINT_NAME = Text('a point of the profile such as "active_power"', r"[a-z0-9]+(?:[_-][a-z0-9]+)*", limit=63)
CHANNEL_NAME = replace(PART_NAME, expected=PART_NAME.expected.replace("main", "flow-temperature"))

INTERVAL = Number(0.1, 3600, "(seconds)")
PORT = Number(1, 65535, whole=True)

ROLES = {
    "main": "the site's supply: what the utility bills",
    "consumption": "a load, part of what the supply measures",
    "generation": "solar or another source; its active power is negative while it generates",
    "storage": "a battery; its active power is positive while it charges",
    "process": "not energy: temperatures, pressures, flows",
}
LINKS = {
    "lan": "a company network: round trips of milliseconds",
    "cellular": "a mobile network: round trips of a tenth of a second, volume costs money",
    "satellite": "round trips of more than half a second",
}


@dataclass(frozen=True)
class Schemas:
    """The two schemas, for one set of profiles."""

    site: Record
    fleet: Record


def schemas(profiles: Iterable[str], payloads: Iterable[str]) -> Schemas:
    """The schemas in which a meter's profile is one of ``profiles``, or of ``payloads`` where it reports by radio."""
    site = Record(_site_keys(tuple(profiles), tuple(payloads)), "a mapping of the keys of a site file")
    return Schemas(site, Record(_fleet_keys(_partial(site)), "a mapping of the keys of a fleet file"))


def _site_keys(profiles: tuple[str, ...], payloads: tuple[str, ...]) -> dict[str, Key]:
    return {
        "site": Key(
            SITE_NAME,
            "Site",
            "The site's name: equal to the file's name without `.yml`. Also the host's name in Ansible, "
            "the common name "
            "of the gateway's certificate and its MQTT client id.",
            examples=("plant-a",),
        ),
        "name": Key(
            PERSON_NAME,
            "Name for people",
            "What people call the site; in reports and in the portal. The site's own name when left out.",
            OPTIONAL,
            examples=("Plant A, Lyon",),
        ),
        "region": Key(
            GROUP_NAME,
            "Region",
            "Makes the group `region_<region>` (with `_` for `-`).",
            FLEET,
            examples=("emea",),
        ),
        "ring": Key(
            RING_NAME,
            "Rollout ring",
            "One of the fleet's `rings`: changes reach the rings in that order. Makes the group "
            "`ring_<ring>`. "
            "A critical site cannot be in the first ring.",
            FLEET,
            examples=("early",),
        ),
        "critical": Key(
            Flag(),
            "Critical site",
            "True where an interruption costs production. Makes the group `critical`; rollouts come here "
            "last.",
            OPTIONAL,
            False,
            (True,),
        ),
        "redundancy_pair": Key(
            SITE_NAME,
            "Redundancy pair",
            "The site that takes over when this one is down; it names this one in turn. A rollout never "
            "has both "
            "in work at the same time.",
            OPTIONAL,
            examples=("plant-b",),
        ),
        "timezone": Key(
            TIMEZONE,
            "Time zone",
            "The site's time zone by its IANA name; maintenance windows and days are counted in it.",
            FLEET,
            examples=("Europe/Paris",),
        ),
        "gateway": Key(_gateway(), "Gateway", "The machine on the site that runs the collector."),
        "link": Key(
            Record(
                {
                    "type": Key(
                        Choice(tuple(LINKS), meanings=tuple(LINKS.values())),
                        "Type of link",
                        "How the site reaches the hub; time-outs and the pace of rollouts follow from "
                        "it. Makes the "
                        "group `link_<type>`. " + _meanings(LINKS),
                        FLEET,
                        examples=("cellular",),
                    )
                }
                | link_keys(),
                'a mapping such as "{type: lan}"',
            ),
            "Link",
            "The connection between the site and the hub.",
            FLEET,
            examples=({"type": "lan"},),
        ),
        "maintenance": Key(
            maintenance(),
            "Maintenance window",
            "When a rollout may interrupt the site, in local time by its `timezone`; transfers are not bound to it. "
            "At any time, when left out.",
            OPTIONAL,
            examples=({"days": ["sat", "sun"], "start": "22:00", "end": "04:00"},),
        ),
        "network": Key(network(), "Networks", "The gateway's networks. They do not overlap."),
        "firewall": Key(
            firewall(),
            "Packet filter",
            "What the packet filter lets through besides SSH from the management networks and from the hub. Nothing "
            "here opens the energy network.",
            OPTIONAL,
            examples=({"output": "restricted"},),
        ),
        "interval": Key(
            INTERVAL,
            "Polling interval",
            "Seconds between two polls of a meter, unless the meter has its own.",
            OPTIONAL,
            10,
            (10,),
        ),
        "buses": Key(
            Listing(_bus(), "a list of at least one bus", minimum=1),
            "Buses",
            "The connections to meters: one entry for each Modbus TCP device, serial gateway or serial port. "
            "Every bus has one master, the gateway's collector.",
        ),
        "radios": radios(),
        "meters": Key(
            Listing(_meter(profiles, payloads), "a list of at least one meter", minimum=1),
            "Meters",
            "Every meter, inverter, battery or analogue input module that is read, and every device that reports by "
            "radio: with `bus` and `unit`, or with `radio` and `device`.",
        ),
        "collector": Key(
            collector(),
            "Collector",
            "Settings of the collector; what is left out is as the collector's own default.",
            OPTIONAL,
            examples=({"buffer": {"commit_interval": 10}},),
        ),
        "device_mapping": Key(
            device_mapping(),
            "Calibrations",
            "Multipliers and offsets by point, each from a moment on. They take effect at once; the raw "
            "value is kept beside the corrected one.",
            OPTIONAL,
            examples=({"main/active_power": [{"from": "2026-01-31T12:00:00Z", "multiplier": 1.02}]},),
        ),
        "hardening": hardening("gateway"),
        "firmware": site_firmware(),
    }


def _meanings(words: dict[str, str]) -> str:
    return "; ".join(f"`{word}`: {meaning}" for word, meaning in words.items()) + "."


def _gateway() -> Record:
    return Record(
        {
            "model": Key(
                MODEL_NAME,
                "Model",
                "The gateway's product name. Makes the group `model_<model>` (with `_` for `-`).",
                FLEET,
                examples=("moxa-uc-8220",),
            ),
            "address": Key(
                ADDRESS,
                "Management address",
                "Where SSH reaches the gateway (`ansible_host`). Not in the energy network, and no other "
                "site's.",
                examples=("10.20.4.11",),
            ),
        },
        "a mapping with model and address",
    )


def _bus() -> Variants:
    def record(kind: str, meaning: str, keys: dict[str, Key]) -> Record:
        start = {
            "name": Key(PART_NAME, "Name", "The bus's name, unique in the site.", examples=("hall",)),
            "type": Key(Choice((kind,)), "Type", meaning, examples=(kind,)),
        }
        timeout = Key(
            Number(0.05, 30, "(seconds)"),
            "Time-out",
            "Seconds to wait for an answer.",
            OPTIONAL,
            1.0,
            (1.0,),
        )
        gap = Key(
            Number(0, 1, "(seconds)"),
            "Request gap",
            "Seconds of rest between two requests, for devices that need it.",
            OPTIONAL,
            examples=(0.05,),
        )
        end = {"timeout": timeout, "request_gap": gap}
        return Record(start | keys | end, f"a mapping of the keys of a bus of type {kind}")

    socket = {
        "host": Key(
            ADDRESS,
            "Host",
            "The device's address, in the energy network.",
            examples=("192.168.10.20",),
        ),
        "port": Key(PORT, "Port", "The device's TCP port.", OPTIONAL, 502, (502,)),
        "connect_delay": Key(
            Number(0, 10, "(seconds)"),
            "Connect delay",
            "Seconds between the connection and the first request, for gateways that need it.",
            OPTIONAL,
            examples=(0.1,),
        ),
    }
    pipeline = Key(
        Number(1, 16, whole=True),
        "Requests under way",
        "How many requests may be under way at once. More than 1 only where the device allows it; a serial "
        "gateway does not.",
        OPTIONAL,
        examples=(4,),
    )
    serial = {
        "device": Key(DEVICE, "Device", "The serial port.", examples=("/dev/ttyS0",)),
        "baudrate": Key(
            OneNumber((1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)),
            "Baud rate",
            "Bits a second; the same on every device of the bus.",
            OPTIONAL,
            9600,
            (19200,),
        ),
        "parity": Key(
            Choice(("N", "E", "O")),
            "Parity",
            "`N` none, `E` even, `O` odd; the same on every device of the bus.",
            OPTIONAL,
            "N",
            ("E",),
        ),
        "stopbits": Key(OneNumber((1, 2)), "Stop bits", "Stop bits.", OPTIONAL, 1, (1,)),
    }
    return Variants(
        "type",
        {
            "modbus-tcp": record(
                "modbus-tcp",
                "Modbus TCP: a device or a gateway that speaks Modbus TCP.",
                socket | {"pipeline": pipeline},
            ),
            "rtu-over-tcp": record(
                "rtu-over-tcp", "RTU frames through a TCP connection: a transparent serial server.", socket
            ),
            "rtu": record("rtu", "RTU on a serial port of the gateway.", serial),
        },
        "a mapping of the keys of a bus",
    )


def _meter(profiles: tuple[str, ...], payloads: tuple[str, ...]) -> Fork:
    on_bus = _bus_meter(profiles)
    return Fork("radio", radio_meter(payloads, on_bus.keys), on_bus, "a mapping of the keys of a meter")


def _bus_meter(profiles: tuple[str, ...]) -> Record:
    ratio = "Where the meter itself is programmed with the ratio, leave it out."
    return Record(
        {
            "name": Key(
                PART_NAME,
                "Name",
                "The meter's name, unique in the site; points are named `<meter>/<point>`.",
                examples=("main",),
            ),
            "bus": Key(PART_NAME, "Bus", "The name of one of the site's buses.", examples=("hall",)),
            "unit": Key(
                Number(0, 255, whole=True, gap=(248, 254)),
                "Modbus unit",
                "The Modbus unit id, 1 to 247; 0 and 255 only on a bus of type `modbus-tcp`. No two "
                "meters of a bus "
                "have the same.",
                examples=(1,),
            ),
            "profile": Key(
                Choice(profiles, "a profile"),
                "Profile",
                "The register map of the meter's model.",
                examples=("eastron-sdm630",),
            ),
            "role": Key(
                Choice(tuple(ROLES), meanings=tuple(ROLES.values())),
                "Role",
                "What the meter measures for the site. `generation` puts the site into the group "
                "`has_solar`, "
                "`storage` into `has_storage`. " + _meanings(ROLES),
                OPTIONAL,
                "consumption",
                ("generation",),
            ),
            "since": Key(
                MOMENT,
                "Since",
                "From when on the meter is as it stands here, in UTC: installed, exchanged, or with other "
                "transformers. The hub counts no energy across it. From when the hub has the file, when left out.",
                OPTIONAL,
                examples=("2026-03-03T09:40:00Z",),
            ),
            "interval": Key(
                INTERVAL,
                "Polling interval",
                "Seconds between two polls of this meter; the site's `interval` when left out.",
                OPTIONAL,
                examples=(1,),
            ),
            "points": Key(
                Listing(POINT_NAME, "a list of at least one point", minimum=1, distinct=True),
                "Points",
                "The points that are read; all of the profile when left out.",
                OPTIONAL,
                examples=(["active_power", "energy_import"],),
            ),
            "report": Key(
                Number(1, 86400, "(seconds)"),
                "Reporting interval",
                "Mean, lowest, highest and RMS over so many seconds travel instead of each sample. A multiple "
                "of the polling interval.",
                OPTIONAL,
                examples=(60,),
            ),
            "raw": Key(
                Listing(POINT_NAME, "a list of at least one point", minimum=1, distinct=True),
                "Raw points",
                "Points whose every sample travels all the same; only together with `report`.",
                OPTIONAL,
                examples=(["active_power"],),
            ),
            "nominal_voltage": Key(
                Number(1, 1e6, "(V)"),
                "Nominal voltage",
                "Phase to neutral. With it voltage sags, swells, interruptions and unbalance are reported.",
                OPTIONAL,
                examples=(230,),
            ),
            "max_power": Key(
                Number(1, 1e10, "(W)"),
                "Highest power",
                "What can flow here at most: tells a counter that rolls over from one that was reset.",
                OPTIONAL,
                examples=(250000,),
            ),
            "ct_ratio": Key(
                RATIO,
                "Current transformer ratio",
                f"Primary to secondary current; the collector multiplies. {ratio}",
                OPTIONAL,
                examples=("200:5",),
            ),
            "pt_ratio": Key(
                RATIO,
                "Voltage transformer ratio",
                f"Primary to secondary voltage; the collector multiplies. {ratio}",
                OPTIONAL,
                examples=("11000:110",),
            ),
            "reverse": Key(
                Flag(),
                "Reversed",
                "True where the meter counts the other way round than the site: its powers change sign, "
                "and its import "
                "and export change places.",
                OPTIONAL,
                False,
                (True,),
            ),
            "channels": Key(
                Table(CHANNEL_NAME, _channel(), "a mapping of at least one channel"),
                "Analogue channels",
                "Only for profiles with analogue inputs, and needed there: a channel for each input in "
                "use, by a name "
                "that becomes the point's.",
                OPTIONAL,
                examples=(
                    {
                        "flow-temperature": {
                            "input": 1,
                            "signal": "4-20mA",
                            "low": 0,
                            "high": 150,
                            "unit": "Cel",
                        }
                    },
                ),
            ),
        },
        "a mapping of the keys of a meter",
    )


def _channel() -> Record:
    wide = Number(-1e9, 1e9)
    return Record(
        {
            "input": Key(
                Number(1, 64, whole=True),
                "Input",
                "The input's number, counted from 1.",
                examples=(1,),
            ),
            "signal": Key(
                Choice(("4-20mA", "0-10V")),
                "Signal",
                "The electrical signal. Below 3.6 mA a 4-20 mA input reports a broken wire.",
                examples=("4-20mA",),
            ),
            "low": Key(wide, "Low end", "The value at 4 mA or 0 V.", examples=(0,)),
            "high": Key(wide, "High end", "The value at 20 mA or 10 V; not equal to `low`.", examples=(150,)),
            "unit": Key(UNIT, "Unit", "The value's unit in UCUM.", examples=("Cel",)),
        },
        'a mapping such as "{input: 1, signal: 4-20mA, low: 0, high: 150, unit: Cel}"',
    )


# What one site alone can have; a default for it would be wrong for every other site.
_NO_DEFAULT = {
    "": ("site", "name", "redundancy_pair", "buses", "radios", "meters", "device_mapping", "firmware"),
    ".gateway": ("address",),
    ".network": ("others",),
    ".network.wan": ("address", "addresses", "gateway", "gateway6", "routes"),
    ".network.energy": ("addresses",),
}


def _partial(record: Record, path: str = "") -> Record:
    keys: dict[str, Key] = {}
    for name, key in record.keys.items():
        if name in _NO_DEFAULT.get(path, ()):
            continue
        kind: Kind = key.kind
        if isinstance(kind, Record):
            kind = _partial(kind, f"{path}.{name}")
        keys[name] = replace(key, kind=kind, presence=OPTIONAL, default=None)
    return Record(keys, record.expected, partial=True)


def _broker() -> Record:
    return Record(
        {
            "name": Key(
                BROKER_NAME,
                "Name",
                "The broker's name in the inventory, in logs, and in front of the brokers' domain.",
                examples=("broker-1",),
            ),
            "address": Key(
                ADDRESS, "Address", "The broker's address, as the hub reaches it.", examples=("10.1.0.21",)
            ),
        },
        'a mapping such as "{name: broker-1, address: 10.1.0.21}"',
    )


def _database() -> Record:
    return Record(
        {
            "name": Key(
                DATABASE_NAME,
                "Name",
                "The database's name in the directory, and that of its PostgreSQL cluster on the hub. It stays: the "
                "database remembers it.",
                examples=("second",),
            ),
            "port": Key(
                Number(1024, 65535, whole=True),
                "Port",
                "Names the cluster's local socket; nothing listens on the network. `main` has 5432.",
                examples=(5433,),
            ),
        },
        'a mapping such as "{name: second, port: 5433}"',
    )


def _fleet_keys(defaults: Record) -> dict[str, Key]:
    defaults = replace(defaults, expected="a mapping of keys of a site file that sites may leave out")
    management = Record(
        {
            "networks": Key(
                Listing(ANY_NETWORK, "a list of at least one network", minimum=1, distinct=True),
                "Management networks",
                "Who may reach the gateways and the hub by SSH; the controller's own address has to be in one of them.",
                examples=(["10.1.0.0/24"],),
            ),
            "rescue": Key(
                Listing(ANY_NETWORK, "a list of at least one network", minimum=1, distinct=True),
                "Way in of last resort",
                "Networks whose SSH is let through before every other rule, and without a limit: a stand-by machine "
                "that gets in when the rest of the rules is wrong.",
                OPTIONAL,
                examples=(["192.0.2.64/32"],),
            ),
            "user": Key(
                USER,
                "User",
                "The user that Ansible logs in as; sudo without a password (`ansible_user`).",
                examples=("admin",),
            ),
        },
        "a mapping with networks and user",
    )
    hub = Record(
        {
            "name": Key(
                HOST_NAME,
                "Name",
                "The hub's host name: in its certificate, and pinned on every gateway.",
                examples=("hub.energy.example",),
            ),
            "address": Key(
                ADDRESS,
                "Address",
                "The hub's address, as the sites reach it (`ansible_host` of the host `hub`).",
                examples=("10.1.0.2",),
            ),
            "port": Key(PORT, "Port", "The broker's port.", OPTIONAL, 8883, (8883,)),
            "time_servers": Key(
                Listing(HOST_NAME, "a list of at least one server", minimum=1, distinct=True),
                "Time servers",
                "Servers of the company that the hub takes the time from (NTP), by name or IPv4 address; the "
                "gateways take it from the hub. Left out, the hub's own clock is the time of the fleet.",
                OPTIONAL,
                examples=(["ntp.example"],),
            ),
            "brokers_domain": Key(
                HOST_NAME,
                "Domain of the brokers",
                "Gateways dial `<site>.<this domain>` instead of the hub's name, and the brokers' certificates "
                "bear the wildcard: what a balancer tells the sites by. Has to be in the domain of the hub's "
                "name, for which alone the fleet's authority is good.",
                OPTIONAL,
                examples=("brokers.energy.example",),
            ),
            "brokers": Key(
                Listing(_broker(), "a list of at least one broker", minimum=1, distinct=True),
                "Brokers",
                "Machines of their own that the brokers run on; on the hub is then a balancer in front of them. Left "
                "out, the hub runs the one broker. Needs `brokers_domain`.",
                OPTIONAL,
                examples=([{"name": "broker-1", "address": "10.1.0.21"}],),
            ),
            "databases": Key(
                Listing(_database(), "a list of at least one database", minimum=1, distinct=True),
                "Further databases",
                "PostgreSQL clusters of the hub beside `main`, each with a part of the sites; `main` says where each "
                "site lives. A new site goes to the one with the fewest. Left out, `main` has all.",
                OPTIONAL,
                examples=([{"name": "second", "port": 5433}],),
            ),
            "accept": accept(),
            "hardening": hardening("hub"),
        },
        "a mapping with name and address",
    )
    return {
        "plugin": Key(
            Choice((PLUGIN,)),
            "Inventory plugin",
            f"Always `{PLUGIN}`: tells Ansible which plugin reads this file.",
            examples=(PLUGIN,),
        ),
        "fleet": Key(FLEET_NAME, "Fleet", "The fleet's name.", examples=("northwind",)),
        "sites": Key(
            FOLDER,
            "Folder of sites",
            "The folder with a file for each site, beside the fleet file.",
            OPTIONAL,
            "sites",
            ("sites",),
        ),
        "rings": Key(
            Listing(RING_NAME, "a list of at least one ring", minimum=1, distinct=True),
            "Rollout rings",
            "The rings in the order in which a change reaches them. The first is the canary ring and "
            "takes no "
            "critical site.",
            examples=(["canary", "early", "main", "critical"],),
        ),
        "management": Key(management, "Management", "How the controller reaches the gateways."),
        "hub": Key(hub, "Hub", "The machine that the gateways deliver to."),
        "firmware": fleet_firmware(MODEL_NAME),
        "rollout": Key(
            rollout(),
            "Rollouts",
            "The limits of rollouts; what is left out is as `wattfleet rollout plan --help` says.",
            OPTIONAL,
            examples=({"max_offline": 10, "soak": 900},),
        ),
        "defaults": Key(
            defaults,
            "Defaults",
            "Keys of a site file that a site may leave out, with what they then are. Mappings are merged "
            "key by key.",
            OPTIONAL,
            examples=({"interval": 10, "timezone": "Europe/Paris"},),
        ),
        "gates": gates(),
    }
