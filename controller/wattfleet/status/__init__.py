# SPDX-License-Identifier: Apache-2.0
"""`wattfleet status`: the fleet at a glance, in the terminal and as one page."""
