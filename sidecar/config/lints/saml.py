"""Check SAML logins: that their provider can be believed, and that lines which need each other are there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import is_loopback, split_url
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.saml import SamlLogin

_FINGERPRINT = re.compile(r"([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")
# What a form may bring at all is half a mebibyte, and base64 is a third longer than what it stands for.
_LONGEST_ANSWER = 320 * 1024
# The same as OWN_CLAIMS of the logins, which are above this room; a test compares them.
OWN_CLAIMS = frozenset(["sub", "name_id", "name_id_format", "acr", "email_verified", "_claim_names"])
_WEAK = {
    "sha1": "signatures that can be forged with effort are believed",
    "rsa1_5": "what is encrypted for us can be opened by asking often enough",
    "aes_cbc": "what is encrypted for us can be opened by asking often enough, where the response is not signed",
}


def saml(config: Config, document: Document) -> Iterator[Problem]:
    """Every SAML login by itself, none twice by accident, and none that could pass for another."""
    seen: dict[tuple[str, str | None], str] = {}
    has_several = len({login.metadata for login in config.saml_logins.values()}) > 1
    for name, login in config.saml_logins.items():
        place: Location = ("logins", name)
        yield from _metadata(login, place, document)
        yield from _needs(login, place, document)
        yield from _dangers(login, place, document)
        if has_several and login.idp is None:
            # People are known by the entityID and what it calls them; else each metadata could take any entityID.
            message = "is missing: with several providers each must be named, or one could call itself what another is"
            yield document.error((*place, "idp"), message, "Add idp: the entityID that its metadata has")
        other = seen.setdefault((login.metadata, login.idp), name)
        if other != name:
            yield document.warning((*place, "metadata"), f"the same provider as logins.{other}", "Remove one")


def _metadata(login: SamlLogin, place: Location, document: Document) -> Iterator[Problem]:
    here = (*place, "metadata")
    if "://" in login.metadata:
        parts = split_url(login.metadata)
        if parts is None or parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
            fix = "Write https://idp.example.com/metadata, or the path of a file"
            yield document.error(here, "is no plain address", fix)
        elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield document.error(here, "without https nobody knows who answers", "Write https://")
    if login.metadata_certificate is not None and login.metadata_fingerprint is not None:
        message = "says the same as metadata_certificate in another way"
        yield document.error((*place, "metadata_fingerprint"), message, "Keep one of the two")
    if login.metadata_fingerprint is not None and not _FINGERPRINT.fullmatch(login.metadata_fingerprint):
        fix = "openssl x509 -in metadata.pem -noout -fingerprint -sha256"
        yield document.error((*place, "metadata_fingerprint"), "is no SHA-256 in hexadecimal", fix)


def _needs(login: SamlLogin, place: Location, document: Document) -> Iterator[Problem]:
    if not login.keys:
        fix = "Add keys: [{certificate: saml.pem, key: {file: saml-key.pem}}]"
        for key, is_wanted in (
            ("sign_requests", login.sign_requests),
            ("sign_metadata", login.sign_metadata),
            ("encrypted", login.encrypted == "required"),
        ):
            if is_wanted:
                yield document.error((*place, key), "needs a key of ours", fix)
    if login.name_id == "transient" and login.subject is None:
        message = "a transient NameID names nobody the next time"
        fix = 'Add subject: "{{ claims.employee_number }}", or ask for persistent'
        yield document.error((*place, "name_id"), message, fix)
    if login.subject is not None:
        names = login.subject.names - {"claims"}
        if names or not login.subject.names:
            yield document.error((*place, "subject"), "must be made of claims", 'Write "{{ claims.employee_number }}"')
    for claim in login.attributes:
        if claim in OWN_CLAIMS:
            message = "is what the sidecar itself says; an attribute cannot say it"
            yield document.error((*place, "attributes", claim), message, "Choose another name")


def _dangers(login: SamlLogin, place: Location, document: Document) -> Iterator[Problem]:
    if login.max_answer > _LONGEST_ANSWER:
        message = "a form that brings so much is refused before it is looked at"
        yield document.error((*place, "max_answer"), message, f"At most {_LONGEST_ANSWER // 1024}KiB")
    for number, weak in enumerate(login.weak):
        fix = "Remove it as soon as the provider can do better"
        yield document.warning((*place, "weak", number), _WEAK[weak], fix)
    if login.unsolicited:
        message = "anybody with an account there can make somebody else's browser sign in as them"
        yield document.warning((*place, "unsolicited"), message, "Let sign-ins begin here: link to the application")
