# SPDX-License-Identifier: Apache-2.0
"""Which gate judges the sites of a fleet: the one place where the command and the playbook choose it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from wattfleet.hub import hub_of
from wattfleet.rollout.gate_settings import gate_settings
from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.ledger import Record
from wattfleet.rollout.telemetry import Telemetry


class Gate(Protocol):
    """What judges sites that run a new release. `record.data["look"]` is what the gateway last said itself."""

    def verdicts(self, records: Mapping[str, Record]) -> dict[str, Verdict]:
        """By site. May take its time."""


class NoGate:
    """Where nobody measures: a person decides, since what was not measured never passes."""

    def verdicts(self, records: Mapping[str, Record]) -> dict[str, Verdict]:
        return dict.fromkeys(
            records, Verdict(Outcome.INCONCLUSIVE, "the inventory has no hub that could be asked")
        )


def gate_of(facts: Mapping[str, Any], hub: Mapping[str, Any]) -> Gate:
    """By the fleet file (`energy_fleet`) and the inventory's variables of the host `hub`."""
    if "ansible_host" not in hub:
        return NoGate()
    return Telemetry(hub_of(hub), gate_settings(facts.get("gates")))


def ask(gate: Gate, records: Mapping[str, Record]) -> dict[str, Verdict]:
    """Verdicts in any case: whatever goes wrong in asking proves nothing about a site."""
    try:
        return gate.verdicts(records)
    except Exception as error:  # noqa: BLE001  (a gate may fail in any way)
        return dict.fromkeys(records, Verdict(Outcome.INCONCLUSIVE, f"the gate could not be asked: {error}"))
