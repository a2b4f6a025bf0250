# SPDX-License-Identifier: Apache-2.0
"""The document that is shown: the hub's figures, with the firmware from the ledger of the rollouts, and with what is a
trouble. Its shape is docs/reference/schema/fleet-status.schema.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.hub import Hub
from wattfleet.rollout.ledger import Ledger
from wattfleet.status.judge import findings

Document = dict[str, Any]
VERSION = 1


def from_hub(hub: Hub, names: Iterable[str]) -> Document:
    """Of these sites, whether the hub knows them or not."""
    return read(hub.command("fleet", "--sites", "-", given="\n".join(names) + "\n", timeout=120))


def read(text: str) -> Document:
    """What `energy-hub fleet` has printed. Raises WattfleetError."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise WattfleetError(f"the hub's figures are not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise WattfleetError(
            f"the hub's figures: expected a document of version {VERSION}, of `energy-hub fleet`"
        )
    return found


def complete(document: Document, firmware: Mapping[str, str]) -> Document:
    """The same with `firmware` and `findings` at each site."""
    now = datetime.fromisoformat(document["time"])
    for name, site in document["sites"].items():
        site["firmware"] = firmware.get(name)
        site["findings"] = findings(site, now)
    document["fleet"]["firmwares"] = dict(
        Counter(site["firmware"] or "unknown" for site in document["sites"].values())
    )
    return document


def firmware_of(folder: Path) -> dict[str, str]:
    """What the newest rollouts of firmware have left on the gateways; nothing where there was never a rollout."""
    file = folder / "rollouts.db"
    return Ledger(file).versions("firmware") if file.exists() else {}


def only(document: Document, names: Sequence[str]) -> Document:
    """Raises WattfleetError for sites that are asked for of a document of others: its sums are those of all."""
    if names and set(names) != document["sites"].keys():
        raise WattfleetError(
            "--site: the figures were given, and are of other sites; ask for these with `energy-hub fleet --sites`"
        )
    return document
