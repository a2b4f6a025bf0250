# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A real TLS 1.3 handshake with a server, and the cause in one word when there is none."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import socket
import ssl
import struct
import time
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils import _certificate

# OpenSSL, x509_vfy.h: what verification may say. All else is told by OpenSSL's own words, as a fault of the chain.
_TIME_CODES = (9, 10, 13, 14)
_NAME_CODES = (62, 63, 64)
_CHAIN_HINTS = {
    7: "an authority of that name is trusted, and its key is another: it was made anew",
    18: "it has signed itself and is not among the trusted ones",
    19: "its root is not among the trusted ones",
    20: "its issuer is not among the trusted ones",
    21: "its issuer is not among the trusted ones",
    26: "it is not meant for a server",
}
_VERSION_REASONS = (
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SSL_VERSION",
    "NO_PROTOCOLS_AVAILABLE",
)
_NOT_TLS_REASONS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
# Alerts of RFC 8446, section 6.2, by which a server refuses a client's certificate.
_CLIENT_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a client certificate, and none was shown",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server calls it a bad certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the server takes no certificate for such a use",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "by the server's clock it has expired, or is not valid yet",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server does not accept it",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not know its issuer",
    "TLSV1_ALERT_ACCESS_DENIED": "the server denies it access",
    "TLSV1_ALERT_DECRYPT_ERROR": "its signature, or its issuer's, fits no key that the server knows",
}
_OS_CAUSES = {
    errno.ECONNREFUSED: (
        "refused",
        "nothing listens there: check port, and the server's service and firewall",
    ),
    errno.EHOSTUNREACH: ("no_route", "nobody has this address, or a router says so: check address and link"),
    errno.ENETUNREACH: ("no_route", "this host has no route there: check its gateway and its routes"),
    errno.EACCES: ("filtered", "a route or rule of this host forbids it: check its own firewall and routes"),
    errno.EPERM: ("filtered", "a rule of this host forbids it: check its own firewall"),
    errno.ETIMEDOUT: ("timeout", "no answer: check address and link, and firewalls that drop without a word"),
}
# Linux, linux/in.h, linux/in6.h and linux/errqueue.h: Python names none of them before 3.14.
_RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
_OFFENDER = {
    2: (socket.AF_INET, slice(20, 24)),
    3: (socket.AF_INET6, slice(24, 40)),
}  # by origin: ICMP, ICMPv6
# Type and code by which a filter says no: RFC 1812, section 5.2.7.1; RFC 4443, section 3.1.
_PROHIBITED = {2: ((3, 9), (3, 10), (3, 13)), 3: ((1, 1), (1, 5))}
_PATIENCE = 0.3  # s that a refusal may take to be written by the server, besides its way


class ProbeError(Exception):
    """Why there is no session: `cause` in one word for programs, `message` in one line for people."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message

    def as_dict(self) -> dict[str, str]:
        return {"cause": self.cause, "message": self.message}


class Target(t.NamedTuple):
    """Whom to connect to, whom to trust, and who to be. Certificates and keys are PEM; `certificate` and `key` are
    paths. `timeout` (s) holds for each step."""

    host: str
    port: int
    server_name: str
    authorities: str
    certificate: str | None = None
    key: str | None = None
    timeout: float = 10.0


def probe(target: Target, session: t.Callable[[ssl.SSLSocket], None] | None = None) -> dict[str, t.Any]:
    """Shake hands, have `session` talk, and tell `ok`, `version`, `cipher`, `certificate`, `latency`,
    `client_certificate` and `failure`. Nothing that goes wrong with the peer is raised."""
    result = nothing(target)
    try:
        _shake_hands(target, result, session)
        result["ok"] = True
    except ProbeError as error:
        result["failure"] = error.as_dict()
    return result


def nothing(target: Target) -> dict[str, t.Any]:
    """The result of a probe that has not come to anything yet."""
    return {
        "ok": False,
        "host": target.host,
        "port": target.port,
        "server_name": target.server_name,
        "version": None,
        "cipher": None,
        "certificate": None,
        "latency": {"connect": None, "handshake": None},
        "client_certificate": "none" if target.certificate is None else "unknown",
        "failure": None,
    }


def _shake_hands(
    target: Target, result: dict[str, t.Any], session: t.Callable[[ssl.SSLSocket], None] | None
) -> None:
    context = _context(target)
    started = time.monotonic()
    with _connect(target) as plain:
        connected = time.monotonic()
        result["latency"]["connect"] = round(connected - started, 4)
        with context.wrap_socket(
            plain, server_hostname=target.server_name, do_handshake_on_connect=False
        ) as secure:
            try:
                secure.do_handshake()
            except (OSError, ValueError) as error:
                raise _handshake_error(error, target) from None
            result["latency"]["handshake"] = round(time.monotonic() - connected, 4)
            result["version"] = secure.version()
            result["cipher"] = (secure.cipher() or (None,))[0]
            result["certificate"] = _told(secure.getpeercert(binary_form=True))
            if target.certificate is None and session is None:
                return
            try:
                if session is None:
                    _await_refusal(secure, 2 * (connected - started) + _PATIENCE)
                else:
                    session(secure)
            except OSError as error:
                raise _refusal(error, target, result) from None
            if target.certificate is not None:
                result["client_certificate"] = "accepted"


def _connect(target: Target) -> socket.socket:
    peer = f"{target.host}:{target.port}"
    try:
        addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ProbeError("unresolved", f"{target.host}: the name is not found ({error.strerror})") from None
    except UnicodeError:
        raise ProbeError("unresolved", f"{target.host!r} is no name and no address") from None
    failure = None
    for family, kind, protocol, _canonical, address in addresses:
        try:
            return _connect_to(socket.socket(family, kind, protocol), address, target.timeout)
        except _FilteredError as error:
            failure = ProbeError("filtered", f"{peer}: {error}")
        except TimeoutError:
            hint = _OS_CAUSES[errno.ETIMEDOUT][1]
            failure = ProbeError("timeout", f"{peer}: no connection within {target.timeout:g} s: {hint}")
        except OSError as error:
            cause, hint = _OS_CAUSES.get(error.errno or 0, ("no_route", "the system refuses to connect"))
            failure = ProbeError(cause, f"{peer}: {error.strerror or error}: {hint}")
    raise failure or ProbeError("unresolved", f"{target.host}: the name has no address")


class _FilteredError(Exception):
    """A firewall has said no; the message says which."""


def _connect_to(connection: socket.socket, address: t.Any, timeout: float) -> socket.socket:
    level, option = _RECVERR[connection.family]
    try:
        connection.settimeout(timeout)
        # The same error stands for an address that nobody has and for a firewall; what came by ICMP tells them apart.
        connection.setsockopt(level, option, 1)
        connection.connect(address)
        # From here on an ICMP message of a moment is no reason to end the connection.
        connection.setsockopt(level, option, 0)
    except OSError:
        offender = _prohibitor(connection)
        connection.close()
        if offender:
            raise _FilteredError(
                f"a firewall forbids it, and {offender} says so: check the rules there"
            ) from None
        raise
    return connection


def _prohibitor(connection: socket.socket) -> str:
    """The address that has refused the connection administratively, or nothing."""
    try:
        messages = connection.recvmsg(1024, 1024, socket.MSG_ERRQUEUE)[1]
    except OSError:
        return ""  # no message has come
    for _level, _kind, data in messages:
        _errno, origin, kind, code, _info, _data = _EXTENDED_ERROR.unpack_from(data)
        if (kind, code) in _PROHIBITED.get(origin, ()):
            family, place = _OFFENDER[origin]
            return socket.inet_ntop(family, data[place])
    return ""


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    except (ValueError, ssl.SSLError):
        raise ProbeError("version", f"{ssl.OPENSSL_VERSION} on this host does not speak TLS 1.3") from None
    try:
        context.load_verify_locations(cadata=target.authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ProbeError("files", f"the trusted authorities are not readable: {error}") from None
    if target.certificate is not None:
        try:
            context.load_cert_chain(target.certificate, target.key, password=_no_password)
        except (OSError, ValueError) as error:
            told = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            files = " and ".join(path for path in (target.certificate, target.key) if path)
            raise ProbeError("files", f"{files}: {told}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to open it")


def _handshake_error(error: OSError | ValueError, target: Target) -> ProbeError:
    peer = f"{target.host}:{target.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verification_error(error, target)
    if isinstance(error, TimeoutError):
        return ProbeError("timeout", f"{peer}: connected, but no TLS handshake within {target.timeout:g} s")
    reason = getattr(error, "reason", None) or ""
    if reason in _VERSION_REASONS:
        spoken = _look(target)[0]
        theirs = f"the server speaks {spoken} at most" if spoken else "the server says that it has none"
        return ProbeError("version", f"{peer}: no TLS 1.3 in common: {theirs}, and less is not accepted here")
    if reason in _NOT_TLS_REASONS:
        return ProbeError("not_tls", f"{peer}: what answers does not speak TLS: check the port")
    if isinstance(error, ssl.SSLError) and reason and "ALERT" in reason:
        words = reason.split("ALERT_")[-1].replace("_", " ").lower()
        return ProbeError("handshake", f"{peer}: the server ended the handshake with the alert {words!r}")
    return ProbeError(
        "closed",
        f"{peer}: the connection ended during the TLS handshake ({error}): does this port speak TLS?",
    )


def _verification_error(error: ssl.SSLCertVerificationError, target: Target) -> ProbeError:
    peer = f"{target.host}:{target.port}"
    now = time.time()
    chain = [told for told in map(_told, _look(target)[1]) if told]
    leaf = chain[0]["subject"] if chain else "the server's certificate"
    authorities = [told for told in map(_told, _certificate.split_pem(target.authorities)) if told]
    if error.verify_code in _TIME_CODES:
        for told in chain + authorities:
            if not told["not_before"] <= now <= told["not_after"]:
                return ProbeError("time", f"{peer}: {_time_message(told, now)}")
        return ProbeError("time", f"{peer}: {error.verify_message}; this host's clock says {_utc(now)}")
    if error.verify_code in _NAME_CODES:
        names = (chain[0]["names"] or [chain[0]["common_name"]]) if chain else ["unknown"]
        return ProbeError(
            "name",
            f"{peer}: the certificate is for {', '.join(map(str, names))}, and not for {target.server_name}",
        )
    code = error.verify_code
    # With key identifiers OpenSSL sees that the one of that name is not the issuer, and calls it missing.
    if chain and code in (20, 21) and chain[-1]["issuer"] in {told["subject"] for told in authorities}:
        code = 7
    hint = _CHAIN_HINTS.get(code, error.verify_message)
    issuer = f", issued by {chain[-1]['issuer']}" if chain else ""
    return ProbeError(
        "chain", f"{peer}: {leaf}{issuer}, is not trusted: {hint} (OpenSSL: {error.verify_message})"
    )


def _time_message(told: dict[str, t.Any], now: float) -> str:
    if now < told["not_before"]:
        return (
            f"the certificate of {told['subject']} is not valid before {_utc(told['not_before'])}, and this host's "
            f"clock says {_utc(now)}: set the clock, or wait"
        )
    return (
        f"the certificate of {told['subject']} was valid until {_utc(told['not_after'])}, and this host's clock says "
        f"{_utc(now)}: renew the certificate, or set the clock"
    )


def _look(target: Target) -> tuple[str | None, list[bytes]]:
    """The version and the certificates that the server shows to somebody who asks for nothing; it learns no more of
    this host than its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # The versions that are looked for here may be ones that the system's own policy forbids; then none is told.
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((target.host, target.port), target.timeout) as plain,
        context.wrap_socket(plain, server_hostname=target.server_name) as secure,
    ):
        return secure.version(), _chain(secure)
    return None, []


def _chain(secure: ssl.SSLSocket) -> list[bytes]:
    """The chain as the server sent it; before Python 3.13, which has a method for it, the leaf alone."""
    if hasattr(secure, "get_unverified_chain"):
        return list(secure.get_unverified_chain())
    leaf = secure.getpeercert(binary_form=True)
    return [leaf] if leaf else []


def _await_refusal(secure: ssl.SSLSocket, seconds: float) -> None:
    """Wait for the alert that refuses the client's certificate. In TLS 1.3 the client has finished before the server
    has looked at it."""
    secure.settimeout(seconds)
    with contextlib.suppress(TimeoutError):
        if secure.recv(1) == b"":
            raise ConnectionResetError(
                errno.ECONNRESET, "the server closed the connection after the handshake"
            )


def _refusal(error: OSError, target: Target, result: dict[str, t.Any]) -> ProbeError:
    peer = f"{target.host}:{target.port}"
    if isinstance(error, TimeoutError):
        return ProbeError("timeout", f"{peer}: no answer within {target.timeout:g} s after the TLS handshake")
    reason = getattr(error, "reason", None) or ""
    if reason not in _CLIENT_ALERTS and not isinstance(error, (ConnectionError, ssl.SSLEOFError)):
        return ProbeError("closed", f"{peer}: the connection ended after the TLS handshake: {error}")
    if target.certificate is None:
        # The alert may be overtaken by the end of the connection.
        hint = _CLIENT_ALERTS.get(reason, _CLIENT_ALERTS["TLSV13_ALERT_CERTIFICATE_REQUIRED"])
        return ProbeError("client_certificate", f"{peer}: {hint}")
    result["client_certificate"] = "refused"
    hint = _CLIENT_ALERTS.get(
        reason, "the server ended the connection right after the handshake; see its log"
    )
    mine = ""
    with contextlib.suppress(_certificate.UnreadableError):
        told = _certificate.read(target.certificate)
        mine = f" of {told['subject']}, valid from {_utc(told['not_before'])} to {_utc(told['not_after'])},"
    return ProbeError("client_certificate", f"{peer}: the certificate{mine} is refused: {hint}")


def _told(der: bytes | None) -> dict[str, t.Any] | None:
    """A certificate in fields; None where it is none."""
    if not der:
        return None
    try:
        told = _certificate.parse(der)
    except _certificate.UnreadableError:
        return None
    return {**told, "days_left": _certificate.days_left(told["not_after"], time.time())}


def _utc(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
