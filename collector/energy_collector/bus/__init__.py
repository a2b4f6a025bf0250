# SPDX-License-Identifier: Apache-2.0
"""The way to the meters: one `Bus` owns one physical endpoint, and all requests to it go through that object.

pymodbus builds and reads the messages. The line below it is our own: pymodbus's client hands a late answer
over
as the answer to the next request on RTU framing (there is no transaction id), repeats requests by itself, and
holds the whole line while it does so.
"""

from energy_collector.bus.bus import Bus
from energy_collector.bus.errors import BusError
from energy_collector.bus.requests import Diagnostics, Identify, ReadBits, ReadRegisters

__all__ = ["Bus", "BusError", "Diagnostics", "Identify", "ReadBits", "ReadRegisters"]
