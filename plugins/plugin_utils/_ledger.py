# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the authority's ledgers say together: which certificate each name uses, and which of its others are valid."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.wattfleet.energy.plugins.module_utils._ledger import Entry, read

DAY = 86400.0

ISSUED = ("name", "host", "usage", "serial", "not_after")


def moment(text: str) -> float:
    """A time of a certificate, such as 20261128193000Z, in s since 1970."""
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def in_use(
    folder: Path, names: list[str] | None = None, now: float | None = None
) -> tuple[list[Entry], list[str]]:
    """For each name and usage the certificate in use: the one that was installed last, or the newest where none was."""
    now = time.time() if now is None else now
    revoked, torn = read(folder / "revoked.jsonl", ["serial"])
    refused = {str(one["serial"]) for one in revoked}
    result = []
    for path in sorted((folder / "issued").glob("*.jsonl")):
        if names and path.stem not in names:
            continue
        issued, bad = read(path, ISSUED)
        installed, also_bad = read(folder / "installed" / path.name, ["usage", "serial"])
        torn += bad + also_bad
        for usage in sorted({one["usage"] for one in issued}):
            of_usage = [one for one in issued if one["usage"] == usage]
            records = [one for one in installed if one["usage"] == usage]
            record = records[-1] if records else {}
            used = next((one for one in of_usage if one["serial"] == record.get("serial")), of_usage[-1])
            end = moment(used["not_after"])
            result.append(
                {
                    **{key: used[key] for key in ISSUED},
                    # Release 0.2.0 entered no issuer; that of its time is never the one of a change of today.
                    "issuer": used.get("issuer", ""),
                    "installed": record.get("installed", ""),
                    "authorities": record.get("authorities", []),
                    "days_left": round((end - now) / DAY, 1),
                    "revoked": used["serial"] in refused,
                    "serials": [
                        one["serial"]
                        for one in of_usage
                        if moment(one["not_after"]) > now and one["serial"] not in refused
                    ],
                }
            )
    return result, torn
