# SPDX-License-Identifier: Apache-2.0
"""Sabotage: a service of the hub one of whose threads stumbles. The environment says which."""

from __future__ import annotations

import os
import sys

import psycopg
from energy_hub import lanes, link, rollup
from energy_hub.cli import main
from energy_hub.evidence import witness
from energy_hub.ingest import Worker
from energy_hub.link import Inbox, Message

VARIABLE = "FAULT_OF_THE_TEST"

_put = Inbox.put
_take = Worker._take
_take_queued = lanes.Lane._take_queued
_step = rollup.step


def _stumble_over(found: list[Message]) -> list[Message]:
    if any(one.is_batch for one in found):
        raise ZeroDivisionError("of the test")
    return found


def _put_none(self: Inbox, message: Message) -> None:
    _stumble_over([message])
    _put(self, message)


def _newest(connection: psycopg.Connection) -> int:
    raise ZeroDivisionError("of the test")


def _step_of_north(connection: psycopg.Connection) -> int:
    if connection.info.dbname.startswith("south"):
        raise ZeroDivisionError("of the test")
    return _step(connection)


if __name__ == "__main__":
    # This is the sabotage.
    match os.environ[VARIABLE]:
        case "main":
            Worker._take = lambda self: _stumble_over(_take(self))  # type: ignore[method-assign] # the sabotage
        case "broker":
            link.Inbox.put = _put_none  # type: ignore[method-assign] # the sabotage
        case "lane":
            lanes.Lane._take_queued = lambda self: _stumble_over(_take_queued(self))  # type: ignore[method-assign] # the sabotage
        case "herald":
            witness.newest = _newest
        case "rollup":
            rollup.step = _step_of_north  # type: ignore[assignment] # the sabotage
    sys.exit(main())
