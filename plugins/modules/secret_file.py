#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A password or another secret in its file, and nowhere else on the way there."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_file
short_description: Write a secret into its file, and nowhere else
version_added: "0.3.0"
description:
  - Writes a text with a secret in it, such as a password, into a file of the host.
  - M(ansible.builtin.copy) and M(ansible.builtin.template) send a file, which lies in temporary folders of the
    controller and of the host on its way, and stays there when the connection breaks. With C(ansible_pipelining),
    which the roles of this collection switch on for such tasks, the text of this module is on no disk before it is
    in the file's own folder.
  - The file is replaced in one step, never readable for more than O(mode) allows, and on the disk when the module
    returns.
options:
  path:
    description: The file. Its folder has to be there. A symbolic link of this name is replaced by the file.
    type: path
    required: true
  content:
    description: The whole text of the file.
    type: str
    required: true
  owner:
    description: User that the file belongs to.
    type: str
    default: root
  group:
    description: Group that the file belongs to.
    type: str
    default: root
  mode:
    description: Mode of the file in octal digits. Nobody but owner and group may have anything of it.
    type: str
    default: "0600"
attributes:
  check_mode:
    description: Says what would be changed, and changes nothing. A folder, user or group that is not there yet is taken
      for what an earlier task would have made.
    support: full
  diff_mode:
    description: Shows owner, group and mode, and of the content only that it is another one.
    support: full
  idempotent:
    description: The second run changes nothing.
    support: full
  platform:
    description: Linux.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Write the password of the radio's broker
  wattfleet.energy.secret_file:
    path: /etc/energy/radio-halls.password
    content: "{{ collector_radio_passwords.halls }}"
    owner: energy
    group: energy
  no_log: true
  vars:
    ansible_pipelining: true
"""

RETURN = r"""
differs:
  description: What was otherwise, of V(content), V(owner), V(group) and V(mode); all of them where there was no file.
  returned: always
  type: list
  elements: str
  sample: [content]
"""

import grp
import hmac
import pwd
import re
import stat
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file

MODE = re.compile(r"0?[0-7]{1,2}0")
KEPT = "content as it was"


class SecretFileError(Exception):
    """One line on what keeps the file from being written."""


def number_of(kind: str, name: str) -> int:
    """The number of a user or group. Raises SecretFileError."""
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise SecretFileError(f"there is no {kind} {name!r} on this host") from None


def found_at(path: Path) -> tuple[dict[str, str], bytes | None]:
    """Owner, group and mode of what is there, and its content; nothing where no regular file is. Raises OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return {}, None
    if not stat.S_ISREG(found.st_mode):
        return {}, None
    return {
        "owner": _name(lambda: pwd.getpwuid(found.st_uid).pw_name, found.st_uid),
        "group": _name(lambda: grp.getgrgid(found.st_gid).gr_name, found.st_gid),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
    }, path.read_bytes()


def _name(look: t.Callable[[], str], number: int) -> str:
    try:
        return look()
    except KeyError:
        return str(number)


def bring(params: dict[str, t.Any], *, check: bool) -> dict[str, t.Any]:
    """Write the file if it differs; the module's result. Raises SecretFileError, OSError."""
    path, data = Path(params["path"]), params["content"].encode()
    if not MODE.fullmatch(params["mode"]):
        raise SecretFileError(
            f"found mode {params['mode']!r}, expected one that leaves others nothing, as '0600'"
        )
    if path.is_dir() and not path.is_symlink():
        raise SecretFileError("found a folder, expected a file or nothing")
    if not check and not path.parent.is_dir():
        raise SecretFileError(f"its folder {path.parent} is not there")
    # An earlier task of a check run would have made what is not there.
    numbers = None if check else (number_of("user", params["owner"]), number_of("group", params["group"]))
    wanted = {"owner": params["owner"], "group": params["group"], "mode": f"{int(params['mode'], 8):04o}"}
    found, content = found_at(path)
    same = content is not None and hmac.compare_digest(content, data)
    differs = [
        *([] if same else ["content"]),
        *(key for key, value in wanted.items() if found.get(key) != value),
    ]
    if differs and not check:
        replace_file(path, params["content"], int(params["mode"], 8), numbers)
    before = {**found, "content": KEPT if same else "another one"} if found else {}
    after = {**wanted, "content": KEPT if same else "the one that is wanted"}
    return {
        "changed": bool(differs),
        "differs": differs,
        "diff": {
            "before_header": str(path),
            "after_header": str(path),
            "before": _lines(before),
            "after": _lines(after),
        },
    }


def _lines(described: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in described.items())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0600"},
        },
        supports_check_mode=True,
    )
    try:
        result = bring(module.params, check=module.check_mode)
    except SecretFileError as error:
        module.fail_json(msg=f"{module.params['path']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{module.params['path']}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
