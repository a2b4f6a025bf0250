# SPDX-License-Identifier: Apache-2.0
"""The fleet by ansible-inventory: what is kept of it, and the inventory of some sites that a play gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wattfleet.rollout import fleet as fleets
from wattfleet.rollout.fleet import FleetError, read_fleet
from wattfleet.rollout.windows import Always, Window

from .stand_in import ROOT

EXAMPLE = ROOT / "inventory" / "example" / "fleet.sites.yml"


def test_sites_limits_and_a_part_of_them() -> None:
    fleet = read_fleet(EXAMPLE, "coober-solar:kiruna-depot:bergen-cold")
    assert set(fleet.sites) == {"coober-solar", "kiruna-depot", "bergen-cold"}
    assert (fleet.settings.max_offline, fleet.settings.soak, fleet.settings.transfer_deadline) == (
        6,
        1800,
        1209600,
    )
    coober, kiruna, bergen = (fleet.sites[name] for name in ("coober-solar", "kiruna-depot", "bergen-cold"))
    assert (coober.transfer_rate, coober.price, coober.expected_rate) == (8000, 4.5, 8000)
    assert bergen.pair == "narvik-cold"
    assert isinstance(kiruna.window, Window)
    assert str(kiruna.window) == "sat sun 06:00-14:00 Europe/Stockholm"
    assert not isinstance(coober.window, Always), "the fleet's default"

    part = fleet.part(["coober-solar"], {"coober-solar": {"rollout_order": {"step": "look"}}})
    assert list(part["all"]["hosts"]) == ["coober-solar"]
    assert part["all"]["hosts"]["coober-solar"]["rollout_order"] == {"step": "look"}
    assert part["link_satellite"]["hosts"] == {"coober-solar": {}}
    assert part["link_satellite"]["vars"]["ansible_timeout"] == 90, (
        "variables of groups stay with their groups"
    )
    assert "sites" not in part["all"]["vars"]["energy_fleet"], "five thousand names would go with every play"


def test_what_is_kept_is_read_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = {
        "_meta": {"hostvars": {}},
        "all": {"vars": {"energy_fleet": {"rings": ["canary"]}}},
    }
    asked = []

    def export(inventory: Path, limit: str | None) -> dict[str, object]:
        asked.append(limit)
        return exported

    monkeypatch.setattr(fleets, "_export", export)
    inventory, cache = tmp_path / "fleet.sites.yml", tmp_path / "rollouts" / "inventory.json"
    (tmp_path / "sites").mkdir()
    cache.parent.mkdir()
    inventory.write_text("fleet: demo")
    for _ in range(2):
        read_fleet(inventory, cache=cache)
    assert asked == [None]
    assert cache.stat().st_mode & 0o777 == 0o600
    (tmp_path / "sites" / "plant-a.yml").write_text("site: plant-a")
    read_fleet(inventory, cache=cache)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("ansible_timeout: 3")
    read_fleet(inventory, cache=cache)
    assert asked == [None] * 3
    cache.write_text(json.dumps({"stamp": "x"})[:-3])
    read_fleet(inventory, cache=cache)
    assert asked == [None] * 4, "one that is torn is none"


def test_an_inventory_without_a_fleet_is_one_line(tmp_path: Path) -> None:
    inventory = tmp_path / "fleet.sites.yml"
    with pytest.raises(FleetError, match="there is no such inventory"):
        read_fleet(inventory)
