# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The keys of a fleet file and of a site file that concern releases of firmware."""

from __future__ import annotations

from ..firmware import needs as gateways
from .kinds import OPTIONAL, Choice, Flag, Key, Listing, Number, Record, Table, Text

_NO_TEMPLATE = r"(?!.*\{[{%#])"
_WORD = Text(
    'a word of a command, such as "firmware-update" or "{image}"',
    rf"{_NO_TEMPLATE}[^\x00-\x1f\x7f]+",
    limit=200,
)
_KEY = Text("an Ed25519 public key, 32 bytes in base64", r"[A-Za-z0-9+/]{43}=")
_PATTERN = Text(
    'a regular expression with one group, such as "([0-9.]+)"', rf"{_NO_TEMPLATE}[^\x00-\x1f\x7f]+", limit=200
)
_PLACE = Text(
    'an absolute path such as "/tmp/{name}"',
    r"(?!.*/\.\.(?:/|$))(?:/(?:[A-Za-z0-9._-]|\{name\})+)+",
    limit=200,
)
_WRITTEN = Text('a file or folder such as "/boot", not "/" itself', gateways.PATH, limit=200)
_DEVICE = Text('a device such as "/dev/mtd0" or "block-loop"', gateways.DEVICE, limit=200)
_CAPABILITY = Text('a capability such as "CAP_SYS_ADMIN"', r"CAP_[A-Z_]+")
REBOOTS = {
    "command": "Wattfleet restarts it",
    "itself": "the tool does",
    "none": "it needs none",
}


def _command(title: str, description: str, example: str, *, needed: bool = False) -> Key:
    words = Listing(_WORD, "a command as a list of words", minimum=1)
    examples = (["firmware-update", *example.split()],)
    return (
        Key(words, title, description, examples=examples)
        if needed
        else Key(words, title, description, OPTIONAL, examples=examples)
    )


def _needs() -> Record:
    """What the tool needs beyond what the gateway's units leave to every tool."""
    return Record(
        {
            "write": Key(
                Listing(_WRITTEN, "a list of paths", distinct=True),
                "Writes",
                "Files and folders that the tool writes. The image's folder, `/tmp`, `/var/tmp` and `/run/lock` need "
                "not be named; all else is read-only for it.",
                OPTIONAL,
                examples=(["/boot", "/data/slots"],),
            ),
            "devices": Key(
                Listing(_DEVICE, "a list of devices", distinct=True),
                "Devices",
                "Devices that the tool opens, as nodes below `/dev` or by their drivers' names in `/proc/devices` with "
                "`block-` or `char-` before them. Without it there are none. Adds 0.1 to the exposure.",
                OPTIONAL,
                examples=(["/dev/mtd0", "/dev/mmcblk0p3", "block-loop"],),
            ),
            "capabilities": Key(
                Listing(_CAPABILITY, "a list of capabilities", distinct=True),
                "Capabilities",
                "Capabilities of root that the tool uses, as capabilities(7) names them, and with them the calls that "
                "are of no use without: `CAP_SYS_ADMIN` lets it mount. Adds up to 0.5 each to the exposure.",
                OPTIONAL,
                examples=(["CAP_SYS_ADMIN"],),
            ),
            "network": Key(
                Flag(),
                "Network",
                "Whether the tool talks over IP, be it to its own host. Adds 0.9 to the exposure.",
                OPTIONAL,
                examples=(True,),
            ),
            "everything": Key(
                Flag(),
                "Everything",
                "For a tool that nobody can describe: it has no limits, and the exposure is 9.6. Nothing else is said "
                "beside it.",
                OPTIONAL,
                examples=(True,),
            ),
        },
        gateways.EXPECTED,
    )


def adapter() -> Record:
    """How the tool of a model's vendor is driven."""
    return Record(
        {
            "install": _command(
                "Install",
                "Installs an image; `{image}` is its path, `{version}` the version that is meant. Ends with 0 once the "
                "device may be restarted.",
                "install {image}",
                needed=True,
            ),
            "version": _command("Version", "Prints the version that runs.", "version", needed=True),
            "back": _command(
                "Back", "Makes the device run what it ran before, after a restart.", "rollback", needed=True
            ),
            "confirm": _command(
                "Confirm",
                "Makes what runs stay, on devices that would go back by themselves.",
                "confirm",
            ),
            "cancel": _command(
                "Cancel",
                "Gives up an installation that failed, so that the next boot starts what runs now.",
                "cancel",
            ),
            "model": _command(
                "Model",
                "Prints the device's model; where it is not `gateway.model`, nothing is installed.",
                "model",
            ),
            "needs": Key(
                _needs(),
                "Needs",
                "What the tool needs beyond what the gateway's units leave to every tool, for all of its commands. "
                "`{}` for the client of a daemon that writes the flash itself, such as `rauc` or `swupdate-client`.",
                examples=({}, {"write": ["/boot"], "devices": ["/dev/mmcblk0p3"]}),
            ),
            "version_pattern": Key(
                _PATTERN,
                "Version pattern",
                "Finds the version in what `version` prints; the first number with dots when left out.",
                OPTIONAL,
                examples=("release ([0-9.]+)",),
            ),
            "timeout": Key(
                Number(1, 21600, "(seconds)"),
                "Time-out",
                "Seconds after which an installation that has not ended is stopped; 900 when left out.",
                OPTIONAL,
                examples=(1800,),
            ),
            "reboot": Key(
                Choice(tuple(REBOOTS), meanings=tuple(REBOOTS.values())),
                "Restart",
                "Who restarts the device after an installation, `command` when left out. "
                + "; ".join(f"`{word}`: {meaning}" for word, meaning in REBOOTS.items())
                + ".",
                OPTIONAL,
                examples=("itself",),
            ),
            "image": Key(
                _PLACE,
                "Place of the image",
                "Where the image has to lie; `{name}` is its file name. `/tmp/{name}` when left out. Where `/tmp` is a "
                "small tmpfs, name another place.",
                OPTIONAL,
                examples=("/srv/firmware/{name}",),
            ),
        },
        "a mapping with install, version, back and needs",
    )


def site_firmware() -> Key:
    """The mapping `firmware` of a site file."""
    record = Record(
        {
            "adapter": Key(
                adapter(),
                "Adapter",
                "How this gateway's tool is driven, where it is not as its model's.",
                OPTIONAL,
                examples=(
                    {
                        "install": ["vendor-update", "{image}"],
                        "version": ["vendor-version"],
                        "back": ["vendor-back"],
                        "needs": {"devices": ["/dev/mtd0"]},
                    },
                ),
            )
        },
        "a mapping with adapter",
    )
    return Key(
        record,
        "Firmware",
        "What differs from the fleet file's `firmware` at this site.",
        OPTIONAL,
        examples=(
            {
                "adapter": {
                    "install": ["vendor-update", "{image}"],
                    "version": ["vendor-version"],
                    "back": ["vendor-back"],
                    "needs": {"devices": ["/dev/mtd0"]},
                }
            },
        ),
    )


def fleet_firmware(model: Text) -> Key:
    """The mapping `firmware` of a fleet file."""
    trust = Record(
        {
            "threshold": Key(
                Number(1, 10, whole=True),
                "Threshold",
                "How many different keys have to have signed a release.",
                examples=(2,),
            ),
            "keys": Key(
                Listing(_KEY, "a list of at least one public key", minimum=1, distinct=True),
                "Keys",
                "The public keys of those who may sign, as `wattfleet release keygen` prints them.",
                examples=(["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="],),
            ),
        },
        "a mapping with threshold and keys",
    )
    record = Record(
        {
            "trust": Key(trust, "Trust", "Who may sign releases."),
            "adapters": Key(
                Table(model, adapter(), "a mapping of adapters by model"),
                "Adapters",
                "How the tool of each model's vendor is driven. A model without one takes releases of the "
                "collector only.",
                OPTIONAL,
                examples=(
                    {
                        "moxa-uc-8220": {
                            "install": ["firmware-update", "install", "{image}"],
                            "version": ["firmware-update", "version"],
                            "back": ["firmware-update", "rollback"],
                            "needs": {},
                        }
                    },
                ),
            ),
        },
        "a mapping with trust and adapters",
    )
    return Key(
        record,
        "Firmware",
        "Lets the gateways take signed releases. Left out, they take none.",
        OPTIONAL,
        examples=({"trust": {"threshold": 1, "keys": ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]}},),
    )
