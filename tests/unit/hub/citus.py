# SPDX-License-Identifier: Apache-2.0
"""The tests whose databases are schemas of one, with these schemas on two nodes of Citus:

    WATTFLEET_CITUS=yes pytest tests/unit/hub -k schemas

It wants citus.so in the newest PostgreSQL of the host. Debian has none, so that CI runs these tests with plain schemas.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import energy_hub

if TYPE_CHECKING:
    from .conftest import Cluster, Database

STATEMENTS = Path(energy_hub.__file__).parent / "optional/citus.sql"
WANTED = "WATTFLEET_CITUS" in os.environ
SETTINGS = {
    "shared_preload_libraries": "citus",
    "wal_level": "logical",
    "max_connections": "100",
    "max_prepared_transactions": "100",
    "citus.node_conninfo": "sslmode=disable",
}


def join(coordinator: Cluster, database: str) -> None:
    """Make the coordinator's database and those of its nodes one."""
    for one in (coordinator, *coordinator.nodes):
        one.do("CREATE EXTENSION citus", database)
    coordinator.do(f"SELECT citus_set_coordinator_host('127.0.0.1', {coordinator.port})", database)
    for one in coordinator.nodes:
        coordinator.do(f"SELECT citus_add_node('127.0.0.1', {one.port})", database)


def spread(conninfo: str) -> None:
    """What an operator does with each schema, as its owner."""
    subprocess.run(["psql", "-Xqv", "ON_ERROR_STOP=1", "-d", conninfo, "-f", STATEMENTS], check=True)


def check(database: Database) -> None:
    """Each schema is whole on one node, and another one has the other."""
    rows = database.rows(
        "SELECT s.schemaid::regnamespace::text, count(DISTINCT p.groupid), min(p.groupid) FROM pg_dist_schema s"
        " JOIN pg_dist_partition t ON t.colocationid = s.colocationid"
        " JOIN pg_dist_shard h ON h.logicalrelid = t.logicalrelid JOIN pg_dist_placement p ON p.shardid = h.shardid"
        " GROUP BY 1"
    )
    assert [nodes for _, nodes, _ in rows] == [1, 1]
    assert len({group for _, _, group in rows}) == 2
