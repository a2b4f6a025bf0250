#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A host's private key, made where it stays, and the request for a certificate of it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: identity_request
short_description: Make a private key on the host and the request for its certificate
version_added: "0.3.0"
description:
  - Makes the private key C(<name>.key) where there is none, and writes the certificate signing request
    C(<name>.csr).
  - The key never leaves the host. The module returns the request and nothing of the key.
  - A key that is in use is never overwritten. Where another one is ordered, that is made as C(<name>.next.key),
    the request is for it, and M(wattfleet.energy.identity_install) puts it in place together with its
    certificate.
  - Every file is replaced in one step, and is on the disk when the module returns.
attributes:
  check_mode:
    description: Says what would be made. Where a key would have to be, there is no request to return.
    support: full
  diff_mode:
    description: Shows kind, owner and mode of the key and what would be done, and nothing of the key itself.
    support: full
  idempotent:
    description: The second run changes nothing, also after one that was stopped before the certificate was
      installed.
    support: full
  platform:
    description: Linux.
    platforms: linux
    support: full
requirements:
  - The C(cryptography) library for the host's Python, 38 or newer.
options:
  directory:
    description: Folder of key and request. It has to exist.
    type: path
    default: /etc/ssl/energy
  name:
    description: Base name of the files.
    type: str
    default: gateway
  common_name:
    description: The name that is asked for.
    type: str
    required: true
  subject_alt_names:
    description: Alternative names that are asked for, such as V(DNS:hub.energy.example) or V(IP:192.0.2.10).
    type: list
    elements: str
    default: []
  usage:
    description: Extended key usage that is asked for, C(clientAuth) or C(serverAuth).
    type: str
    choices: [client, server]
    default: client
  key_type:
    description: Kind of key.
    type: str
    choices: [RSA, EC]
    default: RSA
  key_size:
    description: Bits of an RSA key.
    type: int
    default: 4096
  curve:
    description: Curve of an EC key.
    type: str
    choices: [secp256r1, secp384r1]
    default: secp256r1
  new_key:
    description: Have a new key made, whatever the one that is there. A new key that waits for its certificate
      already is taken.
    type: bool
    default: false
  owner:
    description: Owner of the key.
    type: str
    default: root
  group:
    description: Group of the key.
    type: str
    default: root
  mode:
    description: Mode of the key, in octal.
    type: str
    default: "0600"
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Ask for the gateway's certificate
  wattfleet.energy.identity_request:
    common_name: plant-a
    owner: energy
    group: energy
  register: request

- name: Verify that the request is for the site
  ansible.builtin.assert:
    that: (request.csr | community.crypto.openssl_csr_info).subject.commonName == 'plant-a'
"""

RETURN = r"""
csr:
  description: The request in PEM, empty in a check run on a host that has no key yet.
  returned: always
  type: str
  sample: "-----BEGIN CERTIFICATE REQUEST-----\n…"
public_key:
  description: SHA-256 of the public key (SubjectPublicKeyInfo), in hexadecimal.
  returned: always
  type: str
  sample: 9c4b…
is_next:
  description: Whether the request is for a key that is not in use yet.
  returned: always
  type: bool
  sample: false
actions:
  description: What was done, one text each.
  returned: always
  type: list
  elements: str
  sample: [gateway.key made as RSA 4096, gateway.csr written]
"""

import grp
import hashlib
import ipaddress
import os
import pwd
import stat
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

Key = t.Any  # rsa.RSAPrivateKey or ec.EllipticCurvePrivateKey


class Order(t.NamedTuple):
    """The key and the certificate that are wanted."""

    key_type: str
    key_size: int
    curve: str
    common_name: str
    names: list[str]
    usage: str

    @property
    def kind(self) -> str:
        """The kind of key in words."""
        return f"RSA {self.key_size}" if self.key_type == "RSA" else f"EC {self.curve}"


def kind_of(key: Key) -> str:
    """A key's kind, in the words of an order."""
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA {key.key_size}"
    return f"EC {key.curve.name}" if isinstance(key, ec.EllipticCurvePrivateKey) else "unknown"


def make_key(order: Order) -> Key:
    if order.key_type == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=order.key_size)
    return ec.generate_private_key({"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1}[order.curve]())


def load_key(path: Path) -> Key | None:
    """The key in a file; None where there is none, or nothing that can be used."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def key_text(key: Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_bytes(key: t.Any) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def general_names(names: list[str]) -> list[t.Any]:
    """Names such as DNS:a.example and IP:192.0.2.1."""
    result: list[t.Any] = []
    for name in names:
        kind, _colon, value = name.partition(":")
        if kind == "DNS" and value:
            result.append(x509.DNSName(value))
        elif kind == "IP":
            result.append(x509.IPAddress(ipaddress.ip_address(value)))
        else:
            raise ValueError(f"subject_alt_names: {name!r}, expected DNS:… or IP:…")
    return result


def make_request(key: Key, order: Order) -> t.Any:
    """The request that is signed by policy: a name, a usage, and nothing else."""
    usages = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, order.common_name)]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([usages[order.usage]]), critical=False)
    )
    if order.names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(general_names(order.names)), critical=False
        )
    return builder.sign(key, hashes.SHA256())


def is_same_request(found: bytes, wanted: t.Any) -> bool:
    """Whether a request asks for the same, for the same key. Signatures differ from one time to the next."""
    try:
        request = x509.load_pem_x509_csr(found)
        return bool(
            request.is_signature_valid
            and request.subject == wanted.subject
            and public_bytes(request.public_key()) == public_bytes(wanted.public_key())
            and {one.oid: one for one in request.extensions} == {one.oid: one for one in wanted.extensions}
        )
    except ValueError:
        return False


def describe(path: Path) -> str:
    """Kind, owner and mode of a key for the difference that people read."""
    key = load_key(path)
    if not path.exists():
        return "missing"
    found = path.stat()
    kind = kind_of(key) if key is not None else "not usable"
    return f"{kind}, owner {found.st_uid}:{found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}"


class Request:
    """The files of one identity on this host."""

    def __init__(
        self, folder: Path, name: str, order: Order, owner: tuple[int, int], mode: int, *, new_key: bool
    ) -> None:
        self.key_path = folder / f"{name}.key"
        self.next_path = folder / f"{name}.next.key"
        self.csr_path = folder / f"{name}.csr"
        self.certificate_path = folder / f"{name}.crt"
        self._order = order
        self._owner = owner
        self._mode = mode
        self._new_key = new_key
        self.actions: list[str] = []

    def _fits(self, key: Key | None) -> bool:
        return key is not None and kind_of(key) == self._order.kind

    def choose(self) -> tuple[Path, Key | None]:
        """Which file holds the key that the request is for, and that key; None where it has to be made."""
        current, following = load_key(self.key_path), load_key(self.next_path)
        if self._fits(current) and not self._new_key:
            return self.key_path, current
        if current is None or not self.certificate_path.exists():
            # Nobody uses it: there is none, or nothing can read it, or it has no certificate.
            return self.key_path, None
        return self.next_path, following if self._fits(following) else None

    def bring(self, *, check: bool) -> tuple[str, str, bool]:
        """Make what is missing; the request, the digest of its public key, and whether the key is a next one."""
        path, key = self.choose()
        if path == self.key_path and self.next_path.exists():
            self.actions.append(f"{self.next_path.name} dropped: it was not put to use")
            if not check:
                self.next_path.unlink()
        if key is None:
            self.actions.append(f"{path.name} made as {self._order.kind}")
            if check:
                return "", "", path == self.next_path
            key = make_key(self._order)
            replace_file(path, key_text(key), self._mode, self._owner)
        else:
            self._keep_closed(path, check=check)
        wanted = make_request(key, self._order)
        text: str = wanted.public_bytes(serialization.Encoding.PEM).decode()
        digest = hashlib.sha256(public_bytes(key.public_key())).hexdigest()
        try:
            found = self.csr_path.read_bytes()
        except FileNotFoundError:
            found = b""
        if is_same_request(found, wanted):
            text = found.decode()
        else:
            self.actions.append(f"{self.csr_path.name} written")
            if not check:
                replace_file(self.csr_path, text, 0o644, (0, 0) if os.geteuid() == 0 else None)
        return text, digest, path == self.next_path

    def _keep_closed(self, path: Path, *, check: bool) -> None:
        found = path.stat()
        if (found.st_uid, found.st_gid) != self._owner:
            self.actions.append(f"{path.name} given to {self._owner[0]}:{self._owner[1]}")
            if not check:
                os.chown(path, *self._owner)
        if stat.S_IMODE(found.st_mode) != self._mode:
            self.actions.append(f"{path.name} set to mode {self._mode:04o}")
            if not check:
                path.chmod(self._mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/ssl/energy"},
            "name": {"type": "str", "default": "gateway"},
            "common_name": {"type": "str", "required": True},
            "subject_alt_names": {"type": "list", "elements": "str", "default": []},
            "usage": {"type": "str", "choices": ["client", "server"], "default": "client"},
            "key_type": {"type": "str", "choices": ["RSA", "EC"], "default": "RSA", "no_log": False},
            "key_size": {"type": "int", "default": 4096, "no_log": False},
            "curve": {"type": "str", "choices": ["secp256r1", "secp384r1"], "default": "secp256r1"},
            "new_key": {"type": "bool", "default": False, "no_log": False},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0600"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if MISSING:
        module.fail_json(msg=f"this needs python3-cryptography on the host: {MISSING}")
    order = Order(
        asked["key_type"],
        asked["key_size"],
        asked["curve"],
        asked["common_name"],
        asked["subject_alt_names"],
        asked["usage"],
    )
    if order.key_type == "RSA" and not 2048 <= order.key_size <= 16384:
        module.fail_json(msg=f"key_size: found {order.key_size}, an RSA key has 2048 to 16384 bits")
    try:
        owner = pwd.getpwnam(asked["owner"]).pw_uid, grp.getgrnam(asked["group"]).gr_gid
        mode = int(asked["mode"], 8)
        general_names(order.names)
    except KeyError as error:
        module.fail_json(msg=f"owner or group of the key: {error.args[0]}")
    except ValueError as error:
        module.fail_json(msg=str(error))
    folder = Path(asked["directory"])
    request = Request(folder, asked["name"], order, owner, mode, new_key=asked["new_key"])
    before = {path.name: describe(path) for path in (request.key_path, request.next_path)}
    try:
        csr, digest, is_next = request.bring(check=module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or folder}: {error.strerror}")
    after = {path.name: describe(path) for path in (request.key_path, request.next_path)}
    module.exit_json(
        changed=bool(request.actions),
        actions=request.actions,
        csr=csr,
        public_key=digest,
        is_next=is_next,
        diff={
            "before": "".join(f"{name}: {what}\n" for name, what in before.items()),
            "after": "".join(f"{name}: {what}\n" for name, what in after.items())
            + "".join(f"{action}\n" for action in request.actions),
        },
    )


if __name__ == "__main__":
    main()
