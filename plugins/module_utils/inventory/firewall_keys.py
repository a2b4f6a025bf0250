# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The keys of a site file and of a fleet file that concern the packet filter."""

from __future__ import annotations

from .kinds import OPTIONAL, Choice, Flag, Key, Listing, Number, Record, Text

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}/(?:3[0-2]|[12]?[0-9])"
# No more than the alphabet: a pattern for every spelling of IPv6 would be longer than this file.
_IPV6 = r"[0-9a-f:]*:[0-9a-f:]*/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"

ANY_NETWORK = Text(
    'an IPv4 or IPv6 network such as "192.168.10.0/24" or "2001:db8::/64"', rf"{_IPV4}|{_IPV6}"
)
_PURPOSE = Text(
    "text on one line, without quotes, backslashes and templates",
    r"""(?!.*\{[{%#])[^\x00-\x1f\x7f"\\]+""",
    limit=100,
)
_PORT = Number(1, 65535, whole=True)
OUTPUTS = {
    "open": "the gateway may begin any connection by its WAN",
    "restricted": "only to the hub, to the site's name servers, to package sources if `updates` is true, and to what "
    "`output_accept` names",
}


def _networks() -> Listing:
    return Listing(ANY_NETWORK, "a list of at least one network", minimum=1, distinct=True)


def _rule(far_end: str, far_ends: str, port: int, comment: str) -> Record:
    """One accepted port; `far_end` is the key of the networks at the other end, and `far_ends` says what they are."""
    return Record(
        {
            "port": Key(_PORT, "Port", "The port, or the first of several.", examples=(port,)),
            "port_end": Key(_PORT, "Last port", "The last of several ports.", OPTIONAL, examples=(port + 9,)),
            "protocol": Key(Choice(("tcp", "udp")), "Protocol", "TCP or UDP.", OPTIONAL, "tcp", ("udp",)),
            far_end: Key(_networks(), far_end.capitalize(), far_ends, OPTIONAL, examples=(["10.1.0.0/24"],)),
            "comment": Key(
                _PURPOSE,
                "Comment",
                "What it is for; `nft list table inet wattfleet` shows it beside the rule.",
                examples=(comment,),
            ),
        },
        f'a mapping such as "{{port: {port}, comment: {comment}}}"',
    )


def accept() -> Key:
    """Ports that are open, on a gateway or on the hub."""
    kind = Listing(
        _rule(
            "sources", "Networks that it is accepted from; from everywhere when left out.", 9105, "metrics"
        ),
        "a list of ports",
    )
    return Key(
        kind,
        "Open ports",
        "What is accepted besides SSH from the management networks; never from the energy network.",
        OPTIONAL,
        examples=([{"port": 9105, "sources": ["10.1.0.0/24"], "comment": "metrics"}],),
    )


def firewall() -> Record:
    """The mapping `firewall` of a site file."""
    return Record(
        {
            "accept": accept(),
            "output": Key(
                Choice(tuple(OUTPUTS), meanings=tuple(OUTPUTS.values())),
                "Outgoing connections",
                "What the gateway itself may begin. To the energy network it is always Modbus and ping only. "
                + "; ".join(f"`{word}`: {meaning}" for word, meaning in OUTPUTS.items())
                + ".",
                OPTIONAL,
                examples=("restricted",),
            ),
            "output_accept": Key(
                Listing(
                    _rule(
                        "destinations", "Networks that it may go to; everywhere when left out.", 514, "syslog"
                    ),
                    "a list of ports",
                ),
                "Outgoing ports",
                "What may be begun besides, with `output: restricted`.",
                OPTIONAL,
                examples=(
                    [{"port": 51820, "protocol": "udp", "comment": "tunnel to the operations centre"}],
                ),
            ),
            "updates": Key(
                Flag(),
                "Package sources",
                "With `output: restricted`: true where the gateway fetches packages itself, over HTTP and HTTPS.",
                OPTIONAL,
                examples=(True,),
            ),
            "forwarding": Key(
                Flag(),
                "Forwarding",
                "True where the gateway forwards for others, such as a container engine's networks. Never to or from "
                "the energy network.",
                OPTIONAL,
                examples=(True,),
            ),
            "reverse_path": Key(
                Choice(("strict", "loose")),
                "Return path",
                "`strict` drops a source that would be answered by another interface than it came in by; `loose` is "
                "for sites with several uplinks whose routing is not symmetric.",
                OPTIONAL,
                examples=("loose",),
            ),
        },
        "a mapping of the keys of the packet filter",
    )
