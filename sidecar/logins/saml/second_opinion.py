"""Ask python3-saml too: an answer counts only when both it and our own reading accept the signatures.

It is asked last, so that a stranger's document never reaches it, and without its checks of time and address, which are
ours (conditions.py), with our clock and exactly.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings

from sidecar.logins.saml.parties import KeyPair

_REQUEST = {"http_host": "localhost", "script_name": "/", "get_data": {}, "post_data": {}}


def agrees(raw: bytes, certificates: Sequence[str], keys: Sequence[KeyPair]) -> bool:
    """Whether the library finds valid signatures in the response *raw*, with one of our *keys* if it is encrypted."""
    message = base64.b64encode(raw).decode()
    return any(_accepts(message, tuple(certificates), pair) for pair in keys or (None,))


def _accepts(message: str, certificates: tuple[str, ...], pair: KeyPair | None) -> bool:
    try:
        response = OneLogin_Saml2_Response(_settings(certificates, pair), message)
        return bool(response.is_valid(_REQUEST, raise_exceptions=True))
    except Exception:  # noqa: BLE001 - whatever the library raises, it does not accept
        return False


@lru_cache(maxsize=64)
def _settings(certificates: tuple[str, ...], pair: KeyPair | None) -> Any:
    service = {"entityId": "sidecar", "assertionConsumerService": {"url": "https://localhost/"}}
    keys = {} if pair is None else {"x509cert": pair.certificate, "privateKey": pair.key}
    return OneLogin_Saml2_Settings(
        {
            "strict": False,
            "sp": {**service, **keys},
            "idp": {
                "entityId": "provider",
                "singleSignOnService": {"url": "https://localhost/"},
                "x509certMulti": {"signing": list(certificates)},
            },
        },
        sp_validation_only=False,
    )
