# SPDX-License-Identifier: Apache-2.0
"""One audit from end to end, of the database as it is at one moment."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from energy_hub.audit import batches, checkpoints, trees, witnesses
from energy_hub.audit.context import Context, Scope
from energy_hub.audit.findings import Progress, Report


def verify(connection: psycopg.Connection, scope: Scope, say: Callable[[str], None] | None = None) -> Report:
    """Look at everything in `scope`. Raises psycopg.Error, OSError and LookupError when it cannot."""
    context = Context(connection, scope, Progress(say))
    report = context.report
    if scope.keys is None:
        report.unchecked.append("nobody said which key is the hub's: name it with --key")
    if not scope.authorities:
        report.unchecked.append(
            "nobody said which CA the gateways' certificates come from: name it with --ca"
        )
    with connection.transaction():
        # What is committed while we look is left for the next time.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL timezone = 'UTC'")
        connection.execute("SET LOCAL work_mem = '64MB'")
        context.load()
        checkpoints.check(context)
        checkpoints.check_stamps(context)
        trees.check(context)
        witnesses.check(context)
        batches.check(context)
        _explain_evidence(context)
    return report


def _explain_evidence(context: Context) -> None:
    """Forks stand in table evidence alone; the batch that came second is in quarantine."""
    for site, count, first, last in context.connection.execute(
        "SELECT site, count(*), min(found), max(found) FROM evidence WHERE kind = 'fork' AND site = ANY(%s)"
        " GROUP BY site",
        (context.chosen,),
    ):
        context.report.explain(
            context.sites[site],
            "fork",
            "one sequence came with two contents: the first is stored, the second is in quarantine",
            (first, last),
            count,
        )
