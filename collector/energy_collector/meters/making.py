# SPDX-License-Identifier: Apache-2.0
"""Which class serves which kind of profile."""

from __future__ import annotations

from energy_collector.config import MeterConfig
from energy_collector.meters.blocks import AnalogueMeter, RegisterMeter
from energy_collector.meters.learned import Learned
from energy_collector.meters.meter import Meter
from energy_collector.meters.sunspec import SunSpecMeter

KINDS: dict[str, type[Meter]] = {
    "registers": RegisterMeter,
    "analogue": AnalogueMeter,
    "sunspec": SunSpecMeter,
}


def make(config: MeterConfig, learned: Learned | None = None) -> Meter:
    """The meter of a configuration."""
    profile = config.register_map
    return KINDS[profile.kind](config, profile, learned)
