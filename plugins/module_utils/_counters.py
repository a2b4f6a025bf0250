# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Communication counters of meters and buses: the device's own (function 08) and the collector's."""

from __future__ import annotations

import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _control,
    _faults,
    _growth,
    _modbus,
    _probe,
    _values,
)

# Sub-functions of function 08: MODBUS Application Protocol Specification V1.1b3, section 6.8.1.
SUBFUNCTIONS = {
    0x0B: "bus_messages",
    0x0C: "crc_errors",
    0x0D: "exceptions",
    0x0E: "server_messages",
    0x0F: "no_responses",
    0x10: "naks",
    0x11: "busy",
    0x12: "overruns",
}
# The counters that only noise, bad cabling or a second master make grow.
WATCHED = ("crc_errors", "frame_errors", "overruns")
_ILLEGAL_FUNCTION = 0x01
# These exceptions say "never", where others say "not now".
_UNSUPPORTED = (_ILLEGAL_FUNCTION, 0x02, 0x03)


def read(
    meters: list[dict[str, t.Any]], socket_path: str, transport: str = "auto"
) -> tuple[_growth.Counters, list[dict[str, t.Any]]]:
    """The counters of one look, and what could not be read: a list of {name, code, error, cause}.

    A device without function 08, or without some of its sub-functions, is not a failure: its counters are
    left out.
    """
    counters: _growth.Counters = {}
    failures: list[dict[str, t.Any]] = []
    by_choice = transport != "direct"
    through_collector = _probe.choose_transport(meters, socket_path, transport) if meters else by_choice
    if through_collector:
        try:
            control = _control.Control(socket_path)
        except (_control.NotRunningError, _faults.FaultError) as error:
            fault = (
                error
                if isinstance(error, _faults.FaultError)
                else _faults.FaultError("COLLECTOR_STOPPED", str(error))
            )
            return {}, [{"name": "collector", **fault.as_dict()}]
        try:
            answer = control.request("counters")
            for kind in ("buses", "meters"):
                counters[kind] = _integers(answer.get(kind))
        except _faults.FaultError as fault:
            failures.append({"name": "collector", **fault.as_dict()})
        try:
            for meter in meters:
                # A meter that is only named has no unit to ask for its own counters.
                if meter["unit"] is not None and meter["bus"] is not None:
                    _device(meter, _asker(control, meter), counters, failures)
                    _registers(meter, lambda one: _probe.CollectorWay(control, one), counters, failures)
        finally:
            control.close()
        return counters, failures
    for meter in meters:
        unaddressed = _probe.no_way(meter)
        if unaddressed is not None:
            failures.append({"name": _probe.label_of(meter), **unaddressed.as_dict()})
            continue
        client = _probe.open_client(meter)
        try:
            _device(meter, _direct_asker(client, meter), counters, failures)
            _registers(meter, _direct_way(client), counters, failures)
        finally:
            client.close()
    return counters, failures


def of_both(first: list[dict[str, t.Any]], second: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The failures of two looks; those of the second where both failed.

    What only the second look has cannot have grown, so that a failure of the first one is one of both.
    """
    failed = {one["name"] for one in second}
    return second + [one for one in first if one["name"] not in failed]


def _asker(control: _control.Control, meter: dict[str, t.Any]) -> t.Callable[[int], int]:
    def ask(subfunction: int) -> int:
        answer = control.request(
            "diagnostics", bus=meter["bus"], unit=meter["unit"], subfunction=subfunction, data=0
        )
        if not isinstance(answer.get("data"), int):
            raise _faults.FaultError("COLLECTOR", "the collector's answer has no integer `data`")
        return int(answer["data"])

    return ask


def _direct_asker(client: _modbus.Client, meter: dict[str, t.Any]) -> t.Callable[[int], int]:
    return lambda subfunction: client.diagnostics(meter["unit"], subfunction)


def _device(
    meter: dict[str, t.Any],
    ask: t.Callable[[int], int],
    counters: _growth.Counters,
    failures: list[dict[str, t.Any]],
) -> None:
    found: dict[str, int] = {}
    for subfunction, counter in SUBFUNCTIONS.items():
        try:
            found[counter] = ask(subfunction)
        except _faults.FaultError as fault:
            if fault.exception == _ILLEGAL_FUNCTION and not found:
                break
            if fault.exception in _UNSUPPORTED:
                continue
            failures.append({"name": _probe.label_of(meter), **fault.as_dict()})
            break
    if found:
        counters.setdefault("devices", {})[_probe.label_of(meter)] = found


def _direct_way(client: _modbus.Client) -> t.Callable[[dict[str, t.Any]], _probe.Way]:
    return lambda one: _probe.DirectWay(client, one)


def _registers(
    meter: dict[str, t.Any],
    way: t.Callable[[dict[str, t.Any]], _probe.Way],
    counters: _growth.Counters,
    failures: list[dict[str, t.Any]],
) -> None:
    """The counters that a device keeps in registers of its own, as its manual lists them."""
    for register in meter.get("registers") or ():
        asked = {**meter, "function": register["function"], "count": _values.width(register["type"])}
        try:
            words = way(asked).read(register["address"])
        except _faults.FaultError as fault:
            name = f"{_probe.label_of(meter)}/{register['counter']}"
            failures.append({"name": name, **fault.as_dict()})
            continue
        value = _values.decode(words, register["type"], register["word_order"])
        counters.setdefault("devices", {}).setdefault(_probe.label_of(meter), {})[register["counter"]] = int(
            value or 0
        )


def _integers(names: t.Any) -> dict[str, dict[str, int]]:
    """Only the integer counters: what else a newer collector may tell is not comparable."""
    if not isinstance(names, dict):
        return {}
    return {
        str(name): {key: value for key, value in values.items() if isinstance(value, int)}
        for name, values in names.items()
        if isinstance(values, dict)
    }
