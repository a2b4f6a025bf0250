# SPDX-License-Identifier: Apache-2.0
"""What the lab says when it cannot go on."""

from __future__ import annotations


class LabError(Exception):
    """One line for the user: what was found, and what to do about it."""
