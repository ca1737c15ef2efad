"""Password filters: each format is what its application reads."""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import hashlib
import re

import bcrypt
import pytest
from argon2 import PasswordHasher

from sidecar.core.template import Compiler, TemplateError
from sidecar.hooks.passwords import FILTERS, SLOW

PASSWORD = "correct horse ü battery"


def glibc_crypt(password: str, stored: str) -> str:
    """crypt(3) of the C library: what PAM, Dovecot and FTP servers use."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return library.crypt(password.encode(), stored.encode()).decode()


@pytest.mark.parametrize(("name", "ident"), [("bcrypt", "2b"), ("bcrypt_2a", "2a"), ("bcrypt_2y", "2y")])
def test_bcrypt_is_read_by_another_implementation(name: str, ident: str) -> None:
    stored = FILTERS[name](PASSWORD)
    assert stored.startswith(f"${ident}$12$")
    assert bcrypt.checkpw(PASSWORD.encode(), stored.encode())
    assert glibc_crypt(PASSWORD, stored) == stored


def test_bcrypt_refuses_a_password_of_which_it_would_drop_a_part() -> None:
    with pytest.raises(ValueError, match="72 bytes"):
        FILTERS["bcrypt"]("ü" * 37)


def portable_phpass(password: str, stored: str) -> str:
    """The algorithm of WordPress' class-phpass.php, written down again: iterated MD5, its own base 64."""
    letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    digest = hashlib.md5(stored[4:12].encode() + password.encode()).digest()  # noqa: S324 - the format
    for _ in range(1 << letters.index(stored[3])):
        digest = hashlib.md5(digest + password.encode()).digest()  # noqa: S324 - the format
    text = ""
    for start in range(0, 16, 3):
        part = digest[start : start + 3]
        number = int.from_bytes(part, "little")
        text += "".join(letters[(number >> 6 * place) & 63] for place in range(len(part) + 1))
    return stored[:12] + text


def test_phpass_is_what_wordpress_computes() -> None:
    stored = FILTERS["phpass"](PASSWORD)
    assert stored.startswith("$P$")
    assert portable_phpass(PASSWORD, stored) == stored
    # From the PHP original's own test, so that the second opinion above is known to be right.
    vector = "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"
    assert portable_phpass("test12345", vector) == vector


def test_django_pbkdf2_is_what_django_computes() -> None:
    scheme, rounds, salt, digest = FILTERS["django_pbkdf2"](PASSWORD).split("$")
    assert (scheme, len(salt)) == ("pbkdf2_sha256", 22)
    expected = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt.encode(), int(rounds))
    assert digest == base64.b64encode(expected).decode()


def test_werkzeug_scrypt_is_what_werkzeug_computes() -> None:
    method, salt, digest = FILTERS["werkzeug_scrypt"](PASSWORD).split("$")
    _, n, r, p = method.split(":")
    assert re.fullmatch(r"[A-Za-z0-9]{16}", salt)
    expected = hashlib.scrypt(
        PASSWORD.encode(), salt=salt.encode(), n=int(n), r=int(r), p=int(p), maxmem=132 * int(n) * int(r) * int(p)
    )
    assert digest == expected.hex()


def test_argon2id_is_read_by_another_implementation() -> None:
    stored = FILTERS["argon2id"](PASSWORD)
    assert stored.startswith("$argon2id$v=19$")
    assert PasswordHasher().verify(stored, PASSWORD)


def test_sha512_crypt_is_what_the_c_library_computes() -> None:
    stored = FILTERS["sha512_crypt"](PASSWORD)
    assert stored.startswith("$6$rounds=100000$")
    assert glibc_crypt(PASSWORD, stored) == stored


def test_ssha_is_what_a_directory_server_computes() -> None:
    stored = FILTERS["ssha"](PASSWORD)
    raw = base64.b64decode(stored.removeprefix("{SSHA}"))
    assert hashlib.sha1(PASSWORD.encode() + raw[20:]).digest() == raw[:20]  # noqa: S324 - the format
    assert len(raw) == 36


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_no_two_hashes_of_a_password_are_alike(name: str) -> None:
    assert FILTERS[name]("same") != FILTERS[name]("same")


def test_filters_can_be_used_in_templates_and_tell_that_they_are_slow() -> None:
    template = Compiler(FILTERS).compile("{{ generated.password | bcrypt_2y }}")
    assert template.filters & SLOW
    assert bcrypt.checkpw(b"secret", template.text({"generated": {"password": "secret"}}).encode())


def test_a_password_that_cannot_be_hashed_is_never_part_of_the_message() -> None:
    template = Compiler(FILTERS).compile("{{ password | bcrypt }}")
    with pytest.raises(TemplateError) as caught:
        template.text({"password": "geheim" * 20})
    assert "geheim" not in str(caught.value)


def test_a_template_is_compiled_once_for_the_same_filters_and_anew_for_others() -> None:
    source = "{{ 'x' | bcrypt }}"
    assert Compiler(FILTERS).compile(source) is Compiler(dict(FILTERS)).compile(source)
    assert Compiler({**FILTERS, "bcrypt": str.upper}).compile(source).text({}) == "X"


def test_what_is_kept_of_templates_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.core.template._MOST_KNOWN", 3)
    compiler = Compiler({"own": str.upper})
    assert [compiler.compile(f"{number}").text({}) for number in range(10)] == [str(number) for number in range(10)]
    assert len(compiler._known) <= 3
