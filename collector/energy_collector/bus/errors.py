# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between us and a meter, in the words that the runbook and the journal use."""

from __future__ import annotations

import errno

from energy_collector import quality

# MODBUS Application Protocol Specification V1.1b3, section 7, in the technician's words.
EXCEPTIONS = {
    0x01: ("illegal function", "the device does not know this function; check the meter's profile"),
    0x02: ("illegal data address", "the device has no such register; check the meter's profile and model"),
    0x03: ("illegal data value", "the device refuses this length; check the meter's profile and model"),
    0x04: ("device failure", "the device reports a fault of its own; look at its display"),
    0x05: ("acknowledge", "the device needs more time; raise the interval"),
    0x06: ("device busy", "another master may be talking to the device, or the interval is too short"),
    0x08: ("memory parity error", "the device's memory is faulty; have it exchanged"),
    0x0A: (
        "gateway path unavailable",
        "the Modbus gateway is misconfigured or overloaded; check its serial port",
    ),
    0x0B: (
        "gateway target failed to respond",
        "no device answers behind the gateway: check its power, unit id, baud rate and wiring",
    ),
}
# A gateway answers with these in place of a unit that does not.
GATEWAY_EXCEPTIONS = (0x0A, 0x0B)


class BusError(Exception):
    """A request that brought no value. `kind` counts it, `quality` marks the readings, `cause` helps to
    mend it. `is_silence` says that the unit itself did not answer."""

    is_silence = False

    def __init__(self, kind: str, text: str, cause: str, code: int) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.cause = cause
        self.quality = code


class TimedOutError(BusError):
    """No answer in time; `came` bytes of one, perhaps. `is_cut` says that the unit was given less than its
    time-out, so that others were not late."""

    is_silence = True

    def __init__(self, timeout: float, came: int = 0, *, is_cut: bool = False) -> None:
        text = f"REGISTER_READ_FAILURE: no answer within {timeout * 1000:.0f} ms"
        if is_cut:
            text = "REGISTER_READ_FAILURE: no answer in the time that the other meters of the bus leave"
        cause = "check the device's power, its unit id, and the wiring"
        if came:
            text = f"REGISTER_READ_FAILURE: the answer ended after {came} bytes"
            cause = "check the wiring, and the time after which the gateway takes a frame to be complete"
        super().__init__("timeouts", text, cause, quality.BAD_NO_ANSWER)


class StillLateError(BusError):
    """The unit was not asked, because an older answer of it may still come and be taken for the new one."""

    is_silence = True

    def __init__(self) -> None:
        super().__init__(
            "held",
            "REGISTER_READ_FAILURE: not asked again yet, a late answer may still come",
            "check the device's power and wiring; where it is only slow, raise the timeout of its bus",
            quality.BAD_NO_ANSWER,
        )


class ExceptionAnswerError(BusError):
    """The device, or the gateway before it, answered with an exception."""

    def __init__(self, code: int) -> None:
        name, cause = EXCEPTIONS.get(code, ("unknown exception", "look the code up in the device's manual"))
        label = f"Modbus Error 0x{code:02X}"
        super().__init__("exceptions", f"{label}: {name}", cause, quality.BAD_DEVICE_FAILURE)
        self.code = code
        self.is_silence = code in GATEWAY_EXCEPTIONS


class BadFrameError(BusError):
    """Bytes came that are no answer to our request. `transaction` is that of the exchange they were meant for,
    where that is known; `is_whole` says that they were its answer, spoilt, so that no other one will come."""

    transaction: int | None = None
    is_whole = False

    def __init__(self, text: str, *, crc: bool = False) -> None:
        if crc:
            label = f"CRC Error: {text}"
            cause = "noise on the line: check shielding, termination (120 ohm at both ends) and earthing"
        else:
            label = f"REGISTER_READ_FAILURE: {text}"
            cause = "a second master on the line, two devices with one unit id, or the wrong bus type"
        super().__init__("crc_errors" if crc else "frame_errors", label, cause, quality.BAD_FRAME)


class NoConnectionError(BusError):
    """The endpoint cannot be reached, or has hung up; `had_answered` says that it was on a connection that had
    worked until then."""

    CAUSES = (
        (
            (errno.ECONNREFUSED,),
            "CONNECTION_REFUSED",
            "nothing listens there, or all connections are taken; check the port and other masters",
        ),
        (
            (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT),
            "EHOSTUNREACH",
            "check the device's power, its address, the cable, and the energy network's interface",
        ),
        (
            (errno.ENOENT, errno.ENODEV),
            "ENODEV",
            "the serial device is missing; check the adapter and the device's name",
        ),
        (
            (errno.EACCES, errno.EPERM),
            "EACCES",
            "the service may not open the device; it needs the group dialout",
        ),
    )

    def __init__(self, endpoint: str, error: OSError, *, had_answered: bool = False) -> None:
        self.had_answered = had_answered
        label = errno.errorcode.get(error.errno or 0, "CONNECTION_LOST")
        cause = "the device or a router in between hung up; the connection is opened again at the next poll"
        for codes, known_label, known_cause in self.CAUSES:
            if error.errno in codes:
                label, cause = known_label, known_cause
        text = f"{label}: no connection to {endpoint} ({error.strerror or error})"
        super().__init__("connection", text, cause, quality.BAD_CONNECTION)
