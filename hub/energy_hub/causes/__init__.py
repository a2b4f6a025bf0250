# SPDX-License-Identifier: Apache-2.0
"""Why the meters of a site do not agree."""
