# SPDX-License-Identifier: Apache-2.0
"""What happens to readings between the poller and the buffer: counters are judged, voltage events found, fast
samples made statistics."""
