# SPDX-License-Identifier: Apache-2.0
"""The one error type that the command turns into one line and exit code 1."""


class WattfleetError(Exception):
    """Something a person can act on. The message says where, what was found, and what would be right."""
