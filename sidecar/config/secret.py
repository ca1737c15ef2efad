"""Texts that are never printed: secrets, and addresses with a password in them."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:(?P<user>[^:@]*)(?::(?P<password>.*))?@)?(?P<rest>[^@]*)", re.DOTALL
)
_PASSWORD_PARAMETER = re.compile(
    r"((?:^|[?&])(?:[^=&]*(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)|sig|signature)=)[^&#]*",
    re.IGNORECASE,
)


def names_a_credential(name: str) -> bool:
    """True when a parameter or header of that *name* is nearly always a secret."""
    return "authorization" in name.lower() or _PASSWORD_PARAMETER.match(f"{name}=") is not None


class Secret:
    """A text that is never printed; read it with ``reveal()`` at the place of use."""

    __slots__ = ("_text", "origin")

    def __init__(self, text: str, origin: str = "code") -> None:
        """Wrap *text*; *origin* says where it came from, for messages (``env NAME``, ``file PATH``)."""
        self._text = text
        self.origin = origin

    def reveal(self) -> str:
        """Give the text itself."""
        return self._text

    def __repr__(self) -> str:
        """Show the origin only."""
        return f"Secret({self.origin})"

    def __eq__(self, other: object) -> bool:
        """Compare the texts."""
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self._text)


class Dsn(Secret):
    """The address of a database or store, which may carry a password; prints without it."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the address without its password."""
        return f"Dsn({self.redacted})"

    @property
    def redacted(self) -> str:
        """The address with ``***`` in place of its password; "***" alone when it is no address at all."""
        # By hand, because a password with a slash in it ends the authority for every library, and would be shown.
        match = _ADDRESS.fullmatch(self._text)
        if match is None:
            return "***" if self._text else ""
        secret = "" if match["password"] is None else ":***"
        user = "" if match["user"] is None else f"{match['user']}{secret}@"
        rest = _PASSWORD_PARAMETER.sub(r"\1***", match["rest"])
        return f"{match['scheme']}{user}{rest}"

    @property
    def has_password(self) -> bool:
        """True when there is a password in it."""
        match = _ADDRESS.fullmatch(self._text)
        return match is not None and bool(match["password"] or _PASSWORD_PARAMETER.search(match["rest"]))

    @property
    def has_inline_password(self) -> bool:
        """True when the password stands in the configuration file itself."""
        return self.origin == "code" and self.has_password
