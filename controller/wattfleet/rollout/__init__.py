# SPDX-License-Identifier: Apache-2.0
"""Rollouts: who gets a release when, and who decides that the next may have it.

`states` names what a rollout and a site can be in; `ledger` keeps every step; `windows` and `planning` say when and
in what order; `engine` decides, without a host, a clock or a file of its own; `gates` judge a site's readings.
"""
