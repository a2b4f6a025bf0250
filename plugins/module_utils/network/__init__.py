# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What network_connections is made of: the profiles as text, the faults in what is asked for, the live state of
the devices, and the plan that leads from one to the other.
"""
