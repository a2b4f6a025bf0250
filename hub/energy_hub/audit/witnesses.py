# SPDX-License-Identifier: Apache-2.0
"""What gateways have kept of checkpoints, against the database: the only thing that tells of a tail that was cut
together with all that the hub had signed over it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from energy_hub.audit.context import Context, Seen
from energy_hub.evidence import merkle
from energy_hub.evidence.checkpoint import Body, Checkpoint, SiteTree, site_leaf
from energy_hub.evidence.keys import key_id
from energy_hub.evidence.leaves import Nodes, sizes

# Whoever has cut off a tail will not have noted it; whoever has restored a backup by hand may have forgotten to.
UNTOLD = "; after a restore from a backup it is so, too, and table restored knows of none"


@dataclass(frozen=True, slots=True)
class Witness:
    """A line of a gateway's file."""

    site: str
    tree: SiteTree
    checkpoint: Checkpoint
    body: Body
    index: int
    path: list[bytes]

    def is_proven(self) -> bool:
        """Whether the tree is the one that was signed."""
        leaf = site_leaf(self.site, self.tree)
        root = merkle.root_from_inclusion(leaf, self.index, self.body.sites, self.path)
        return self.checkpoint.is_signed() and root == self.body.root


def read(path: Path) -> Iterator[tuple[int, Witness | str]]:
    """The lines of a file, by number: a witness, or what is wrong with it. Raises OSError."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield number, _parse(line)
            except (ValueError, KeyError, TypeError) as error:
                yield number, f"is no witness: {error}"


def _parse(line: bytes) -> Witness:
    data = json.loads(line)
    try:
        checkpoint = Checkpoint(
            data["checkpoint"],
            base64.b64decode(data["signature"], validate=True),
            base64.b64decode(data["key"], validate=True),
        )
    except binascii.Error:
        raise ValueError("signature or key is not base64") from None
    site, size, index = data["site"], data["size"], data["index"]
    if not isinstance(site, str) or type(size) is not int or type(index) is not int:
        raise TypeError("site, size or index has the wrong type")
    if not 0 < size < 1 << 63 or len(site.encode()) > 255:
        raise ValueError(f"size {size} of {site[:40]}")
    return Witness(
        site,
        SiteTree(size, bytes.fromhex(data["root"])),
        checkpoint,
        checkpoint.body(),
        index,
        [bytes.fromhex(one) for one in data["path"]],
    )


def check(contexts: Sequence[Context]) -> None:
    """All lines of all files; a site is in one of the databases. Raises OSError for a file that cannot be read."""
    homes = {context.sites[number]: (context, number) for context in contexts for number in context.chosen}
    there = {id(context): sizes(context.connection) for context in contexts}
    report, scope = contexts[0].report, contexts[0].scope
    for path in scope.witnesses:
        for line, one in read(path):
            report.count("witnesses")
            where = f"{path.name} line {line}"
            if isinstance(one, str):
                report.unchecked.append(f"{where} {one}")
                continue
            if scope.sites is not None and one.site not in scope.sites:
                continue
            context, number = homes.get(one.site, (contexts[0], None))
            size = there[id(context)].get(number, 0) if number is not None else 0
            _check_one(context, one, where, number, size)


def _check_one(context: Context, one: Witness, where: str, number: int | None, size: int) -> None:
    report, at = context.report, (one.body.time, one.body.time)
    if not one.is_proven():
        report.find(one.site, "witness-false", where, "the hub did not sign what it says", at)
        return
    keys = context.scope.keys
    if keys is not None and one.checkpoint.key not in keys:
        text = f"signed by {key_id(one.checkpoint.key)}, which is not the hub's key"
        report.find(one.site, "checkpoint-foreign-key", where.rsplit(" line ", 1)[0], text, at)
        return
    restore = context.replaced(one.body.number, one.body.time)
    if restore is not None:
        report.explain(
            one.site,
            "set-back",
            "the gateway holds checkpoints of the database that was then set back; what that had received"
            " since came again, and is in the tree with its new time of arrival",
            at,
        )
        if number is None:
            text = f"the database was {restore}, and the site has sent nothing since"
            report.find(one.site, "not-sent-again", "tree", text, at, one.tree.size)
        else:
            context.remember(number, Seen(one.tree.size, one.body.time, restore))
        return
    if one.tree.size > size or number is None:
        missing = one.tree.size - size
        report.find(
            one.site,
            "tail-cut",
            "tree",
            f"the gateway has seen {one.tree.size} leaves signed at {one.body.time:%Y-%m-%dT%H:%M:%SZ},"
            f" there are {size}: the last {missing} are gone{UNTOLD}",
            (_arrival(context, number, "DESC") or one.body.time, one.body.time),
            missing,
        )
    else:
        _check_root(context, one, number)
    _check_checkpoint(context, one)


def _check_root(context: Context, one: Witness, number: int) -> None:
    try:
        root = merkle.Frontier.at(one.tree.size, Nodes(context.connection, number)).root()
    except LookupError as error:
        root = str(error).encode()
    if root != one.tree.root:
        context.report.find(
            one.site,
            "tree-not-as-witnessed",
            "tree",
            f"the gateway holds another root of the first {one.tree.size} leaves: the tree was made anew{UNTOLD}",
            (_arrival(context, number, "ASC") or one.body.time, one.body.time),
            one.tree.size,
        )


def _check_checkpoint(context: Context, one: Witness) -> None:
    row = context.fleet.execute(
        "SELECT body, signature, key FROM checkpoint WHERE number = %s", (one.body.number,)
    ).fetchone()
    at = (one.body.time, one.body.time)
    subject = f"checkpoint {one.body.number}"
    if row is None:
        context.report.find(
            one.site, "checkpoint-removed", subject, f"the gateway holds it, the hub does not{UNTOLD}", at
        )
    elif Checkpoint(row[0], bytes(row[1]), bytes(row[2])).digest != one.checkpoint.digest:
        context.report.find(
            one.site,
            "checkpoint-changed",
            subject,
            f"the gateway holds another one with this number{UNTOLD}",
            at,
        )


def _arrival(context: Context, number: int | None, order: Literal["ASC", "DESC"]) -> datetime | None:
    """Of the batch of a site's first leaf, or of the last one."""
    row = context.connection.execute(
        f"SELECT received FROM leaf WHERE site = %s ORDER BY number {order} LIMIT 1",  # noqa: S608  (literals)
        (number,),
    ).fetchone()
    return row[0] if row else None
