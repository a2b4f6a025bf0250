# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Who a certificate is for and how long it lasts, with the standard library alone.

Python's ssl module tells the fields of a certificate only after it has verified it, and those that are refused are
the ones worth reading. Sources: ITU-T X.690 (DER); RFC 5280, sections 4.1 and 4.2.1.6.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import pathlib
import re
import typing as t

_DAY = 86400.0
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)

_UTC_TIME, _EXTENSIONS = 0x17, 0xA3
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
# RFC 4514, section 3, and the two that RFC 5280 asks readers to know besides.
_ATTRIBUTES = {
    "550403": "CN",
    "550405": "serialNumber",
    "550406": "C",
    "550407": "L",
    "550408": "ST",
    "55040a": "O",
    "55040b": "OU",
}
_STRINGS = {
    0x1E: "utf-16-be",
    0x14: "latin-1",
    0x1C: "utf-32-be",
}  # BMP, T61, Universal; the others are UTF-8


class UnreadableError(Exception):
    """The file is missing, may not be read, or holds no certificate; the message says which."""


def read(path: str) -> dict[str, t.Any]:
    """parse() of the first certificate in the PEM file `path`."""
    try:
        text = pathlib.Path(path).read_text(encoding="latin-1")
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UnreadableError(f"{path}: no PEM certificate in it")
    try:
        return parse(split_pem(text)[0])
    except (IndexError, UnreadableError) as error:
        raise UnreadableError(f"{path}: {error}") from None


def split_pem(text: str) -> list[bytes]:
    """The certificates in `text`, in DER."""
    try:
        return [base64.b64decode("".join(block.split()), validate=True) for block in _PEM.findall(text)]
    except binascii.Error as error:
        raise UnreadableError(f"a certificate is no base64: {error}") from None


def parse(der: bytes) -> dict[str, t.Any]:
    """`subject` and `issuer` (RFC 4514), `common_name`, `names` (the alternative ones), `serial` (hexadecimal),
    `not_before` and `not_after` (seconds since 1970).
    """
    try:
        certificate = _children(_children(der)[0][1])
        fields = [field for field in _children(certificate[0][1]) if field[0] != 0xA0]
        serial, _algorithm, issuer, validity, subject = (content for _tag, content in fields[:5])
        not_before, not_after = (_time(*field) for field in _children(validity))
        extensions = next((content for tag, content in fields if tag == _EXTENSIONS), b"")
        return {
            "subject": _name_text(subject),
            "issuer": _name_text(issuer),
            "common_name": next((value for key, value in _name(subject) if key == "CN"), None),
            "names": _alternative_names(extensions),
            "serial": f"{int.from_bytes(serial, 'big'):x}",
            "not_before": not_before,
            "not_after": not_after,
        }
    except (IndexError, ValueError) as error:
        raise UnreadableError(f"not a certificate: {error}") from None


def days_left(not_after: float, now: float) -> float:
    """Days from `now` to `not_after`, negative when expired."""
    return round((not_after - now) / _DAY, 2)


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents of the elements in `data`, one after the other."""
    found = []
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets], "big")
            position += octets
        if position + length > len(data):
            raise ValueError("an element is longer than what holds it")
        found.append((tag, data[position : position + length]))
        position += length
    return found


def _name(name: bytes) -> list[tuple[str, str]]:
    parts = []
    for _set, attributes in _children(name):
        for _sequence, attribute in _children(attributes):
            (_oid, kind), (tag, value) = _children(attribute)[:2]
            text = value.decode(_STRINGS.get(tag, "utf-8"), "replace")
            parts.append((_ATTRIBUTES.get(kind.hex(), f"oid:{kind.hex()}"), text))
    return parts


def _name_text(name: bytes) -> str:
    """The most significant part comes last, as RFC 4514 has it, and what would be taken for a separator is escaped."""
    return ",".join(f"{key}={_escaped(value)}" for key, value in reversed(_name(name)))


def _escaped(value: str) -> str:
    return re.sub(r'([,+"\\<>;])', r"\\\1", value)


def _alternative_names(extensions: bytes) -> list[str]:
    names = []
    for _sequence, listed in _children(extensions):
        for _tag, extension in _children(listed):
            parts = _children(extension)
            if parts[0][1] != _ALTERNATIVE_NAMES:
                continue
            for tag, value in _children(_children(parts[-1][1])[0][1]):
                if tag == 0x82:
                    names.append(f"DNS:{value.decode('ascii', 'replace')}")
                elif tag == 0x87 and len(value) in (4, 16):
                    names.append(f"IP:{ipaddress.ip_address(value)}")
    return names


def _time(tag: int, content: bytes) -> float:
    # RFC 5280, section 4.1.2.5: both forms end in Z, and of a year in two digits 50 and above is 19xx.
    text = content.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.timezone.utc).timestamp()
