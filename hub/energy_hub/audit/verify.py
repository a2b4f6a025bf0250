# SPDX-License-Identifier: Apache-2.0
"""One audit from end to end, of the database as it is at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg

from energy_hub.audit import batches, checkpoints, oddities, trees, witnesses
from energy_hub.audit.context import Context, Scope
from energy_hub.audit.findings import FLEET, Progress, Report
from energy_hub.evidence.step import Shard


def verify(
    connection: psycopg.Connection,
    scope: Scope,
    say: Callable[[str], None] | None = None,
    shards: Sequence[Shard] = (),
) -> Report:
    """Look at everything in `scope`. `connection` is that of the database which has the checkpoints; the sites are in
    the same one, or in `shards`. Raises psycopg.Error, OSError and LookupError when it cannot."""
    progress, report = Progress(say), Report()
    if scope.keys is None:
        report.unchecked.append("nobody said which key is the hub's: name it with --key")
    if not scope.authorities:
        report.unchecked.append(
            "nobody said which CA the gateways' certificates come from: name it with --ca"
        )
    contexts = [
        Context(one.connection, scope, progress, connection, one.sites, report)
        for one in shards or [Shard(connection)]
    ]
    with ExitStack() as stack:
        # That of the checkpoints first: trees only grow, so that what was signed is there by then.
        for one in dict.fromkeys([connection, *(context.connection for context in contexts)]):
            stack.enter_context(_one_moment(one))
        for context in contexts:
            context.load()
        unknown = (scope.sites or frozenset()) - {
            context.sites[site] for context in contexts for site in context.chosen
        }
        if unknown:
            raise LookupError(f"the database knows no site {min(unknown)}")
        _explain_restores(contexts[0])
        checkpoints.check(contexts[0])
        checkpoints.check_stamps(contexts[0])
        for context in contexts:
            trees.check(context)
        witnesses.check(contexts)
        for context in contexts:
            batches.check(context)
            oddities.check(context)
    return report


@contextmanager
def _one_moment(connection: psycopg.Connection) -> Iterator[None]:
    """What is committed while we look is left for the next time."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL timezone = 'UTC'")
        connection.execute("SET LOCAL work_mem = '64MB'")
        # The moment is that of the first question.
        connection.execute("SELECT 1 FROM site LIMIT 1")
        yield


def _explain_restores(context: Context) -> None:
    """Told in every audit: who knows of none may ask."""
    for one in context.restores:
        text = f"the database was {one}; what gateways still had of the time between came again"
        context.report.explain(FLEET, "restored", text, (one.target or one.at, one.at))
