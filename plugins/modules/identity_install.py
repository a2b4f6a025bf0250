#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A new certificate that is proven before it replaces the old one, and taken back where it does not serve."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: identity_install
short_description: Put a certificate in place once it is proven
version_added: "0.3.0"
description:
  - Installs the certificate with its chain as C(<name>.crt) and the trusted authorities as C(ca.crt).
  - Verifies on the host, by a TLS handshake in memory, that certificate and key belong together and that the
    chain leads to one of the authorities, by the host's own clock.
  - With O(hub) it then shakes hands with the hub, TLS 1.3 with the new files, and waits for what the hub may
    have against them. No MQTT session is begun, since a name can be logged in only once.
  - Only then the files are renamed into place. What was there before is kept as C(<name>.crt.previous) and
    C(ca.crt.previous).
  - With O(watch_user) it waits until that user's connections to the hub are new ones. Where they do not come
    within O(wait), the old files are put back, and the module fails.
  - Where the hub cannot be reached, a certificate that still serves is not replaced. One that does not serve
    any more is replaced without the hub's word, and the module warns. The first one of a host needs no hub.
  - A key that M(wattfleet.energy.identity_request) has made as C(<name>.next.key) is put in place together with
    its certificate, in one step. A power cut leaves the old two or the new two. What it has left of the change
    itself, the next run clears away.
attributes:
  check_mode:
    description: Says what would be replaced, and proves nothing.
    support: full
  diff_mode:
    description: Shows the certificates before and after, in PEM.
    support: full
  idempotent:
    description: The second run changes nothing.
    support: full
  platform:
    description: Linux.
    platforms: linux
    support: full
requirements:
  - Python 3.10 or newer on the host. Nothing but its standard library is needed.
options:
  directory:
    description: Folder of the files. It has to exist.
    type: path
    default: /etc/ssl/energy
  name:
    description: Base name of the files.
    type: str
    default: gateway
  certificate:
    description: The certificate and the intermediates above it, in PEM.
    type: str
    required: true
  authorities:
    description: The authorities that the host trusts, in PEM.
    type: str
    required: true
  usage:
    description: What the certificate is for.
    type: str
    choices: [client, server]
    default: client
  hub:
    description: The hub's broker, to which the new certificate is proven. Without it the proof ends on the
      host.
    type: dict
    suboptions:
      host:
        description: Name or address that is connected to.
        type: str
        required: true
      port:
        description: TCP port of the broker.
        type: int
        default: 8883
      server_name:
        description: Name that the broker's certificate has to be for. Defaults to O(hub.host).
        type: str
      timeout:
        description: Seconds for each step of the handshake.
        type: float
        default: 10.0
  watch_user:
    description: User whose connections to the hub's port are expected to be made anew with the new files. Only
      those count that are there before the change.
    type: str
  wait:
    description: Seconds that this may take.
    type: int
    default: 60
seealso:
  - module: wattfleet.energy.identity_request
  - module: wattfleet.energy.mqtt_probe
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Put the new certificate in place
  wattfleet.energy.identity_install:
    certificate: "{{ lookup('ansible.builtin.file', 'plant-a.crt') }}"
    authorities: "{{ lookup('ansible.builtin.file', 'ca.crt') }}"
    hub: {host: hub.energy.example}
    watch_user: energy
  register: installed

- name: Tell how it was proven
  ansible.builtin.debug:
    msg: "{{ installed.proof }}; the collector's connection: {{ installed.connection }}"
"""

RETURN = r"""
proof:
  description: V(hub) where the hub has taken the certificate, V(host) where no hub was asked or none answered,
    V(none) where nothing was to be proven.
  returned: always
  type: str
  sample: hub
connection:
  description: V(new) where the connections of O(watch_user) were made anew, V(none) where there were none
    before, V(not watched).
  returned: always
  type: str
  sample: new
seconds:
  description: How long the new connection took, from the change of the files on.
  returned: when RV(connection) is V(new)
  type: float
  sample: 5.2
undone:
  description: Whether the old files were put back.
  returned: on failure
  type: bool
  sample: true
replaced:
  description: The files that were, or would be, replaced.
  returned: always
  type: list
  elements: str
  sample: [gateway.crt]
"""

import os
import pwd
import ssl
import stat
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils._key_pair import KeyPair
from ansible_collections.wattfleet.energy.plugins.module_utils._tls_probe import Target, probe
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import durable

LOOK = 0.25  # s between two looks at the connections
HOLD = 2.0  # s that a new connection has to last: one that the broker refuses ends at once
ESTABLISHED = "01"  # tcp_states.h
# Causes of a probe that say nothing of the certificate: nobody has looked at it.
UNREACHABLE = ("unresolved", "refused", "filtered", "no_route", "timeout")


class NotProvenError(Exception):
    """The new certificate is not put in place; the message says why."""


def no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to open it")


def fault_of(certificate: Path, key: Path, authorities: str, usage: str) -> str:
    """What keeps this certificate from serving, by a handshake in memory with both ends here; '' when nothing does."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    verifying = server if usage == "client" else client
    try:
        verifying.load_verify_locations(cadata=authorities)
        verifying.verify_mode = ssl.CERT_REQUIRED
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            # A client's certificate is shown by both ends: the server has to show one, and nobody looks at that.
            context.load_cert_chain(str(certificate), str(key), password=no_password)
    except FileNotFoundError:
        return "certificate or key is missing"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "it does not belong to the key"
        return f"the files are not usable: {error.reason or error}"
    except (OSError, ValueError) as error:
        return f"the files are not usable: {error}"
    try:
        shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        return f"the chain does not verify: {error.verify_message}"
    except ssl.SSLError as error:
        return f"no handshake comes about with it: {error.reason or error}"
    return ""


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A TLS handshake without a network. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="here"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def connections(uid: int, port: int) -> set[int]:
    """The sockets (by inode) of a user's established connections to a port, proc(5)."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            _address, _colon, remote_port = fields[2].rpartition(":")
            if fields[3] == ESTABLISHED and int(remote_port, 16) == port and int(fields[7]) == uid:
                found.add(int(fields[9]))
    return found


def await_new(look: t.Callable[[], set[int]], before: set[int], wait: float) -> float | None:
    """Wait until the connections are others than before, and last; the seconds until they came, None for never."""
    started = time.monotonic()
    came: dict[int, float] = {}
    while True:
        now = time.monotonic()
        found = look()
        came = {inode: came.get(inode, now) for inode in found - before}
        if came and not found & before and now - min(came.values()) >= HOLD:
            return round(min(came.values()) - started, 2)
        if now - started > wait + HOLD:
            return None
        time.sleep(LOOK)


def beside(path: Path, word: str) -> Path:
    """A file's companion. A key's name ends with .key whatever it is for, so that everybody knows it for a key."""
    return path.with_name(f"{path.stem}.{word}.key" if path.suffix == ".key" else f"{path.name}.{word}")


class File:
    """One file, its content to come, and what it was."""

    def __init__(self, path: Path, text: str | None) -> None:
        self.path = path
        self.next = beside(path, "next")
        self.previous = beside(path, "previous")
        self.text = text
        self._existed = path.exists()

    @property
    def found(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def differs(self) -> bool:
        return self.text is not None and self.found != self.text

    def stage(self) -> None:
        """Write what is to come beside what is. A key is there already."""
        if self.text is not None:
            owner = (0, 0) if os.geteuid() == 0 else None
            durable.write(self.next, self.text.encode(), mode=0o644, owner=owner)

    def unstage(self) -> None:
        if self.text is not None:
            self.next.unlink(missing_ok=True)

    def promote(self) -> None:
        """Both names exist at every moment: the old content gets a second name, then the new takes the first."""
        if self._existed:
            spare = beside(self.path, "spare")
            spare.unlink(missing_ok=True)
            os.link(self.path, spare)
            durable.rename(spare, self.previous)
            # Two names of one file, where a run was cut here: renaming one to the other does nothing.
            spare.unlink(missing_ok=True)
        durable.rename(self.next, self.path)

    def undo(self) -> None:
        if self._existed:
            durable.rename(self.previous, self.path)
        else:
            durable.remove(self.path)


class Install:
    """The files of one identity, and what is to come of them."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        folder, name = Path(params["directory"]), params["name"]
        self.usage = params["usage"]
        self.authorities_text: str = params["authorities"]
        self.hub: dict[str, t.Any] | None = params["hub"]
        self.certificate = File(folder / f"{name}.crt", params["certificate"])
        self.authorities = File(folder / "ca.crt", self.authorities_text)
        self.key = File(folder / f"{name}.key", None)
        self.pair = KeyPair(folder, name)
        self.files = [one for one in (self.authorities, self.certificate) if one.differs()]

    def stage(self) -> None:
        for file in self.files:
            file.stage()

    def unstage(self) -> None:
        for file in self.files:
            file.unstage()

    def staged(self, file: File) -> Path:
        return file.next if file in self.files else file.path

    def choose_key(self) -> None:
        """Take the next key where the certificate belongs to it. Raises NotProvenError."""
        certificate = self.staged(self.certificate)
        fault = fault_of(certificate, self.key.path, self.authorities_text, self.usage)
        if fault and self.key.next.exists():
            fault = fault_of(certificate, self.key.next, self.authorities_text, self.usage)
            if not fault:
                self.files.insert(0, self.key)
        if fault:
            raise NotProvenError(f"the new certificate is not used: {fault}")

    def serves_now(self) -> bool:
        """Whether what is in place could still be used with the authorities to come."""
        return not fault_of(self.certificate.path, self.key.path, self.authorities_text, self.usage)

    def prove(self) -> tuple[str, str]:
        """How it is proven, and a warning. Raises NotProvenError."""
        if self.hub is None or self.usage != "client":
            return "host", ""
        told = probe(
            Target(
                host=self.hub["host"],
                port=self.hub["port"],
                server_name=self.hub["server_name"] or self.hub["host"],
                authorities=self.authorities_text,
                certificate=str(self.staged(self.certificate)),
                key=str(self.staged(self.key)),
                timeout=self.hub["timeout"],
            )
        )
        if told["ok"]:
            return "hub", ""
        cause, message = told["failure"]["cause"], told["failure"]["message"]
        if cause not in UNREACHABLE:
            raise NotProvenError(f"the hub does not take the new certificate, the old one stays: {message}")
        if self.serves_now():
            raise NotProvenError(f"the new certificate cannot be proven, the old one stays: {message}")
        first = self.certificate in self.files and not self.certificate.found
        return "host", "" if first else f"the certificate was installed without the hub's word: {message}"

    def together(self) -> tuple[File, ...]:
        """What changes in one step: a new key is worth nothing beside the old certificate."""
        return (self.key, self.certificate) if self.key in self.files else ()

    def promote(self) -> None:
        for file in self.files:
            if file not in self.together():
                file.promote()
        if self.together():
            self.pair.change(self.key.next, self.staged(self.certificate))

    def undo(self) -> None:
        if self.together():
            self.pair.back()
        for file in reversed(self.files):
            if file not in self.together():
                file.undo()
        self.finish()

    def finish(self) -> None:
        """End a change of the key, this run's or one that was cut. A new key that is not used stays for another try."""
        if not self.pair.is_changing:
            return
        if self.key.next.exists() and self.key.path.exists() and self.key.next.samefile(self.key.path):
            durable.remove(self.key.next)
        durable.remove(self.certificate.next)
        self.pair.finish()


def keep_readable(files: list[File], *, check: bool) -> list[str]:
    """Owner root and mode 0644 for what everybody may read; the names of those that were otherwise."""
    changed = []
    for file in files:
        found = file.path.stat() if file.path.exists() else None
        wanted = (0, 0) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        if found and ((found.st_uid, found.st_gid) != wanted or stat.S_IMODE(found.st_mode) != 0o644):
            changed.append(file.path.name)
            if not check:
                os.chown(file.path, *wanted)
                file.path.chmod(0o644)
    return changed


def run(module: AnsibleModule) -> dict[str, t.Any]:
    """Prove, replace, watch. Raises NotProvenError, OSError, KeyError."""
    params = module.params
    install = Install(params)
    left = install.pair.is_changing
    if left and not module.check_mode:
        install.finish()
    changed = [one.path.name for one in install.files]
    result: dict[str, t.Any] = {"proof": "none", "connection": "not watched"}
    result["diff"] = [
        {
            "before_header": str(one.path),
            "after_header": str(one.path),
            "before": one.found,
            "after": one.text,
        }
        for one in install.files
    ]
    look: t.Callable[[], set[int]] | None = None
    if params["watch_user"] and params["hub"]:
        uid, port = pwd.getpwnam(params["watch_user"]).pw_uid, params["hub"]["port"]

        def look() -> set[int]:
            return connections(uid, port)

    if install.files and not module.check_mode:
        install.stage()
        try:
            install.choose_key()
            result["proof"], warning = install.prove()
        except NotProvenError:
            install.unstage()
            raise
        if warning:
            module.warn(warning)
        before = look() if look else set()
        install.promote()
        changed = [one.path.name for one in install.files]
        if look:
            result["connection"] = "new" if before else "none"
        if look and before:
            seconds = await_new(look, before, params["wait"])
            if seconds is None:
                install.undo()
                module.fail_json(
                    msg=f"{params['watch_user']} has not come back to port {params['hub']['port']} of the hub with "
                    f"the new certificate within {params['wait']} s: the old files are in place again; "
                    "its journal says why",
                    undone=True,
                    replaced=[],
                    **result,
                )
            result["seconds"] = seconds
        install.finish()
    closed = keep_readable([install.certificate, install.authorities], check=module.check_mode)
    result["replaced"] = changed
    return {**result, "changed": bool(changed or closed or left)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/ssl/energy"},
            "name": {"type": "str", "default": "gateway"},
            "certificate": {"type": "str", "required": True},
            "authorities": {"type": "str", "required": True},
            "usage": {"type": "str", "choices": ["client", "server"], "default": "client"},
            "hub": {
                "type": "dict",
                "options": {
                    "host": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 8883},
                    "server_name": {"type": "str"},
                    "timeout": {"type": "float", "default": 10.0},
                },
            },
            "watch_user": {"type": "str"},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except NotProvenError as error:
        module.fail_json(msg=str(error), undone=False, replaced=[], proof="none", connection="not watched")
    except KeyError:
        module.fail_json(msg=f"watch_user: there is no user {module.params['watch_user']}")
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['directory']}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
