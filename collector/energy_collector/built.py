# SPDX-License-Identifier: Apache-2.0
"""When this was made: a wall clock that is earlier is wrong. tools/build_release.py gives a release its own moment."""

# ms since 1970, UTC: 2026-01-01T00:00:00Z.
BUILT = 1_767_225_600_000
