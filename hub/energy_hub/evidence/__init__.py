# SPDX-License-Identifier: Apache-2.0
"""What proves that the hub still has what it received: a tree over each site's batches, signed checkpoints of the
trees, and the audit that holds the database against both. docs/reference/checkpoint-format.md is the format."""
