# SPDX-License-Identifier: Apache-2.0
"""The fleet at a glance: `energy-hub fleet`."""
