"""What an API token of ours looks like: a prefix that scanners find, 256 random bits, a checksum."""

from __future__ import annotations

import hashlib
import re
import string
import zlib

PREFIX = "sidecar_"
ENTROPY = 32
_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# 62 ** 43 is just above 2 ** 256, 62 ** 6 above 2 ** 32.
_BODY, _CHECK = 43, 6
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_BODY + _CHECK}}}")


def written(entropy: bytes) -> str:
    """The token made of *entropy*, 32 random bytes. Raises ValueError for any other number of them."""
    if len(entropy) != ENTROPY:
        message = f"a token is made of {ENTROPY} random bytes"
        raise ValueError(message)
    body = PREFIX + _in_letters(int.from_bytes(entropy), _BODY)
    return body + _check_of(body)


def is_ours(text: str) -> bool:
    """True for what claims to be one of our tokens."""
    return text.startswith(PREFIX)


def holds_ours(text: str) -> bool:
    """True when one of our tokens may stand somewhere in *text*."""
    return _SHAPE.search(text) is not None


def is_intact(text: str) -> bool:
    """True for what has the shape and the checksum of one: anything else was never issued, and nobody need ask."""
    return _SHAPE.fullmatch(text) is not None and text.endswith(_check_of(text[:-_CHECK]))


def digest_of(text: str) -> str:
    """What is stored in place of the token; so much randomness needs no salt and no slow hash."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _check_of(body: str) -> str:
    return _in_letters(zlib.crc32(body.encode("ascii")), _CHECK)


def _in_letters(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(reversed(letters))
