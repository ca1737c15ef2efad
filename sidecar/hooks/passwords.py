"""Hash passwords in the formats that applications store, as filters for templates."""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable, Mapping
from typing import Any

import passlib.hash

# libpass has types for some of its functions only.
_schemes: Any = passlib.hash

_BCRYPT_COST = 12
# bcrypt reads 72 bytes; whatever comes after would be no part of the password, so it is refused.
_LONGEST_BCRYPT = 72
# 2^15 rounds: four times what WordPress itself uses; any phpass reader accepts 2^7 to 2^30.
_PHPASS_COST = 15
_SHA512_ROUNDS = 100_000
# The defaults of Django 5.2 and of Werkzeug 3.
_DJANGO_ITERATIONS = 1_000_000
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P, _SCRYPT_SALT = 32768, 8, 1, 16
_LETTERS = string.ascii_letters + string.digits


def _bcrypt(ident: str) -> Callable[[str], str]:
    def hashed(password: str) -> str:
        """Hash *password*; raises ValueError when it is longer than bcrypt can read."""
        if len(password.encode()) > _LONGEST_BCRYPT:
            message = f"bcrypt reads {_LONGEST_BCRYPT} bytes of a password and no more"
            raise ValueError(message)
        return str(_schemes.bcrypt.using(ident=ident, rounds=_BCRYPT_COST).hash(password))

    return hashed


def _phpass(password: str) -> str:
    return str(_schemes.phpass.using(rounds=_PHPASS_COST).hash(password))


def _django_pbkdf2(password: str) -> str:
    return str(_schemes.django_pbkdf2_sha256.using(rounds=_DJANGO_ITERATIONS, salt_size=22).hash(password))


def _werkzeug_scrypt(password: str) -> str:
    """Hash as ``werkzeug.security.generate_password_hash`` does: ``scrypt:n:r:p$salt$hex``."""
    salt = "".join(secrets.choice(_LETTERS) for _ in range(_SCRYPT_SALT))
    digest = hashlib.scrypt(
        password.encode(),
        salt=salt.encode(),
        n=_SCRYPT_N,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        maxmem=132 * _SCRYPT_N * _SCRYPT_R * _SCRYPT_P,
    )
    return f"scrypt:{_SCRYPT_N}:{_SCRYPT_R}:{_SCRYPT_P}${salt}${digest.hex()}"


def _argon2id(password: str) -> str:
    return str(_schemes.argon2.using(type="ID").hash(password))


def _sha512_crypt(password: str) -> str:
    return str(_schemes.sha512_crypt.using(rounds=_SHA512_ROUNDS).hash(password))


def _ssha(password: str) -> str:
    return str(_schemes.ldap_salted_sha1.using(salt_size=16).hash(password))


#: Filter name → function from password to what the application stores.
FILTERS: Mapping[str, Callable[[str], str]] = {
    "bcrypt": _bcrypt("2b"),
    "bcrypt_2a": _bcrypt("2a"),
    "bcrypt_2y": _bcrypt("2y"),
    "phpass": _phpass,
    "django_pbkdf2": _django_pbkdf2,
    "werkzeug_scrypt": _werkzeug_scrypt,
    "argon2id": _argon2id,
    "sha512_crypt": _sha512_crypt,
    "ssha": _ssha,
}

#: Filters that are slow by design: templates that use one are evaluated in a thread.
SLOW: frozenset[str] = frozenset(FILTERS) - {"ssha"}
