# SPDX-License-Identifier: Apache-2.0
"""What nftables.service loads in place of the distribution's configuration alone, with an nft that only notes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/firewall/files/lib/load-keeping-others"
# In the empty namespace there is what the configuration has made; outside of it, all.
NFT = """#!/bin/sh
case "$* ${INSIDE:-outside}" in
    "$FAILS"*) echo "nft: no" >&2; exit 1 ;;
    "list tables inside") printf '%s\\n' "table inet filter" ;;
    "list tables outside") [ ! -s "$TABLES" ] || cat "$TABLES" ;;
    "list table "*) printf '%s {\\n\\tset %s { }\\n}\\n' "${*#list }" "$4" ;;
    "--file - "*) cat >"$LOADED" ;;
esac
"""
UNSHARE = """#!/bin/sh
shift
INSIDE=inside exec "$@"
"""
ALL = "table inet filter\ntable inet wattfleet\ntable inet f2b-table\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name, text in (("nft", NFT), ("unshare", UNSHARE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def load(host: Path, tables: str, fails: str = "nothing") -> tuple[int, str | None]:
    """How it ended, and what was loaded if anything was."""
    (host / "tables").write_text(tables)
    loaded = host / "loaded"
    environment = {
        "PATH": f"{host}:{os.environ['PATH']}",
        "TABLES": str(host / "tables"),
        "LOADED": str(loaded),
        "FAILS": fails,
    }
    done = subprocess.run(["sh", SCRIPT], env=environment, capture_output=True, check=False)
    return done.returncode, loaded.read_text() if loaded.exists() else None


def test_every_table_but_its_own_is_put_back_in_the_same_transaction(host: Path) -> None:
    code, loaded = load(host, ALL)
    assert code == 0
    assert loaded is not None
    include, *rest = loaded.splitlines()
    assert include.startswith('include "/etc/')
    assert rest == [
        "table inet wattfleet {", "\tset wattfleet { }", "}", "table inet f2b-table {", "\tset f2b-table { }", "}",
    ]  # fmt: skip


@pytest.mark.parametrize("tables", ["", "table inet filter\n"])
def test_where_there_is_no_other_table_its_own_is_loaded(host: Path, tables: str) -> None:
    code, loaded = load(host, tables)
    assert code == 0
    assert loaded is not None
    assert loaded.strip().startswith("include ")
    assert "table" not in loaded.partition("\n")[2]


@pytest.mark.parametrize(
    "fails",
    [
        "--file /etc",  # the configuration itself
        "list tables inside",
        "list tables outside",
        "list table inet wattfleet",
        "list table inet f2b-table",
    ],
)
def test_when_one_thing_cannot_be_read_nothing_is_loaded(host: Path, fails: str) -> None:
    code, loaded = load(host, ALL, fails)
    assert code != 0
    assert loaded is None


def test_when_the_transaction_is_refused_the_service_fails(host: Path) -> None:
    assert load(host, ALL, "--file - ") == (1, None)
