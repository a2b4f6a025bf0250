# SPDX-License-Identifier: Apache-2.0
"""Meters: from a profile to requests, and from registers to values."""
