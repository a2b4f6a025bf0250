# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, as they are handed to the resolver."""

from __future__ import annotations


def resolvable(host: str) -> str | bytes:
    """Bytes where they will do: for a text Python loads its tables of Unicode, 0.6 MB, to find that it is ASCII."""
    return host.encode() if host.isascii() else host
