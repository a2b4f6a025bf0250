# SPDX-License-Identifier: Apache-2.0
"""`energy-audit verify`: holds the database against what gateways and hub have signed. It changes nothing."""
