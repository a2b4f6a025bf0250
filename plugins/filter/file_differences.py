# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Which files of a host differ from what they should be, by the fact that host_state leaves."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: file_differences
short_description: The files that differ from what they should be
version_added: "0.3.0"
description:
  - Compares C(ansible_facts.energy_host.files) with wanted files on the controller, so that a task that writes a file
    has to run only where it would change something.
  - The result has a reason for each path that differs. It is empty, and so false, where none does.
options:
  _input:
    description:
      - What M(wattfleet.energy.host_state) told of the files.
    type: dict
    required: true
  wanted:
    description:
      - The wanted files by path. Each has some of C(content) (of a file), C(source) (a file on the
        controller with that content), C(sha256) (of it), C(target) (of a
        link), C(type) (V(file), V(directory), V(link), V(absent); follows from the others), C(mode), C(owner), and
        C(group). What is not named is not compared.
    type: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.host_state
"""

EXAMPLES = r"""
- name: Write what differs
  ansible.builtin.copy:
    dest: "{{ item }}"
    content: "{{ wanted[item].content }}"
    owner: "{{ wanted[item].owner }}"
    group: "{{ wanted[item].group }}"
    mode: "{{ wanted[item].mode }}"
  loop: "{{ ansible_facts.energy_host.files | wattfleet.energy.file_differences(wanted) | list }}"
  vars:
    wanted:
      /etc/energy/config.yaml: {content: "{{ settings }}", owner: energy, group: energy, mode: "0600"}
"""

RETURN = r"""
_value:
  description: The reason by path, for those that differ.
  type: dict
  sample: {/etc/energy/config.yaml: "mode is 0644 in place of 0600"}
"""

_KEYS = ("type", "mode", "owner", "group", "sha256", "target")


def file_differences(
    files: t.Mapping[str, t.Mapping[str, t.Any]], wanted: t.Mapping[str, t.Mapping[str, t.Any]]
) -> dict[str, str]:
    """path -> reason, of those of `wanted` that differ from `files`."""
    found = {}
    for path, want in wanted.items():
        reason = _difference(files.get(path), _completed(path, want))
        if reason:
            found[path] = reason
    return found


def _completed(path: str, want: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """`want` in the keys of host_state."""
    unknown = set(want) - {*_KEYS, "content", "source"}
    if unknown:
        known = ", ".join((*_KEYS, "content", "source"))
        raise AnsibleFilterError(
            f"file_differences: {path}: {', '.join(sorted(unknown))} is not among {known}"
        )
    completed = {key: value for key, value in want.items() if key not in ("content", "source")}
    if "content" in want:
        completed["sha256"] = hashlib.sha256(str(want["content"]).encode()).hexdigest()
    if "source" in want:
        completed["sha256"] = _digest(str(want["source"]))
    kind = "file" if "sha256" in completed else "link" if "target" in completed else None
    if kind:
        completed.setdefault("type", kind)
    return completed


def _digest(path: str) -> str:
    try:
        found = pathlib.Path(path).stat()
        return _digest_of(path, found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise AnsibleFilterError(f"file_differences: {path} on the controller: {error.strerror}") from None


@functools.lru_cache(maxsize=16)
def _digest_of(path: str, _changed: int, _size: int) -> str:
    # Once for all sites: the same release goes to each.
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _difference(found: t.Mapping[str, t.Any] | None, want: t.Mapping[str, t.Any]) -> str:
    if found is None:
        if want.get("type") == "absent":
            return ""
        # A pattern that matches nothing names nothing, so what is not there may be absent or was never asked for.
        return "it is not there"
    if found["type"] == "absent" and want.get("type") != "absent":
        return "it is not there"
    for key in _KEYS:
        if key in want and str(found[key]) != str(want[key]):
            return (
                "its content differs" if key == "sha256" else f"{key} is {found[key]} in place of {want[key]}"
            )
    return ""


class FilterModule:
    """Makes the filter known to Ansible."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"file_differences": file_differences}
