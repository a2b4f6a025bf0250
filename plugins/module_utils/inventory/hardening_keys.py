# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The keys of a site file and of a fleet file that concern hardening."""

from __future__ import annotations

from .kinds import OPTIONAL, Choice, Flag, Key, Listing, Number, Record, Text

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = Text(
    '"loopback", or an IPv4 address such as "192.168.10.10"', rf"loopback|(?:{_OCTET}\.){{3}}{_OCTET}"
)
_PORT = Number(1, 65535, whole=True)
_PROCESS = Text(
    'the name of a process, up to 15 characters as `ss -lntup` shows it, such as "portal"',
    r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,14}",
)


def hardening(machine: str) -> Key:
    return Key(
        _record(),
        "Hardening",
        f"What hardening leaves to you on this {machine}; what is left out is as the role's own default.",
        OPTIONAL,
        examples=({"unattended_upgrades": True},),
    )


def _record() -> Record:
    listener = Record(
        {
            "protocol": Key(Choice(("tcp", "udp")), "Protocol", "`tcp` or `udp`.", OPTIONAL, "tcp", ("tcp",)),
            "port": Key(_PORT, "Port", "The port that it listens on.", examples=(8080,)),
            "process": Key(
                _PROCESS,
                "Process",
                "Only this process may; any, when left out.",
                OPTIONAL,
                examples=("portal",),
            ),
            "address": Key(
                _ADDRESS,
                "Address",
                "Only on this address; `loopback` is the machine itself. Any, when left out.",
                OPTIONAL,
                examples=("loopback",),
            ),
        },
        'a mapping such as "{protocol: tcp, port: 8080, process: portal}"',
    )
    return Record(
        {
            "unattended_upgrades": Key(
                Flag(),
                "Unattended upgrades",
                "True to have security updates installed every day, by the machine itself and outside of any "
                "rollout. It never reboots by itself.",
                OPTIONAL,
                examples=(True,),
            ),
            "listeners": Key(
                Listing(listener, "a list of at least one listener", minimum=1, distinct=True),
                "Listeners",
                "What else may listen. A listener that nobody has declared is refused, or masked. The firewall "
                "lets nobody in because of it.",
                OPTIONAL,
                examples=([{"port": 8080, "process": "portal", "address": "loopback"}],),
            ),
            "mask_undeclared": Key(
                Flag(),
                "Mask what is undeclared",
                "True to have any unit stopped and masked that listens and is not declared; otherwise only the "
                "well-known ones are (FTP, Telnet, Avahi and the like), and the run stops at the others.",
                OPTIONAL,
                examples=(True,),
            ),
        },
        'a mapping such as "{unattended_upgrades: true}"',
    )
