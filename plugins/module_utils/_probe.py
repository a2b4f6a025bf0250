# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Asks meters whether they answer: through the running collector where there is one, else over an own
connection.

Buses are asked at the same time, the meters of one bus one after the other: a bus has one master and one
question at a time.
"""

from __future__ import annotations

import time
import typing as t
from concurrent import futures

from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _control,
    _faults,
    _modbus,
    _serial_line,
    _values,
)

METER_OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str"},
    "meter": {"type": "str"},
    "bus": {"type": "str"},
    "host": {"type": "str"},
    "port": {"type": "int", "default": 502},
    "framing": {"type": "str", "choices": [_modbus.TCP, _modbus.RTU_OVER_TCP], "default": _modbus.TCP},
    "device": {"type": "path"},
    "baudrate": {"type": "int", "choices": list(_serial_line.BAUDRATES), "default": 9600},
    "parity": {"type": "str", "choices": list(_serial_line.PARITIES), "default": "N"},
    "stopbits": {"type": "int", "choices": [1, 2], "default": 1},
    "unit": {"type": "int"},
    "function": {"type": "int", "choices": [1, 2, 3, 4], "default": 3},
    "address": {"type": "int"},
    "count": {"type": "int"},
    "type": {"type": "str", "choices": list(_values.TYPES), "default": "uint16"},
    "word_order": {"type": "str", "choices": list(_values.WORD_ORDERS), "default": "big"},
    "scale": {"type": "float", "default": 1.0},
    "expected": {"type": "float"},
    "tolerance": {"type": "float", "default": 0.05},
    "ct_ratio": {"type": "str"},
    "search": {"type": "bool", "default": False},
    "search_units": {"type": "list", "elements": "int", "default": list(range(1, 11))},
    "identify": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 1.0},
}
TRANSPORTS = ("auto", "collector", "direct")
_AT_ONCE = 16


class OptionError(ValueError):
    """Options that make no sense together; the message says which, and what would be right."""


def check(meter: dict[str, t.Any]) -> dict[str, t.Any]:
    """The options of one meter with the count filled in; OptionError when they contradict each other."""
    label = label_of(meter)
    if meter["meter"] is None and meter["unit"] is None:
        raise OptionError(f"{label}: name the collector's `meter`, or give the `unit` id")
    if meter["meter"] is not None and meter["address"] is not None and meter["bus"] is None:
        raise OptionError(
            f"{label}: a register of a collector's meter is named by `bus`, `unit` and `address`"
        )
    if meter["expected"] is not None and meter["address"] is None:
        raise OptionError(f"{label}: `expected` needs the `address` of the register to compare")
    if meter["unit"] is not None and not 0 <= meter["unit"] <= 255:
        raise OptionError(f"{label}: unit {meter['unit']} is outside of 0 to 255")
    if meter["device"] is not None and meter["host"] is not None:
        raise OptionError(
            f"{label}: give the `host` of a device, or the serial `device` that it is on, not both"
        )
    outside = [unit for unit in meter["search_units"] if not 1 <= unit <= 247]
    if outside:
        raise OptionError(f"{label}: search_units: unit {outside[0]} is outside of 1 to 247")
    if meter["search"] and meter["unit"] is None:
        raise OptionError(f"{label}: `search` compares unit ids: give the `unit` that is expected")
    if not 1 <= meter["port"] <= 65535:
        raise OptionError(f"{label}: port {meter['port']} is outside of 1 to 65535")
    if meter["timeout"] <= 0:
        raise OptionError(f"{label}: timeout {meter['timeout']:g} must be above 0 s")
    if meter["tolerance"] < 0:
        raise OptionError(f"{label}: tolerance {meter['tolerance']:g} must not be negative")
    bits = meter["function"] in (_modbus.READ_COILS, _modbus.READ_DISCRETE_INPUTS)
    if bits and meter["expected"] is not None:
        raise OptionError(f"{label}: `expected` compares registers; functions 1 and 2 read bits")
    count = meter["count"] or (1 if bits or meter["address"] is None else _values.width(meter["type"]))
    most = 2000 if bits else 125
    if not 1 <= count <= most:
        raise OptionError(
            f"{label}: count {count} is outside of 1 to {most}, all that function {meter['function']} reads"
        )
    if not bits and meter["address"] is not None and count < _values.width(meter["type"]):
        raise OptionError(
            f"{label}: count {count} is too few: {meter['type']} takes {_values.width(meter['type'])}"
        )
    if meter["address"] is not None and not 0 <= meter["address"] <= 65536 - count:
        raise OptionError(f"{label}: address {meter['address']} with count {count} leaves 0 to 65535")
    if meter["ct_ratio"] is not None:
        try:
            _values.parse_ratio(meter["ct_ratio"])
        except ValueError as error:
            raise OptionError(f"{label}: {error}") from None
    return {**meter, "count": count}


def with_defaults(meter: dict[str, t.Any]) -> dict[str, t.Any]:
    """`meter` checked, with the defaults of every option that it leaves out."""
    defaults = {option: spec.get("default") for option, spec in METER_OPTIONS.items()}
    return check({**defaults, **meter})


def label_of(meter: dict[str, t.Any]) -> str:
    """The name under which a meter is reported."""
    place = meter["bus"] or meter["host"] or meter.get("device")
    return str(meter["name"] or meter["meter"] or f"{place}/{meter['unit']}")


def probe_all(
    meters: list[dict[str, t.Any]], socket_path: str, transport: str = "auto"
) -> list[dict[str, t.Any]]:
    """One result for each of `meters` (checked), in their order. Raises OptionError for meters that cannot be
    asked this way.
    """
    through_collector = choose_transport(meters, socket_path, transport)
    buses: dict[t.Any, list[int]] = {}
    for index, meter in enumerate(meters):
        key = meter["bus"] or meter["meter"] if through_collector else _place(meter)
        buses.setdefault(key, []).append(index)
    results: list[dict[str, t.Any]] = [{} for _meter in meters]

    def ask_bus(indices: list[int]) -> None:
        group = [meters[index] for index in indices]
        answers = _through_collector(group, socket_path) if through_collector else _direct(group)
        for index, answer in zip(indices, answers, strict=True):
            results[index] = answer

    with futures.ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for done in [pool.submit(ask_bus, indices) for indices in buses.values()]:
            done.result()
    return results


def choose_transport(meters: list[dict[str, t.Any]], socket_path: str, transport: str) -> bool:
    """True for the collector's socket, False for own connections. Never both: a bus has one master."""
    if transport == "direct":
        running = False
        # What is on the network may have several masters; a serial line has one, whatever is asked for.
        serial = next((meter for meter in meters if meter.get("device") is not None), None)
        if serial is not None and _collector_runs(socket_path):
            raise OptionError(
                f"{label_of(serial)}: the collector runs here, and a serial line has one master: use transport auto"
            )
    else:
        running = _collector_runs(socket_path)
        if transport == "collector" and not running:
            raise OptionError(
                f"no collector listens on {socket_path}; start energy-gateway.service, or use transport auto"
            )
    for meter in meters:
        if running and meter["meter"] is None and meter["bus"] is None:
            raise OptionError(
                f"{label_of(meter)}: the collector runs here and is the one master of its buses; name "
                "the `bus`, or set transport to direct for a device that is on none of them"
            )
    return running


def no_way(meter: dict[str, t.Any]) -> _faults.FaultError | None:
    """Why `meter` cannot be asked over a connection of our own (a serial bus, for instance), None when it
    can.
    """
    options = ("unit",) if meter.get("device") is not None else ("host", "unit")
    missing = next((option for option in options if meter[option] is None), None)
    if missing is None:
        return None
    error = f"{label_of(meter)}: no collector was asked, and without `{missing}` there is no other way to ask"
    return _faults.FaultError("COLLECTOR_STOPPED", error)


def _collector_runs(socket_path: str) -> bool:
    try:
        _control.Control(socket_path).close()
    except _control.NotRunningError:
        return False
    except _faults.FaultError as fault:
        raise OptionError(f"{fault.error}: whether the collector runs cannot be told; run as root") from None
    return True


def _through_collector(meters: list[dict[str, t.Any]], socket_path: str) -> list[dict[str, t.Any]]:
    try:
        control = _control.Control(socket_path)
    except (_control.NotRunningError, _faults.FaultError) as error:
        fault = (
            error
            if isinstance(error, _faults.FaultError)
            else _faults.FaultError("COLLECTOR_STOPPED", str(error))
        )
        return [_failed(meter, "collector", fault) for meter in meters]
    try:
        return [_one(meter, "collector", CollectorWay(control, meter)) for meter in meters]
    finally:
        control.close()


def _direct(meters: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    results = []
    client: _modbus.Client | None = None
    settings: t.Any = None
    try:
        for meter in meters:
            unaddressed = no_way(meter)
            if unaddressed is not None:
                results.append(_failed(meter, "direct", unaddressed))
                continue
            wanted = (_place(meter), meter["framing"], meter["timeout"])
            if client is None or wanted != settings:
                if client is not None:
                    client.close()
                client, settings = open_client(meter), wanted
            results.append(_one(meter, "direct", DirectWay(client, meter)))
    finally:
        if client is not None:
            client.close()
    return results


def open_client(meter: dict[str, t.Any], parity: str | None = None) -> _modbus.Client:
    """A client of our own for `meter`, which connects when it is first asked; on a serial line with another `parity`
    if one is given."""
    if meter.get("device") is None:
        return _modbus.Client(meter["host"], meter["port"], meter["framing"], meter["timeout"])
    return _modbus.SerialClient(
        meter["device"], meter["baudrate"], parity or meter["parity"], meter["stopbits"], meter["timeout"]
    )


def _place(meter: dict[str, t.Any]) -> t.Any:
    """Where a meter is: what two meters share is asked one after the other."""
    if meter.get("device") is not None:
        return meter["device"], meter["baudrate"], meter["parity"], meter["stopbits"]
    return meter["host"], meter["port"]


class DirectWay:
    def __init__(self, client: _modbus.Client, meter: dict[str, t.Any]) -> None:
        self._client = client
        self._meter = meter

    def read(self, address: int, unit: int | None = None) -> list[int]:
        asked = self._meter["unit"] if unit is None else unit
        return self._client.read(asked, self._meter["function"], address, self._meter["count"])

    def parities(self, address: int) -> list[str]:
        """Other parities with which this unit answers on its serial line."""
        if self._meter["device"] is None:
            return []
        # A line has one owner at a time, this process too.
        self._client.close()
        found = []
        for parity in _serial_line.PARITIES:
            if parity == self._meter["parity"]:
                continue
            client = open_client(self._meter, parity)
            try:
                client.read(self._meter["unit"], self._meter["function"], address, self._meter["count"])
                found.append(parity)
            except _faults.FaultError as fault:
                if fault.device_answered:
                    found.append(parity)
            finally:
                client.close()
        return found

    def identify(self) -> dict[str, str]:
        return self._client.identify(self._meter["unit"])


class CollectorWay:
    def __init__(self, control: _control.Control, meter: dict[str, t.Any]) -> None:
        self._control = control
        self._meter = meter

    def parities(self, _address: int) -> list[str]:
        """None: the line is the collector's, and it keeps its settings while it runs."""
        return []

    def read(self, address: int, unit: int | None = None) -> list[int]:
        function = self._meter["function"]
        answer = self._control.request(
            "read",
            bus=self._meter["bus"],
            unit=self._meter["unit"] if unit is None else unit,
            function=function,
            address=address,
            count=self._meter["count"],
        )
        field = "bits" if function in (_modbus.READ_COILS, _modbus.READ_DISCRETE_INPUTS) else "registers"
        data = answer.get(field)
        if not isinstance(data, list) or len(data) < self._meter["count"]:
            raise _faults.FaultError(
                "COLLECTOR", f"the collector's answer has no {self._meter['count']} {field}"
            )
        return [int(value) for value in data[: self._meter["count"]]]

    def read_meter(self) -> list[dict[str, t.Any]]:
        readings = self._control.request("read_meter", meter=self._meter["meter"]).get("readings")
        if not isinstance(readings, list):
            raise _faults.FaultError("COLLECTOR", "the collector's answer has no list `readings`")
        return readings

    def identify(self) -> dict[str, str]:
        objects = self._control.request("identify", bus=self._meter["bus"], unit=self._meter["unit"]).get(
            "objects"
        )
        return {str(name): str(value) for name, value in objects.items()} if isinstance(objects, dict) else {}


# How a meter is asked; both can do the same, but for what only one's line allows.
Way = t.Union[DirectWay, CollectorWay]


def _empty(meter: dict[str, t.Any], way_name: str) -> dict[str, t.Any]:
    return {
        "name": label_of(meter),
        "bus": meter["bus"],
        "unit": meter["unit"],
        "transport": way_name,
        "reachable": False,
        "latency": None,
        "registers": None,
        "value": None,
        "readings": None,
        "identification": None,
        "matches": None,
        "findings": [],
        "failure": None,
    }


def _failed(meter: dict[str, t.Any], way_name: str, fault: _faults.FaultError) -> dict[str, t.Any]:
    return {**_empty(meter, way_name), "failure": fault.as_dict()}


def _one(meter: dict[str, t.Any], way_name: str, way: t.Any) -> dict[str, t.Any]:
    """The result of one meter; what goes wrong with it is told in `failure`, and never raised."""
    result = _empty(meter, way_name)
    started = time.monotonic()
    try:
        if way_name == "collector" and meter["meter"] is not None and meter["address"] is None:
            _judge_readings(way.read_meter(), result)
        elif meter["address"] is None:
            _knock(way, result)
        else:
            _read_and_compare(way, meter, result)
    except _faults.FaultError as fault:
        result["reachable"] = fault.device_answered
        result["failure"] = fault.as_dict()
    result["latency"] = round(time.monotonic() - started, 6)
    if meter["search"] and (
        not result["reachable"] or (result["matches"] is False and not result["findings"])
    ):
        result["findings"] = _search(way, meter, result["reachable"])
    if meter["identify"] and result["reachable"] and (way_name == "direct" or meter["bus"] is not None):
        try:
            result["identification"] = way.identify()
        except _faults.FaultError:
            # Few meters have function 43/14; that one is without it says nothing about its health.
            result["identification"] = {}
    return result


def _knock(way: t.Any, result: dict[str, t.Any]) -> None:
    """Asks for register 0. Any answer of the device itself will do, an exception too: the question is who is
    there.
    """
    try:
        result["registers"] = way.read(0)
    except _faults.FaultError as fault:
        if not fault.device_answered:
            raise
    result["reachable"] = True


def _search(way: t.Any, meter: dict[str, t.Any], reachable: bool) -> list[dict[str, str]]:
    """Whether the device answers with another parity, or another unit gives what this one should. A unit that holds
    the expected value says more than one that only answers."""
    address = meter["address"] or 0
    if not reachable:
        found = way.parities(address)
        if found:
            message = (
                f"unit {meter['unit']} answers with parity {' and '.join(found)}, and not with {meter['parity']}: "
                "set the parity of the bus"
            )
            return [{"finding": "parity", "message": message}]
    here = "answers with another value" if reachable else "does not answer"
    answering = []
    for unit in meter["search_units"]:
        if unit == meter["unit"]:
            continue
        try:
            registers = way.read(address, unit)
        except _faults.FaultError as fault:
            if fault.device_answered:
                answering.append(unit)
            continue
        answering.append(unit)
        if meter["expected"] is not None and _values.close(
            _values.decode(registers, meter["type"], meter["word_order"], meter["scale"]),
            meter["expected"],
            meter["tolerance"],
        ):
            message = f"unit {meter['unit']} {here}, and unit {unit} with the expected one: set the unit id to {unit}"
            return [{"finding": "unit", "message": message}]
    # With a value to compare, a unit that holds another one explains nothing where this unit answers too.
    if not answering or reachable:
        return []
    listed = " and ".join(map(str, answering))
    message = (
        f"unit {meter['unit']} {here}, and on the same bus unit {listed} does: check the unit id at the meter"
    )
    return [{"finding": "unit", "message": message}]


def _read_and_compare(way: t.Any, meter: dict[str, t.Any], result: dict[str, t.Any]) -> None:
    data = way.read(meter["address"])
    result["reachable"] = True
    result["registers"] = data
    if meter["function"] in (_modbus.READ_COILS, _modbus.READ_DISCRETE_INPUTS):
        return
    encoding = (meter["type"], meter["word_order"], meter["scale"])
    result["value"] = _values.decode(data, *encoding)
    if meter["expected"] is not None:
        result["matches"] = _values.close(result["value"], meter["expected"], meter["tolerance"])
        result["findings"] = _values.explain(
            data, meter["expected"], meter["tolerance"], *encoding, meter["ct_ratio"]
        )


def _judge_readings(readings: list[dict[str, t.Any]], result: dict[str, t.Any]) -> None:
    """A meter is reachable when at least one reading has a value; readings without one are named with their
    quality.
    """
    result["readings"] = readings
    bad = [reading for reading in readings if reading.get("value") is None]
    result["reachable"] = len(bad) < len(readings)
    if bad:
        listed = ", ".join(f"{reading.get('point')} ({reading.get('quality')})" for reading in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        result["failure"] = _faults.FaultError("BAD_QUALITY", f"no value for {listed}{more}").as_dict()
    elif not readings:
        result["failure"] = _faults.FaultError("BAD_QUALITY", "the meter has no readings").as_dict()
