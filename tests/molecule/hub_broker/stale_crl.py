# SPDX-License-Identifier: Apache-2.0
"""Prints a revocation list of 30 days, signed by an authority: stale_crl.py FOLDER PASSPHRASE_FILE DAYS_LEFT.

Days below zero: it has ended.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

folder, passphrase = Path(sys.argv[1]), Path(sys.argv[2]).read_text().strip()
issuer = x509.load_pem_x509_certificate((folder / "intermediate.crt").read_bytes())
key = serialization.load_pem_private_key((folder / "intermediate.key").read_bytes(), passphrase.encode())
ends = datetime.now(UTC) + timedelta(days=float(sys.argv[3]), minutes=1)
made = (
    x509.CertificateRevocationListBuilder()
    .issuer_name(issuer.subject)
    .last_update(ends - timedelta(days=30))
    .next_update(ends)
    .add_extension(x509.CRLNumber(1), critical=False)
    .sign(key, hashes.SHA384())  # type: ignore[arg-type]  # an authority's key can sign
)
print(made.public_bytes(serialization.Encoding.PEM).decode(), end="")
