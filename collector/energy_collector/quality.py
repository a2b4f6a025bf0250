# SPDX-License-Identifier: Apache-2.0
"""Quality codes of readings, as docs/reference/wire-format.md lists them.

0 to 63 are good, 64 to 127 uncertain, 128 to 255 bad. Bad readings have no value, and only they have none.
"""

from __future__ import annotations

GOOD = 0
GOOD_LOCAL_OVERRIDE = 1
GOOD_COUNTER_ROLLOVER = 2
UNCERTAIN = 64
UNCERTAIN_CLOCK = 65
UNCERTAIN_OUT_OF_RANGE = 66
UNCERTAIN_COUNTER_RESET = 67
UNCERTAIN_METER_EXCHANGED = 68
UNCERTAIN_INCOMPLETE = 69
BAD = 128
BAD_NO_ANSWER = 129
BAD_DEVICE_FAILURE = 130
BAD_FRAME = 131
BAD_CONNECTION = 132
BAD_SENSOR = 133
BAD_CONFIGURATION = 134

NAMES = {
    GOOD: "good",
    GOOD_LOCAL_OVERRIDE: "good_local_override",
    GOOD_COUNTER_ROLLOVER: "good_counter_rollover",
    UNCERTAIN: "uncertain",
    UNCERTAIN_CLOCK: "uncertain_clock",
    UNCERTAIN_OUT_OF_RANGE: "uncertain_out_of_range",
    UNCERTAIN_COUNTER_RESET: "uncertain_counter_reset",
    UNCERTAIN_METER_EXCHANGED: "uncertain_meter_exchanged",
    UNCERTAIN_INCOMPLETE: "uncertain_incomplete",
    BAD: "bad",
    BAD_NO_ANSWER: "bad_no_answer",
    BAD_DEVICE_FAILURE: "bad_device_failure",
    BAD_FRAME: "bad_frame",
    BAD_CONNECTION: "bad_connection",
    BAD_SENSOR: "bad_sensor",
    BAD_CONFIGURATION: "bad_configuration",
}


def is_bad(code: int) -> bool:
    """Whether a reading of this quality has no value."""
    return code >= BAD


def name(code: int) -> str:
    """The code's name; a code that this version does not know is named by its number."""
    return NAMES.get(code, f"quality_{code}")
