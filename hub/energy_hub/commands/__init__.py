# SPDX-License-Identifier: Apache-2.0
"""What `energy-hub` can be told to do. Each module has an `add` for the parser, and what its commands run."""
