# SPDX-License-Identifier: Apache-2.0
"""Meters that report by radio: a Zigbee or LoRaWAN server publishes what they say on an MQTT broker, and the collector
listens there. None of it is imported on a site that has no radio."""
