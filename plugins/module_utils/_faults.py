# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What can go wrong between a gateway and a meter, in the words that the runbooks use, each with its likely
cause.
"""

from __future__ import annotations

import errno
import re

# Exception codes: MODBUS Application Protocol Specification V1.1b3, section 7.
_EXCEPTIONS = {
    0x01: (
        "illegal function",
        "the device does not have this function; try function 3 in place of 4, or 4 in place of 3",
    ),
    0x02: (
        "illegal data address",
        "the device has no such register: check the profile, and whether the address counts from 0 or 1",
    ),
    0x03: (
        "illegal data value",
        "the device refuses this number of registers: check the width of the point in the profile",
    ),
    0x04: (
        "server device failure",
        "the device failed while it answered: look at its display, and restart it",
    ),
    0x05: ("acknowledge", "the device needs longer for this request; raise the time-out"),
    0x06: ("server device busy", "the device is busy: poll less often, and look for a second master"),
    0x08: ("memory parity error", "the device's memory is faulty; it has to be replaced"),
    0x0A: (
        "gateway path unavailable",
        "the Modbus gateway has no bus for this unit: check the unit id and the gateway's routing table",
    ),
    0x0B: (
        "gateway target device failed to respond",
        (
            "the meter did not answer its Modbus gateway in time: raise the time-out from 1000 ms towards "
            "3000 ms, and check unit id, baud rate, parity, wiring and the meter's supply"
        ),
    ),
}

# These exceptions are spoken by a Modbus gateway in the place of a device that stays silent.
GATEWAY_EXCEPTIONS = frozenset({0x0A, 0x0B})

_CAUSES = {
    "EHOSTUNREACH": (
        "routing failure at the network layer: check the device's supply and cable, its address, and the "
        "gateway's energy interface"
    ),
    "ENETUNREACH": "the gateway has no route to the device's network: check the energy interface",
    "CONNECTION_REFUSED": (
        "the device is there but nothing listens on this port: check the port, and whether Modbus TCP is "
        "switched on in the device"
    ),
    "CONNECTION_TIMEOUT": ("the device is off, its address is wrong, or a firewall drops the packets"),
    "CONNECTION_CLOSED": (
        "the device closed the connection: its number of masters is limited, look for a second master"
    ),
    "CONNECTION_FAILED": "the operating system refused the connection: see the error",
    "NAME_UNKNOWN": "the device's name does not resolve; give an address",
    "NO_ANSWER": (
        "connected, but the unit does not answer: check unit id, baud rate, parity, wiring and the meter's "
        "supply; for a slow device raise the time-out from 1000 ms towards 3000 ms"
    ),
    "CRC_ERROR": (
        "line noise on the RS-485 cable: use shielded twisted pair at least 30 cm away from power lines, a "
        "120 ohm resistor at the end of the line, and check baud rate and parity"
    ),
    "FRAME_ERROR": (
        "the answer does not belong to the question: a second master on the bus, two devices with one unit "
        "id, or the wrong framing (modbus-tcp in place of rtu-over-tcp, or the reverse)"
    ),
    "BAD_QUALITY": (
        "the meter does not give every reading that its profile promises: check the profile, and the sensors "
        "behind it"
    ),
    "COLLECTOR": "the collector could not carry out the request: see journalctl -u energy-gateway.service",
    "COLLECTOR_STOPPED": "the collector does not answer: see systemctl status energy-gateway.service",
}

_ERRNO_CODES = {
    errno.EHOSTUNREACH: "EHOSTUNREACH",
    errno.EHOSTDOWN: "EHOSTUNREACH",
    errno.ENETUNREACH: "ENETUNREACH",
    errno.ECONNREFUSED: "CONNECTION_REFUSED",
    errno.ETIMEDOUT: "CONNECTION_TIMEOUT",
    errno.ECONNRESET: "CONNECTION_CLOSED",
    errno.ECONNABORTED: "CONNECTION_CLOSED",
    errno.EPIPE: "CONNECTION_CLOSED",
}

_EXCEPTION_TEXT = re.compile(r"Modbus Error 0x([0-9A-Fa-f]{2})")
_CODES_IN_TEXT = (
    ("CRC Error", "CRC_ERROR"),
    ("no answer within", "NO_ANSWER"),
    ("REGISTER_READ_FAILURE", "FRAME_ERROR"),
    ("EHOSTUNREACH", "EHOSTUNREACH"),
    ("ENETUNREACH", "ENETUNREACH"),
    ("CONNECTION_REFUSED", "CONNECTION_REFUSED"),
    ("no connection to", "CONNECTION_FAILED"),
)


class FaultError(Exception):
    """A failed request: `code` for programs, `error` one line for people, `cause` the likely cause.

    `exception` is the Modbus exception code when the failure is an exception response, else None.
    """

    def __init__(self, code: str, error: str, cause: str = "", exception: int | None = None) -> None:
        super().__init__(error)
        self.code = code
        self.error = error
        self.cause = cause or _CAUSES.get(code, "")
        self.exception = exception

    @property
    def device_answered(self) -> bool:
        """True when the failure is itself an answer of the device asked, and so proves that it is there."""
        return self.exception is not None and self.exception not in GATEWAY_EXCEPTIONS

    def as_dict(self) -> dict[str, object]:
        return {"code": self.code, "error": self.error, "cause": self.cause}


def from_exception_code(code: int, what: str) -> FaultError:
    """The fault for exception `code` answered to `what` (for instance "function 3, address 0")."""
    name, cause = _EXCEPTIONS.get(
        code, ("unknown exception", "the device answers with a code that the standard does not define")
    )
    text = f"Modbus Error 0x{code:02X} ({name}): {what}"
    return FaultError("MODBUS_EXCEPTION", text, cause, code)


def from_os_error(error: OSError, peer: str) -> FaultError:
    """The fault for an operating system error on the way to `peer`."""
    code = _ERRNO_CODES.get(error.errno or 0)
    if code is None and isinstance(error, TimeoutError):
        code = "CONNECTION_TIMEOUT"
    if code is None:
        return FaultError("CONNECTION_FAILED", f"{peer}: {error.strerror or error}")
    return FaultError(code, f"{code}: {peer}")


def from_text(error: str, cause: str) -> FaultError:
    """The fault behind the one line that the collector answers with, so that both ways of asking give the
    same codes.
    """
    match = _EXCEPTION_TEXT.search(error)
    exception = int(match.group(1), 16) if match else None
    code = "COLLECTOR"
    if exception is not None:
        code = "MODBUS_EXCEPTION"
        cause = cause or _EXCEPTIONS.get(exception, ("", ""))[1]
    else:
        code = next((found for word, found in _CODES_IN_TEXT if word in error), code)
    return FaultError(code, error, cause, exception)
