# SPDX-License-Identifier: Apache-2.0
"""The buffer: where readings wait on the disk until the hub has them."""
