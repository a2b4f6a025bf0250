# SPDX-License-Identifier: Apache-2.0
"""The way to the meters: one `Bus` owns one physical endpoint, and all requests to it go through that object.

pymodbus builds the messages, reads them, and does framing and CRC. The line beneath is our own, since pymodbus's
client cannot do what is asked of it here:

- it hands a late answer over as the answer to the next request on RTU framing (there is no transaction id);
- it repeats requests by itself and holds the whole line while it does so: a dead unit costs its neighbours 12 s;
- it counts nothing by unit, and drops the frames that it refuses without a word;
- one request costs three times the CPU (tests/bench/bench_bus.py).

Importing pymodbus takes 3.1 MB and 50 ms over asyncio's own (2 cores, Python 3.12): its package imports its
simulator and data store whatever one asks it for, so nothing is won by choosing among its modules.
"""

from energy_collector.bus.bus import Bus
from energy_collector.bus.errors import BusError
from energy_collector.bus.requests import Diagnostics, Identify, ReadBits, ReadRegisters

__all__ = ["Bus", "BusError", "Diagnostics", "Identify", "ReadBits", "ReadRegisters"]
