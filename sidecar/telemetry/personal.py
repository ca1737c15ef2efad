"""What becomes of personal data in audit lines: kept, replaced by a pseudonym, shortened to a network, or dropped."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping

Treat = Callable[[str], str]
_LENGTH = 20
_PREFIXES = {4: 24, 6: 48}
# The same under another name: where SCIM clients come from, and what operators looked for at the console.
_ALSO = {"address": "client", "asked_client": "client", "asked_person": "person", "asked_path": "path"}


class Policy:
    """Treats the fields of audit lines by their names."""

    def __init__(self, treatments: Mapping[str, str], key: bytes) -> None:
        """*treatments*: field → "pseudonym", "network" or "drop"; others are kept. *key* makes the pseudonyms."""
        kinds: dict[str, Treat] = {"pseudonym": lambda text: pseudonym(text, key), "network": network, "drop": _nothing}
        self._treats = {name: kinds[kind] for name, kind in treatments.items() if kind in kinds}
        self._treats |= {name: self._treats[one] for name, one in _ALSO.items() if one in self._treats}

    def of(self, name: str) -> Treat | None:
        """What is done to the field *name*; None when it is kept."""
        return self._treats.get(name)

    def applied(self, fields: Mapping[str, object]) -> dict[str, object]:
        """*fields* as they may be written."""
        return {
            name: treat(str(value)) if value and (treat := self._treats.get(name)) is not None else value
            for name, value in fields.items()
        }


def pseudonym(text: str, key: bytes) -> str:
    """What stands for *text*: the same for the same text and key, and of no use to anybody without the key."""
    return "~" + hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:_LENGTH]


def network(text: str) -> str:
    """The /24 or /48 that the address *text* belongs to; nothing of what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((address, _PREFIXES[address.version]), strict=False))


def _nothing(_text: str) -> str:
    return ""
