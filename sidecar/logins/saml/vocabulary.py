"""Which algorithms are accepted, and the names that only signing in needs."""

from __future__ import annotations

from typing import Final

from sidecar.logins.saml.names import DSIG, DSIG_MORE, RSA_SHA256, XENC

XENC11: Final = "http://www.w3.org/2009/xmlenc11#"

PSS: Final = "http://www.w3.org/2007/05/xmldsig-more#"

SIGNATURES: Final = frozenset(
    [RSA_SHA256, f"{DSIG_MORE}rsa-sha384", f"{DSIG_MORE}rsa-sha512"]
    + [f"{DSIG_MORE}ecdsa-sha{size}" for size in (256, 384, 512)]
    + [f"{PSS}sha{size}-rsa-MGF1" for size in (256, 384, 512)]
)
WEAK_SIGNATURES: Final = frozenset([f"{DSIG}rsa-sha1"])
# Algorithm → its name in hashlib.
DIGESTS: Final = {f"{XENC}sha256": "sha256", f"{DSIG_MORE}sha384": "sha384", f"{XENC}sha512": "sha512"}
WEAK_DIGESTS: Final = {f"{DSIG}sha1": "sha1"}

GCM: Final = frozenset(f"{XENC11}aes{size}-gcm" for size in (128, 192, 256))
CBC: Final = frozenset(f"{XENC}aes{size}-cbc" for size in (128, 192, 256))
OAEP: Final = frozenset([f"{XENC}rsa-oaep-mgf1p", f"{XENC11}rsa-oaep"])
RSA1_5: Final = frozenset([f"{XENC}rsa-1_5"])
# Inside OAEP nothing rests on collisions, so SHA-1 is sound there.
OAEP_DIGESTS: Final = frozenset([*DIGESTS, *WEAK_DIGESTS])
OAEP_MASKS: Final = frozenset(f"{XENC11}mgf1sha{size}" for size in (1, 224, 256, 384, 512))

BEARER: Final = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
HTTP_POST: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
