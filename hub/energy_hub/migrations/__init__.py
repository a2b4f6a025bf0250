# SPDX-License-Identifier: Apache-2.0
"""Numbered SQL files, NNNN_name.sql. A file that has been released is never edited: a change is a new
file."""
