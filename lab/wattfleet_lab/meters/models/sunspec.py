# SPDX-License-Identifier: Apache-2.0
"""A three-phase inverter and a battery with SunSpec register maps.

Source: the SunSpec Alliance's model definitions as JSON, which the PyPI package pysunspec2 (Apache-2.0)
ships in sunspec2/models/json, and the SunSpec Device Information Model Specification V1.2 (the map starts
at 40000 with "SunS" and ends with model 0xFFFF; values of points that are not implemented). Layout, types
and scale factors come from those files; only function 03 is needed by SunSpec.

Inverter: models 1 and 103 (integers with scale factors). W and WH are what it generates, positive. Battery:
models 1, 802 (battery base), 713 (storage capacity) and 701 (AC measurement, with energy injected and
absorbed). W, A of 802 and W of 701 are positive while discharging (701 says so; 802 leaves it open, its
ChaSt says which it is).

Function 43/14 is answered with the strings of model 1, as many inverters do; function 08 is not.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar

from wattfleet_lab.meters.description import Unit
from wattfleet_lab.meters.models.base import (
    ENCAPSULATED,
    INT16,
    READ_HOLDING,
    UINT16,
    UINT32,
    UINT64,
    Block,
    Encoding,
    Field,
    Model,
    text_option,
    text_registers,
)
from wattfleet_lab.meters.site import PHASES, Values

BASE = 40000
_PHASE_LETTERS = ("A", "B", "C")

# Type: how a value lies in the registers, and what stands for a point that is not implemented.
_TYPES: dict[str, tuple[Encoding, bytes]] = {
    "int16": (INT16, b"\x80\x00"),
    "sunssf": (INT16, b"\x80\x00"),
    "pad": (INT16, b"\x80\x00"),
    "uint16": (UINT16, b"\xff\xff"),
    "enum16": (UINT16, b"\xff\xff"),
    "uint32": (UINT32, b"\xff\xff\xff\xff"),
    "bitfield32": (UINT32, b"\xff\xff\xff\xff"),
    "acc32": (UINT32, bytes(4)),
    "uint64": (UINT64, b"\xff" * 8),
}

# A model's contents: point name -> constant (text or number), or -> (key of the site's values, factor) with
# the point's
# scale factor applied on top.
Contents = dict[str, str | int | tuple[str, float]]


@lru_cache(maxsize=8)
def definition(model: int) -> list[dict[str, Any]]:
    """The points of a SunSpec model, in order, from pysunspec2. Raises FileNotFoundError."""
    try:
        path = distribution("pysunspec2").locate_file(f"sunspec2/models/json/model_{model}.json")
    except PackageNotFoundError as error:
        raise FileNotFoundError("pysunspec2 is not installed: pip install -r requirements.lock") from error
    with Path(str(path)).open(encoding="utf-8") as file:
        points: list[dict[str, Any]] = json.load(file)["group"]["points"]
    return points


class SunSpec(Model):
    """A map made of SunSpec models; a subclass says which, and what is in them."""

    functions: ClassVar[frozenset[int]] = frozenset({READ_HOLDING, ENCAPSULATED})
    default_identification: ClassVar[bool] = True

    def __init__(self, unit: Unit) -> None:
        self._sunspec_fields: list[Field] = []
        super().__init__(unit)

    def models(self) -> list[tuple[int, Contents]]:
        raise NotImplementedError

    def common(self, product: str) -> Contents:
        options: Mapping[str, Any] = self.unit.options
        return {
            "Mn": text_option(options, "manufacturer", "Wattfleet"),
            "Md": text_option(options, "product", product),
            "Vr": "1.0",
            "SN": text_option(options, "serial", f"{self.unit.name}-{self.unit.unit:03d}"),
            "DA": self.unit.unit,
        }

    def make_blocks(self) -> list[Block]:
        data = bytearray(b"SunS")
        for number, contents in self.models():
            self._append(data, number, contents)
        data += b"\xff\xff\x00\x00"
        block = Block(BASE, len(data) // 2)
        block.set(BASE, bytes(data))
        return [block]

    def _append(self, data: bytearray, number: int, contents: Contents) -> None:
        points = definition(number)
        length = sum(int(point["size"]) for point in points) - 2
        for point in points:
            name, size = str(point["name"]), int(point["size"])
            address = BASE + len(data) // 2
            content = {"ID": number, "L": length}.get(name, contents.get(name))
            if point["type"] == "string":
                data += text_registers(content if isinstance(content, str) else "", size)
                continue
            encoding, missing = _TYPES[point["type"]]
            if isinstance(content, tuple):
                key, factor = content
                power = contents.get(str(point.get("sf")), 0)
                scale = factor * 10.0 ** -(power if isinstance(power, int) else 0)
                step = 1.0 if encoding in (UINT32, UINT64) and "energy" in key else 0.0
                self._sunspec_fields.append(Field(key, address, encoding, scale, step))
                data += bytes(2 * size)
            elif isinstance(content, int):
                data += encoding.put(content)
            else:
                data += missing

    def make_fields(self) -> list[Field]:
        return self._sunspec_fields


class Inverter(SunSpec):
    """Points in the site's view: generation negative, generated energy as energy_export."""

    vendor: ClassVar[str] = "Wattfleet"
    product: ClassVar[str] = "simulated inverter"
    revision: ClassVar[str] = "1.0"

    def models(self) -> list[tuple[int, Contents]]:
        watts = _scale(float(self.unit.options.get("peak_power", 250_000)))
        contents: Contents = {
            "A": ("current_sum", 1),
            "A_SF": -1,
            "V_SF": -1,
            "W": ("active_power", -1),
            "W_SF": watts,
            "Hz": ("frequency", 1),
            "Hz_SF": -2,
            "VA": ("apparent_power", 1),
            "VA_SF": watts,
            "VAr": ("reactive_power", -1),
            "VAr_SF": watts,
            "PF": ("power_factor", -100),  # percent
            "PF_SF": -1,
            "WH": ("energy_export", 1),
            "WH_SF": 0,
            "DCA": ("dc_current", 1),
            "DCA_SF": -1,
            "DCV": ("dc_voltage", 1),
            "DCV_SF": -1,
            "DCW": ("dc_power", 1),
            "DCW_SF": watts,
            "TmpCab": ("temperature", 1),
            "Tmp_SF": -1,
            "St": ("state", 1),
            "Evt1": 0,
            "Evt2": 0,
        }
        lines = (("PPVphAB", "l1_l2"), ("PPVphBC", "l2_l3"), ("PPVphCA", "l3_l1"))
        contents |= {name: (f"voltage_{line}", 1.0) for name, line in lines}
        for letter, phase in zip(_PHASE_LETTERS, PHASES, strict=True):
            contents[f"Aph{letter}"] = (f"current_{phase}", 1)
            contents[f"PhVph{letter}"] = (f"voltage_{phase}", 1)
        return [(1, self.common(self.product)), (103, contents)]

    def prepare(self, values: Values) -> Values:
        generating = values["active_power"] < 0
        return values | {
            "current_sum": sum(values[f"current_{phase}"] for phase in PHASES),
            "state": 4.0 if generating else 2.0,  # MPPT, SLEEPING
        }


class BatterySystem(SunSpec):
    """Points in the site's view: charging positive."""

    vendor: ClassVar[str] = "Wattfleet"
    product: ClassVar[str] = "simulated battery"
    revision: ClassVar[str] = "1.0"

    def models(self) -> list[tuple[int, Contents]]:
        capacity = float(self.unit.options.get("capacity", 250_000))
        power = float(self.unit.options.get("power", capacity / 2))
        watts, hours = _scale(power), _scale(capacity)
        bank: Contents = {
            "AHRtg": round(capacity / 740),
            "AHRtg_SF": 0,
            "WHRtg": round(capacity / 10**hours),
            "WHRtg_SF": hours,
            "WChaRteMax": round(power / 10**watts),
            "WDisChaRteMax": round(power / 10**watts),
            "WChaDisChaMax_SF": watts,
            "SoCMax": 950,
            "SoCMin": 100,
            "SoC": ("state_of_charge", 1),
            "SoC_SF": -1,
            "SoH": ("state_of_health", 1),
            "SoH_SF": -1,
            "ChaSt": ("charge_status", 1),
            "LocRemCtl": 1,  # LOCAL
            "AlmRst": 0,
            "Typ": 4,  # LITHIUM_ION
            "State": 3,  # CONNECTED
            "Evt1": 0,
            "Evt2": 0,
            "EvtVnd1": 0,
            "EvtVnd2": 0,
            "V": ("dc_voltage", 1),
            "V_SF": -1,
            "CellV_SF": -3,
            "A": ("dc_current", -1),
            "A_SF": -1,
            "AMax_SF": 0,
            "W": ("active_power", -1),
            "W_SF": watts,
            "SetOp": 1,  # CONNECT
            "SetInvState": 3,  # INVERTER_STARTED
        }
        storage: Contents = {
            "WHRtg": round(capacity / 10**hours),
            "WH_SF": hours,
            "SoC": ("state_of_charge", 1),
            "SoH": ("state_of_health", 1),
            "Pct_SF": -1,
            "Sta": 0,  # OK
        }
        ac: Contents = {
            "ACType": 2,  # THREE_PHASE
            "St": 1,
            "InvSt": 3,  # RUNNING
            "ConnSt": 1,
            "Alrm": 0,
            "DERMode": 1,  # bit 0: GRID_FOLLOWING
            "W": ("active_power", -1),
            "W_SF": watts,
            "VA": ("apparent_power", 1),
            "VA_SF": watts,
            "Var": ("reactive_power", -1),
            "Var_SF": watts,
            "PF": ("power_factor", -1),
            "PF_SF": -3,
            "A": ("current_sum", 1),
            "A_SF": -1,
            "LLV": ("voltage_ll", 1),
            "LNV": ("voltage_ln", 1),
            "V_SF": -1,
            "Hz": ("frequency", 1),
            "Hz_SF": -3,
            "TotWhInj": ("energy_export", 1),
            "TotWhAbs": ("energy_import", 1),
            "TotWh_SF": 0,
        }
        return [(1, self.common(self.product)), (802, bank), (713, storage), (701, ac)]

    def prepare(self, values: Values) -> Values:
        power, charge = values["active_power"], values["state_of_charge"]
        status = 6.0  # HOLDING
        if power:
            status = 4.0 if power > 0 else 3.0  # CHARGING, DISCHARGING
        elif charge < 10.05:
            status = 2.0  # EMPTY
        elif charge > 94.95:
            status = 5.0  # FULL
        return values | {
            "charge_status": status,
            "current_sum": sum(values[f"current_{phase}"] for phase in PHASES),
            "voltage_ln": sum(values[f"voltage_{phase}"] for phase in PHASES) / 3,
            "voltage_ll": sum(values[f"voltage_{line}"] for line in ("l1_l2", "l2_l3", "l3_l1")) / 3,
        }


def _scale(largest: float) -> int:
    """The smallest scale factor with which 1.5 times the largest value fits an int16."""
    scale = 0
    while 1.5 * largest / 10**scale > 32767:
        scale += 1
    return scale
