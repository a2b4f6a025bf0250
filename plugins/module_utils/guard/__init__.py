# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The guard: changes of a host that are undone unless somebody comes back and confirms them.

Stdlib only and with relative imports, since the same files run inside a module and as a program of their own.
"""
