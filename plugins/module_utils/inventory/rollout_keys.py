# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The keys of a site file and of a fleet file that concern rollouts."""

from __future__ import annotations

from .kinds import OPTIONAL, Choice, Key, Listing, Number, Record, Text

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = Text('a time of the day such as "22:00"', r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", literal=True)
_NODE_NAME = Text(
    'a name of up to 31 characters a-z, 0-9 and "-", such as "north"', r"[a-z0-9][a-z0-9-]{0,30}"
)
_SSH_HOST = Text(
    'a host as ssh is given it, such as "node-1.example" or "ops@10.1.0.7"',
    r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:@[A-Za-z0-9_.-]+)?",
)
_PATH = Text('a path such as "/etc/wattfleet/ssh_config"', r"[A-Za-z0-9_./~-]+")
_RATE = Number(100, 1e9, "(bytes a second)", whole=True)
_DEADLINE = Number(10, 90 * 86400, "(seconds)")


def maintenance() -> Record:
    """The mapping `maintenance` of a site file."""
    return Record(
        {
            "days": Key(
                Listing(Choice(DAYS), "a list of at least one day", minimum=1, distinct=True),
                "Days",
                "The days on which the window begins; every day when left out.",
                OPTIONAL,
                examples=(["sat", "sun"],),
            ),
            "start": Key(
                _TIME, "Start", "When it opens, by the clock on the site's wall.", examples=("22:00",)
            ),
            "end": Key(
                _TIME,
                "End",
                "When it closes; where that is not later than `start`, on the day after.",
                examples=("04:00",),
            ),
        },
        'a mapping such as "{days: [sat, sun], start: 22:00, end: 04:00}"',
    )


def link_keys() -> dict[str, Key]:
    """What a site's `link` tells rollouts."""
    return {
        "rate": Key(
            _RATE,
            "Rate",
            "Bytes a second that the link is taken to carry, until a transfer has measured it.",
            OPTIONAL,
            examples=(60000,),
        ),
        "transfer_rate": Key(
            _RATE,
            "Rate of transfers",
            "Bytes a second that the transfer of a release may take; what the link gives when left out.",
            OPTIONAL,
            examples=(30000,),
        ),
        "transfer_budget": Key(
            Number(1 << 16, 1 << 50, "(bytes)", whole=True),
            "Bytes a day",
            "What transfers of releases may take in a day (UTC); without a bound when left out.",
            OPTIONAL,
            examples=(20000000,),
        ),
        "price_per_mb": Key(
            Number(0, 1000),
            "Price",
            "What a megabyte (1,000,000 bytes) costs, in your currency; the plan of a rollout adds it up.",
            OPTIONAL,
            examples=(0.05,),
        ),
    }


def rollout() -> Record:
    """The mapping `rollout` of a fleet file."""
    deadlines = Record(
        {
            "transfer": Key(
                _DEADLINE,
                "Transfer",
                "Seconds in which a site has to have the whole image.",
                OPTIONAL,
                examples=(604800,),
            ),
            "install": Key(
                _DEADLINE,
                "Installation",
                "Seconds from the word to install until the gateway says that it has begun.",
                OPTIONAL,
                examples=(1800,),
            ),
            "reboot": Key(
                _DEADLINE,
                "Reboot",
                "Seconds from there until the gateway answers with the new version; in the soak, the longest silence. "
                "A gateway that nobody has confirmed goes back by itself after this and the soak.",
                OPTIONAL,
                examples=(900,),
            ),
        },
        "a mapping with transfer, install or reboot",
        partial=True,
    )
    node = Record(
        {
            "name": Key(_NODE_NAME, "Name", "What the node is called in the log.", examples=("north",)),
            "host": Key(
                _SSH_HOST, "Host", "The node as `ssh` is given it.", examples=("ops@node-1.example",)
            ),
            "ssh_config": Key(
                _PATH,
                "SSH configuration",
                "An OpenSSH configuration that `ssh` is given (`-F`); its own, when left out.",
                OPTIONAL,
                examples=("/etc/wattfleet/ssh_config",),
            ),
            "runner": Key(
                _PATH,
                "ansible-runner",
                "The command on the node.",
                OPTIONAL,
                "ansible-runner",
                ("/opt/wattfleet/bin/ansible-runner",),
            ),
        },
        'a mapping such as "{name: north, host: ops@node-1.example}"',
    )
    return Record(
        {
            "max_offline": Key(
                Number(1, 100000, whole=True),
                "Sites at risk at once",
                "At most so many sites are being installed, are in their soak, have failed or are silent.",
                OPTIONAL,
                examples=(10,),
            ),
            "max_failed": Key(
                Number(0, 100000, whole=True),
                "Failures",
                "More sites than this that have failed or fallen silent halt the rollout; the canary always does.",
                OPTIONAL,
                examples=(0,),
            ),
            "growth": Key(
                Number(1, 100),
                "Growth",
                "How many times larger a wave is than the one before; the first is one site.",
                OPTIONAL,
                examples=(3,),
            ),
            "soak": Key(
                Number(0, 30 * 86400, "(seconds)"),
                "Soak",
                "Seconds that a site is watched with the new release before its gate is judged.",
                OPTIONAL,
                examples=(900,),
            ),
            "patience": Key(
                Number(0, 30 * 86400, "(seconds)"),
                "Patience",
                "Seconds after the soak in which a gate may be inconclusive before the rollout holds for a person.",
                OPTIONAL,
                examples=(1800,),
            ),
            "install_time": Key(
                _DEADLINE,
                "Time of an installation",
                "Seconds that a gateway takes for it, reboot included; its window has to be open for as long.",
                OPTIONAL,
                examples=(600,),
            ),
            "deadlines": Key(
                deadlines,
                "Deadlines",
                "Silence past a deadline is a failure.",
                OPTIONAL,
                examples=({"transfer": 604800, "reboot": 900},),
            ),
            "forks": Key(
                Number(1, 500, whole=True),
                "Sites asked at once",
                "At most so many sites are asked at the same time; on each execution node, where there are several.",
                OPTIONAL,
                examples=(25,),
            ),
            "nodes": Key(
                Listing(node, "a list of at least one execution node", minimum=1),
                "Execution nodes",
                "Machines that reach the sites for the controller; without any, it does so itself.",
                OPTIONAL,
                examples=([{"name": "north", "host": "ops@node-1.example"}],),
            ),
        },
        "a mapping of the keys of rollouts",
        partial=True,
    )
