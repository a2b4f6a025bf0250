# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The authority's ledgers, read: which certificate each name uses, and which of its others are still valid.

The files are described in docs/reference/certificate-ledger.md.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DAY = 86400.0

Entry = dict[str, Any]


def entries(path: Path) -> tuple[list[Entry], list[str]]:
    """The entries of a ledger and the lines that are none: a power cut can tear the last one of its time."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], []
    found: list[Entry] = []
    torn: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            found.append(entry)
        elif line.strip():
            torn.append(f"{path}, line {number}: {line}")
    return found, torn


def moment(text: str) -> float:
    """A time of a certificate, such as 20261128193000Z, in s since 1970."""
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def in_use(
    folder: Path, names: list[str] | None = None, now: float | None = None
) -> tuple[list[Entry], list[str]]:
    """For each name and usage the certificate in use: the one that was installed last, or the newest where none was."""
    now = time.time() if now is None else now
    revoked, torn = entries(folder / "revoked.jsonl")
    refused = {str(one.get("serial")) for one in revoked}
    result = []
    for path in sorted((folder / "issued").glob("*.jsonl")):
        if names and path.stem not in names:
            continue
        issued, bad = entries(path)
        installed, also_bad = entries(folder / "installed" / path.name)
        torn += bad + also_bad
        for usage in sorted({one["usage"] for one in issued}):
            of_usage = [one for one in issued if one["usage"] == usage]
            records = [one for one in installed if one["usage"] == usage]
            record = records[-1] if records else {}
            used = next((one for one in of_usage if one["serial"] == record.get("serial")), of_usage[-1])
            end = moment(used["not_after"])
            result.append(
                {
                    **{key: used[key] for key in ("name", "host", "usage", "serial", "issuer", "not_after")},
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
