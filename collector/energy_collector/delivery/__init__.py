# SPDX-License-Identifier: Apache-2.0
"""The delivering service: from the buffer to the hub."""
