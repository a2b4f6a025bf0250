# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""nftables' tables, put back whole and in one transaction, with their counters."""

from __future__ import annotations

import re

from .errors import GuardError, StepError
from .host import Host

ELEMENTS = re.compile(r"^[ \t]*elements = \{.*?\}\n", re.MULTILINE | re.DOTALL)
SET = re.compile(r"^\t(?:set|map|meter) \S+ \{\n.*?^\t\}\n", re.MULTILINE | re.DOTALL)


def _list(host: Host, table: str, *options: str) -> str | None:
    done = host.run(["nft", *options, "list", "table", *table.split()])
    if done.code == 0:
        return done.out
    if "No such file or directory" in done.err or done.code == 127:
        return None
    raise GuardError(f"nft cannot list table {table}: {done.words}")


def without_passing(listing: str) -> str:
    """A listing without the elements that packets add to sets and that time takes out again."""

    def bare(match: re.Match[str]) -> str:
        text = match.group(0)
        return ELEMENTS.sub("", text) if re.search(r"flags [^\n]*(dynamic|timeout)", text) else text

    return SET.sub(bare, listing)


def _replacing(table: str, listing: str | None) -> str:
    return f"table {table}\ndelete table {table}\n{listing or ''}"


def look(host: Host, tables: list[str]) -> dict[str, dict[str, str | None]]:
    """The tables as they are loaded: the script that loads each again, and what it is compared by."""
    found = {}
    for table in tables:
        full, plain = _list(host, table), _list(host, table, "--stateless")
        script = _replacing(table, full)
        if full is not None and host.run(["nft", "--check", "--file", "-"], stdin=script).code != 0:
            # Elements that come and go are not always accepted in the form in which they are listed.
            script = _replacing(table, without_passing(full))
            done = host.run(["nft", "--check", "--file", "-"], stdin=script)
            if done.code != 0:
                raise GuardError(f"table {table} as it is loaded now could not be put back: {done.words}")
        found[table] = {"script": script, "plain": None if plain is None else without_passing(plain)}
    return found


def differences(host: Host, tables: dict[str, dict[str, str | None]]) -> list[str]:
    found = []
    for table, was in tables.items():
        plain = _list(host, table, "--stateless")
        if (None if plain is None else without_passing(plain)) != was["plain"]:
            found.append(f"table {table} is not as it was")
    return found


def put_back(host: Host, tables: dict[str, dict[str, str | None]]) -> None:
    for table, was in tables.items():
        if differences(host, {table: was}):
            done = host.run(["nft", "--file", "-"], stdin=was["script"])
            if done.code != 0:
                raise StepError(f"nft table {table}", done.words)
