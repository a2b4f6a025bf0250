# SPDX-License-Identifier: Apache-2.0
"""Real processes on this machine, without a lab: meters that log what they answered, both services of the collector,
mosquitto, the hub's ingest and PostgreSQL.

The collector is a black box: its configuration, its processes, its files.
"""
