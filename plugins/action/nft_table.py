# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Runs the module of the same name; a change of it is confirmed over a new connection."""

from __future__ import annotations

from ansible_collections.wattfleet.energy.plugins.plugin_utils._guarded import GuardedAction


class ActionModule(GuardedAction):
    """The controller's side of nft_table; see the module for its documentation."""

    _requires_connection = True
