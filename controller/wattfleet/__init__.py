# SPDX-License-Identifier: Apache-2.0
"""The wattfleet command: the lab, provisioning runs, and what a person sees of them."""

__version__ = "0.3.0"
