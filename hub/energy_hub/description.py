# SPDX-License-Identifier: Apache-2.0
"""What the sites' files say, kept with the date from which it holds: an auditor asks what the ratio was in March."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg

from energy_hub.fleet.meters import described_meters, since_of


class DescriptionError(ValueError):
    """What is to be kept is no description of sites, or contradicts what is kept; one line."""


def read(text: str) -> dict[str, dict[str, Any]]:
    """A JSON object of site -> the site's file. Raises DescriptionError."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DescriptionError(f"descriptions are not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DescriptionError("descriptions: expected an object of site -> the site's file")
    for site, description in content.items():
        if not isinstance(description, dict) or not isinstance(description.get("timezone", "UTC"), str):
            raise DescriptionError(
                f"{site}: expected the site's file as an object, with its timezone as text"
            )
        for one in described_meters(description.get("meters")):
            if "since" in one and since_of(one) is None:
                raise DescriptionError(
                    f"{site}: since of the meter {one['name']!r} is {one['since']!r}, expected a time with its offset"
                )
    return content


def keep(
    connection: psycopg.Connection, descriptions: Mapping[str, dict[str, Any]], since: datetime
) -> list[str]:
    """Add what differs from the newest description of its site; the names of these sites, sorted.

    Raises DescriptionError when one is kept already that holds from a later time on: history is not written twice.
    """
    changed = []
    with connection.transaction():
        # Nobody moves them away meanwhile.
        for site, here in connection.execute(
            "SELECT name, here FROM site WHERE name = ANY(%s) ORDER BY id FOR KEY SHARE",
            (list(descriptions),),
        ).fetchall():
            if not here:
                raise DescriptionError(
                    f"{site} is on its way to another database: try again when it is there"
                )
        zones = {name for (name,) in connection.execute("SELECT name FROM pg_timezone_names")}
        newest = {
            site: (bytes(digest), start)
            for site, digest, start in connection.execute(
                "SELECT DISTINCT ON (site) site, digest, since FROM site_description"
                " WHERE site = ANY(%s) ORDER BY site, since DESC",
                (list(descriptions),),
            )
        }
        for site, content in sorted(descriptions.items()):
            zone = content.get("timezone", "UTC")
            if zone not in zones:
                raise DescriptionError(f"{site}: timezone {zone!r} is not known to the database")
            text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            digest = hashlib.sha256(text.encode()).digest()
            before, start = newest.get(site, (b"", None))
            if digest == before:
                continue
            if start is not None and start >= since:
                raise DescriptionError(
                    f"{site}: what is kept holds from {start:%Y-%m-%dT%H:%M:%SZ} on, which is not before"
                    f" {since:%Y-%m-%dT%H:%M:%SZ}"
                )
            connection.execute(
                "INSERT INTO site_description (site, since, digest, content) VALUES (%s, %s, %s, %s::jsonb)",
                (site, since, digest, text),
            )
            changed.append(site)
    return changed
