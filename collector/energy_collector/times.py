# SPDX-License-Identifier: Apache-2.0
"""Times as people and other programs read them."""

from __future__ import annotations

from datetime import datetime, timezone


def iso(time: int | None) -> str | None:
    """A time in ms as RFC 3339 in UTC."""
    if time is None:
        return None
    moment = datetime.fromtimestamp(time // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time % 1000:03d}Z"
