"""Rulesets that may not be loaded, and the firewall role's own one."""

from __future__ import annotations

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import nft_table as module

OWN = "table inet wattfleet {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n"


def test_the_own_table_is_allowed() -> None:
    assert module.forbidden("wattfleet", OWN) is None


@pytest.mark.parametrize(
    ("ruleset", "said"),
    [
        ("flush ruleset\n" + OWN, "flushes the ruleset"),
        ("flush  ruleset\n", "flushes the ruleset"),
        ('include "/etc/nftables.d/*.nft"\n', "includes other files"),
        (OWN + "table inet fail2ban { }\n", "table inet fail2ban"),
        (OWN + "table ip wattfleet { }\n", "table ip wattfleet"),
        (OWN + "delete table filter\n", "table ip filter"),
    ],
)
def test_everything_else_is_refused(ruleset: str, said: str) -> None:
    reason = module.forbidden("wattfleet", ruleset)
    assert reason is not None
    assert said in reason


def test_a_comment_may_say_what_a_rule_may_not() -> None:
    assert module.forbidden("wattfleet", "# never flush ruleset\n" + OWN) is None


def test_replacing_works_whether_or_not_the_table_exists() -> None:
    # "table" makes it where it is missing, so that "delete table" cannot fail; all in one transaction.
    script = module.replacing("wattfleet", OWN)
    assert script.splitlines()[:2] == ["table inet wattfleet", "delete table inet wattfleet"]
    assert script.endswith(OWN)


def test_a_ruleset_that_does_not_load_is_told_in_one_line() -> None:
    said = (
        "/tmp/nft_table.81r36by0/wanted.nft:40:16-28: Error: Prefix length 99 is invalid for type of 32 bits width\n"
        "\t\telements = { 198.18.0.0/99 }\n\t\t             ^^^^\n"
    )
    assert module.first_fault(said) == (
        "line 40, columns 16-28: Error: Prefix length 99 is invalid for type of 32 bits width"
    )
