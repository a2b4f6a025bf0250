# SPDX-License-Identifier: Apache-2.0
"""What ends a command or a service with one line for the operator."""

from __future__ import annotations


class UnusableError(Exception):
    """Something that is needed cannot be used; the message is that line."""
