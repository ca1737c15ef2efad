"""Look at servers as a stranger does: one bounded question, or the certificate that they show."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from yarl import URL

_LIMIT = 512 * 1024
_PATIENCE = 8.0
_BODY_PATIENCE = 3.0
_SELF_SIGNED = frozenset([18, 19])
_WORDS = {10: "it has expired", 62: "it is for another name", 64: "it is for another address", 9: "it is not valid yet"}


class UnseenError(Exception):
    """Nothing was to be seen, and why; the text names no secret."""


class UnreachableError(UnseenError):
    """Nobody answered at all: other findings say so, and nothing more can be seen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer: when it was asked for and when its head came (epoch seconds), and as much of it as is read."""

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    body: bytes = field(repr=False)
    asked: float = 0.0
    answered: float = 0.0

    def skew(self) -> float | None:
        """See ``skew_of``; None when there is no Date."""
        return skew_of(self.headers.get("Date", ""), self.asked, self.answered)


def skew_of(date: str, asked: float, answered: float) -> float | None:
    """By how many seconds the other clock surely is ahead (below 0: behind); None when *date* cannot be read.

    The header knows whole seconds and was made at some moment between *asked* and *answered*.
    """
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, theirs - answered) or min(0.0, theirs + 1 - asked)


def context_of(ca: Path | None) -> ssl.SSLContext:
    """What verifies a server; raises OSError."""
    return ssl.create_default_context(cafile=ca)


async def fetch(
    url: str, *, ca: Path | None = None, headers: Mapping[str, str] | None = None, verify: bool = True
) -> Seen:
    """GET *url* once, without following redirects or keeping cookies; raises UnseenError."""
    try:
        context = await asyncio.to_thread(context_of, ca)
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=_PATIENCE),
                trust_env=False,
                auto_decompress=False,
            ) as session,
            _asking(session, url, headers or {}) as (response, asked),
        ):
            answered = time.time()
            body = await _bounded(response)
            return Seen(
                response.status,
                response.headers.copy(),
                tuple(response.headers.getall("Set-Cookie", ())),
                body,
                asked,
                answered,
            )
    except TimeoutError:
        message = f"no answer within {_PATIENCE:g} s"
        raise UnreachableError(message) from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise UnseenError(_said(error)) from None
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise UnreachableError(_said(error)) from None
    except (aiohttp.ClientError, ValueError) as error:
        raise UnseenError(_said(error)) from None


@contextlib.asynccontextmanager
async def _asking(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]
) -> AsyncIterator[tuple[aiohttp.ClientResponse, float]]:
    asked = time.time()
    sent = {"Accept-Encoding": "identity", "User-Agent": "sidecar-doctor", **headers}
    async with session.get(URL(url, encoded=True), headers=sent, allow_redirects=False) as response:
        yield response, asked


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """As much of the body as fits and comes in time: who streams for ever has answered, too."""
    content = bytearray()
    with contextlib.suppress(TimeoutError, aiohttp.ClientPayloadError):
        async with asyncio.timeout(_BODY_PATIENCE):
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > _LIMIT:
                    break
    return bytes(content[:_LIMIT])


def _said(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {_certificate_problem(error.certificate_error)}"
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, OSError) and inner.strerror and not isinstance(inner, ssl.SSLError):
        return inner.strerror
    return type(inner).__name__


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server shows: ``problem`` is "" when it is accepted; ``ends`` None when it could not be read."""

    problem: str
    protocol: str
    names: tuple[str, ...] = ()
    issuer: str = ""
    ends: datetime | None = None

    def days(self, now: float) -> float:
        """Days until it ends."""
        return (
            float("inf")
            if self.ends is None
            else (self.ends - datetime.fromtimestamp(now, UTC)).total_seconds() / 86400
        )


async def certificate_of(host: str, port: int, ca: Path | None = None, name: str | None = None) -> Certificate:
    """The certificate of *host*, verified for *name*; raises UnseenError when there is no TLS to look at."""
    trusting = await asyncio.to_thread(context_of, ca)
    try:
        return await _handshake(host, port, trusting, name or host, "")
    except ssl.SSLCertVerificationError as error:
        problem = _certificate_problem(error)
    except TimeoutError:
        message = f"no handshake within {_PATIENCE:g} s"
        raise UnseenError(message) from None
    except ssl.SSLError as error:
        message = (error.reason or type(error).__name__).replace("_", " ").lower()
        raise UnseenError(message) from None
    except OSError as error:
        raise UnreachableError(_said(error)) from None
    lax = ssl.create_default_context()
    lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
    try:
        return await _handshake(host, port, lax, name or host, problem)
    except OSError:
        return Certificate(problem, "")


async def _handshake(host: str, port: int, context: ssl.SSLContext, name: str, problem: str) -> Certificate:
    async with asyncio.timeout(_PATIENCE):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    try:
        tls = writer.get_extra_info("ssl_object")
        return _read(tls.getpeercert(binary_form=True), tls.version() or "", problem)
    finally:
        writer.transport.abort()


def _read(der: bytes, protocol: str, problem: str) -> Certificate:
    certificate = x509.load_der_x509_certificate(der)
    try:
        held = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(held, x509.SubjectAlternativeName)  # noqa: S101 - the class of this OID
        names = tuple(map(str, [*held.get_values_for_type(x509.DNSName), *held.get_values_for_type(x509.IPAddress)]))
    except (x509.ExtensionNotFound, ValueError):
        names = ()
    issuer = certificate.issuer.rfc4514_string()[:200]
    return Certificate(problem, protocol, names[:20], issuer, certificate.not_valid_after_utc)


def _certificate_problem(error: BaseException) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return type(error).__name__
    if error.verify_code in _SELF_SIGNED:
        return "it is self-signed, or of an authority that is not trusted here"
    return _WORDS.get(error.verify_code, error.verify_message)
