# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What this Python's OpenSSL can speak, asked in the same way on the gateway and on the controller."""

from __future__ import annotations

import ssl


def tls_facts() -> dict[str, object]:
    """Version of OpenSSL, whether it speaks TLS 1.3, and its TLS 1.3 cipher suites by their IANA names."""
    facts: dict[str, object] = {"version": ssl.OPENSSL_VERSION, "tls13": ssl.HAS_TLSv1_3, "ciphers": []}
    if not ssl.HAS_TLSv1_3:
        return facts
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # A system-wide policy (openssl.cnf, crypto-policies) can forbid what the library is able to do.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.maximum_version = ssl.TLSVersion.TLSv1_3
    except (ValueError, ssl.SSLError):
        facts["tls13"] = False
        return facts
    ciphers = [cipher["name"] for cipher in context.get_ciphers() if cipher.get("protocol") == "TLSv1.3"]
    facts["ciphers"] = ciphers
    facts["tls13"] = bool(ciphers)
    return facts
