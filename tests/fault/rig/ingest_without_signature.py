# SPDX-License-Identifier: Apache-2.0
"""Sabotage: the hub's ingest takes any signature for that of the site whose topic a batch came on."""

from __future__ import annotations

import sys

from energy_hub import pipeline
from energy_hub.batch import Envelope
from energy_hub.cli import main
from energy_hub.revocation import Revocations
from energy_hub.store import Store


def _anybody(
    store: Store, site: str, _envelope: Envelope, _revocations: Revocations
) -> tuple[int, int] | str:
    found = store.keys(site)
    return (found[0], found[1][0].id) if found else "unknown site"


pipeline._signer = _anybody  # type: ignore[assignment]  # sabotage

if __name__ == "__main__":
    sys.exit(main())
