# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""For action plugins whose host may be cut off while they run."""

from __future__ import annotations

from ansible.plugins.action import ActionBase


class ConnectionAction(ActionBase):
    """Opens connections anew, and has them notice soon that their link is gone."""

    _requires_connection = True

    def _reconnect(self) -> None:
        """The next execution opens a connection of its own."""
        reset = getattr(self._connection, "reset", None)
        if reset is not None:
            reset()

    def _notice_cuts(self, interval: int) -> None:
        """A session that is dead is noticed after three of these, in seconds; what is configured may be much slower."""
        if self._connection.transport == "ssh":
            alive = f"-o ServerAliveInterval={interval} -o ServerAliveCountMax=3"
            words = self._connection.get_option("ssh_args") or ""
            if alive not in words:
                self._connection.set_option("ssh_args", f"{alive} {words}")
