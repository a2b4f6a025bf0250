# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the inventory plugin wattfleet.energy.sites does, in plain Python.

document  YAML text to nodes that know their line
kinds     the building blocks of a schema: each reads a node, and writes its own JSON Schema
schema    the site file and the fleet file, written with those blocks: the one source
checks    what no schema of one file can say: networks, buses, rings, redundancy pairs
firewall_keys, firewall_checks, collector_keys, collector_checks, hardening_keys,
radio_keys, radio_checks, rollout_keys, rollout_checks
          the same for those parts
profiles  which meter profiles and payload files exist
fleet     a fleet file and its folder of sites to values, or to the list of all faults
"""
