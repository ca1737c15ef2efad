"""Verify a Response: what comes out was read from signed bytes, and only from them where it is about the person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.document import parse, text_of
from sidecar.logins.saml.encryption import opened, uses_cbc
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.names import SUCCESS
from sidecar.logins.saml.parties import KeyPair
from sidecar.logins.saml.screen import screen
from sidecar.logins.saml.second_opinion import agrees
from sidecar.logins.saml.signatures import signature_of, signed_part
from sidecar.reason import Reason

RESPONSE, ASSERTION = tag("p:Response"), tag("a:Assertion")
_ENCRYPTED = tag("a:EncryptedAssertion")
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True)
class Demand:
    """What an answer must bring: the keys that count (PEM), and what the configuration says of its protection."""

    certificates: tuple[str, ...]
    keys: tuple[KeyPair, ...] = ()
    signed: str = "either"
    must_be_encrypted: bool = False
    weak: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verified:
    """A Response, which is signed only when ``response_is_signed``, and the Assertion, whose bytes always are."""

    response: etree._Element
    assertion: etree._Element
    response_is_signed: bool


def verified(raw: bytes, demand: Demand) -> Verified:
    """Verify the Response in *raw*. Raises Refused and nothing else, whatever *raw* is."""
    return guarded(lambda: _verified(raw, demand))


def guarded(read: Callable[[], _Done]) -> _Done:
    """Result of *read*, which looks at what a stranger sent: what goes wrong there is the stranger's doing."""
    try:
        return read()
    except Refused:
        raise
    except Exception as error:  # parsers and cryptography raise whatever they can; it is never our fault page
        detail = f"SAML: cannot be read: {type(error).__name__}"
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, detail) from error


def _verified(raw: bytes, demand: Demand) -> Verified:
    response = parse(raw)
    screen(response, RESPONSE, demand.weak)
    if response.get("Version") != "2.0":
        raise Refused(Reason.TOKEN_CLAIM, 403, "SAML: Version is not 2.0")
    _check_status(response)
    is_signed = signature_of(response) is not None
    if is_signed:
        response = signed_part(response, demand.certificates)
    elif demand.signed in ("response", "both"):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: the response must be signed (signed)")
    holder = response.find(_ENCRYPTED)
    if holder is not None:
        assertion = _opened(holder, demand, response_is_signed=is_signed)
    else:
        assertion = _plain(response, demand, response_is_signed=is_signed)
    if not agrees(raw, demand.certificates, demand.keys):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: python3-saml does not accept it")
    return Verified(response, assertion, is_signed)


def _plain(response: etree._Element, demand: Demand, *, response_is_signed: bool) -> etree._Element:
    if demand.must_be_encrypted:
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: the assertion must be encrypted (encrypted)")
    assertion = response.find(ASSERTION)
    if assertion is None:
        raise Refused(Reason.TOKEN_CLAIM, 403, "SAML: no assertion")
    return _signed_assertion(assertion, demand, response_is_signed=response_is_signed)


def _opened(holder: etree._Element, demand: Demand, *, response_is_signed: bool) -> etree._Element:
    """Assertion inside *holder*. Every failure is one and the same, so that nobody learns the plain text by asking."""
    if uses_cbc(holder) and not response_is_signed and "aes_cbc" not in demand.weak:
        # CBC tells good padding from bad; so only what the provider itself encrypted is opened.
        raise Refused(Reason.TOKEN_ALGORITHM, 400, "SAML: AES-CBC in a response that is not signed")
    try:
        assertion = opened(holder, demand.keys)
        screen(assertion, ASSERTION, demand.weak)
        return _signed_assertion(assertion, demand, response_is_signed=response_is_signed)
    except Exception as error:  # noqa: BLE001 - the same end for everything
        detail = error.detail if isinstance(error, Refused) else type(error).__name__
        raise Refused(Reason.TOKEN_INVALID, 403, f"SAML: the encrypted assertion: {detail}") from None


def _signed_assertion(assertion: etree._Element, demand: Demand, *, response_is_signed: bool) -> etree._Element:
    if signature_of(assertion) is not None:
        return signed_part(assertion, demand.certificates)
    if demand.signed in ("assertion", "both"):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: the assertion must be signed (signed)")
    if not response_is_signed:
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: neither response nor assertion is signed")
    # It is part of what the response's signature covers: `response` was made of those bytes.
    return assertion


def _check_status(response: etree._Element) -> None:
    """Core, section 3.2.2: say what the provider says, where it does not say Success."""
    codes = [str(code.get("Value", ""))[:200] for code in response.iter(tag("p:StatusCode"))]
    if not codes:
        raise Refused(Reason.TOKEN_CLAIM, 403, "SAML: no status")
    if codes[0] != SUCCESS:
        message = response.find(f"{tag('p:Status')}/{tag('p:StatusMessage')}")
        said = [code.removeprefix("urn:oasis:names:tc:SAML:2.0:status:") for code in codes[:2]]
        if message is not None:
            said.append("".join(letter for letter in text_of(message) if letter.isprintable())[:200])
        raise Refused(Reason.LOGIN_PROVIDER_ERROR, 403, f"SAML: {': '.join(said)}")
