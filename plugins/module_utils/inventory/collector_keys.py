# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a site file may say about its collector, beyond buses and meters.

The meanings are those of docs/reference/gateway-configuration.md; what is left out is the collector's default.
"""

from __future__ import annotations

from .kinds import OPTIONAL, Flag, Key, Listing, Number, Record, Table, Text

_YEARS = 3.2e9
POINT = Text('a point such as "main/active_power"', r"[a-z0-9]+(-[a-z0-9]+)*/[a-z0-9]+([_-][a-z0-9]+)*")
MOMENT = Text(
    'a time in UTC such as "2026-01-31T12:00:00Z"', r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", literal=True
)
NOTE = Text("a text on one line", r"(?!.*\{[{%#])[^\x00-\x1f]+", limit=200)


def collector() -> Record:
    """The settings of the collector as a whole."""
    return Record(
        {
            "buffer": Key(_buffer(), "Buffer", "Where readings wait for the hub.", OPTIONAL),
            "batch": Key(_batch(), "Batches", "How readings travel.", OPTIONAL),
            "delivery": Key(_delivery(), "Delivery", "How a backlog is delivered.", OPTIONAL),
            "sources": Key(_sources(), "Other sources", "Readings that come from no bus.", OPTIONAL),
            "metrics": Key(_metrics(), "Metrics", "Metrics for Prometheus, on loopback.", OPTIONAL),
        },
        "a mapping with buffer, batch, delivery, sources or metrics",
        partial=True,
    )


def _buffer() -> Record:
    return Record(
        {
            "commit_interval": Key(
                Number(1, 10, "(seconds)"),
                "Commit interval",
                "At most so many seconds of readings are lost at a power cut. 10 is kind to SD cards.",
                OPTIONAL,
                examples=(10,),
            ),
            "max_bytes": Key(
                Number(1 << 20, 1 << 50, "(bytes)", whole=True),
                "Bound in bytes",
                "What the buffer may take of the disk; beyond it the oldest readings are dropped, and counted.",
                OPTIONAL,
                examples=(536870912,),
            ),
            "max_age": Key(
                Number(60, _YEARS, "(seconds)"),
                "Bound in age",
                "How old readings may become in the buffer.",
                OPTIONAL,
                examples=(7776000,),
            ),
            "keep_age": Key(
                Number(0, _YEARS, "(seconds)"),
                "Kept after delivery",
                "How long the gateway keeps what the hub has: a hub that was restored from a backup gets it again. "
                "A week, when left out.",
                OPTIONAL,
                examples=(604800,),
            ),
            "keep_bytes": Key(
                Number(0, 1 << 50, "(bytes)", whole=True),
                "Bound in bytes of what is kept",
                "Nothing that the hub has is kept while the buffer is larger.",
                OPTIONAL,
                examples=(134217728,),
            ),
        },
        "a mapping with commit_interval, max_bytes, max_age, keep_age or keep_bytes",
        partial=True,
    )


def _batch() -> Record:
    return Record(
        {
            "interval": Key(
                Number(1, 60, "(seconds)"),
                "Batch interval",
                "Seconds that a batch spans at most: long batches are small on the wire, short ones are early.",
                OPTIONAL,
                examples=(60,),
            ),
            "resend": Key(
                Number(1, 3600, "(seconds)"),
                "Resend",
                "Seconds without the hub's acknowledgement after which a batch is sent again.",
                OPTIONAL,
                examples=(30,),
            ),
        },
        "a mapping with interval or resend",
        partial=True,
    )


def _delivery() -> Record:
    return Record(
        {
            "backlog_rate": Key(
                Number(1, 1e9, "(readings a second)"),
                "Rate of the backlog",
                "How fast what an outage has left is delivered behind the live readings.",
                OPTIONAL,
                examples=(2000,),
            ),
            "backlog_start": Key(
                Number(0, 3600, "(seconds)"),
                "Start of the backlog",
                "The backlog starts at a random moment within so many seconds, so that sites that come back "
                "together do not drown the hub.",
                OPTIONAL,
                examples=(30,),
            ),
        },
        "a mapping with backlog_rate or backlog_start",
        partial=True,
    )


def _sources() -> Record:
    def source(what: str) -> Record:
        return Record(
            {
                "interval": Key(
                    Number(1, 3600, "(seconds)"),
                    "Interval",
                    f"Seconds between two looks at {what}.",
                    OPTIONAL,
                ),
                "enabled": Key(Flag(), "Enabled", "False switches the source off.", OPTIONAL),
            },
            "a mapping with interval or enabled",
            partial=True,
        )

    return Record(
        {
            "hwmon": Key(
                source("the kernel's sensors"),
                "Sensors",
                "Temperatures and other sensors of /sys/class/hwmon.",
                OPTIONAL,
                examples=({"interval": 60},),
            ),
            "host": Key(
                source("the gateway"),
                "Gateway's health",
                "Load, memory, disk and clock of the gateway itself.",
                OPTIONAL,
                examples=({"enabled": False},),
            ),
            "buses": Key(
                source("the buses' counters"),
                "Buses' health",
                "Requests, errors and connections of each bus, which the gates of a rollout look at.",
                OPTIONAL,
                examples=({"interval": 60},),
            ),
        },
        "a mapping with hwmon, host or buses",
        partial=True,
    )


def _metrics() -> Record:
    return Record(
        {
            "port": Key(
                Number(1, 65535, whole=True), "Port", "The TCP port on loopback.", OPTIONAL, examples=(9105,)
            )
        },
        "a mapping with port",
        partial=True,
    )


def device_mapping() -> Table:
    """Calibrations by sensor."""
    entry = Record(
        {
            "from": Key(
                MOMENT, "From", "When it begins to hold, in UTC.", examples=("2026-01-31T12:00:00Z",)
            ),
            "multiplier": Key(
                Number(-1e6, 1e6), "Multiplier", "The value is multiplied by it.", OPTIONAL, 1, (1.02,)
            ),
            "offset": Key(
                Number(-1e12, 1e12), "Offset", "Then added, in the point's unit.", OPTIONAL, 0, (-3.5,)
            ),
            "note": Key(
                NOTE, "Note", "Who calibrated it, and against what.", OPTIONAL, examples=("Fluke 376",)
            ),
        },
        'a mapping such as "{from: 2026-01-31T12:00:00Z, multiplier: 1.02}"',
    )
    return Table(
        POINT, Listing(entry, "a list of at least one calibration", minimum=1), "a mapping of points"
    )
