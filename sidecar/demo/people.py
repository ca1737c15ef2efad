"""The few people and the clients that the demo's identity provider knows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

GROUPS = ("wiki-admins", "wiki-editors", "wiki-readers")


@dataclass(frozen=True, slots=True)
class DemoPerson:
    """Someone who can be chosen on the sign-in page; `login` is unique."""

    login: str
    name: str
    email: str
    groups: Sequence[str]
    email_verified: bool = True

    @property
    def subject(self) -> str:
        """The `sub` claim: stable over restarts, and not the login, so that nobody confuses the two."""
        return sha256(b"demo-subject:" + self.login.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class DemoClient:
    """A registered relying party; the mapping that holds it is keyed by client_id."""

    secret: str = field(repr=False)
    redirect_uris: Sequence[str]
    post_logout_redirect_uris: Sequence[str] = ()
    title: str = "the application"


PEOPLE = (
    DemoPerson("ada", "Ada Lovelace", "ada@example.com", ("wiki-admins",)),
    DemoPerson("grace", "Grace Hopper", "grace@example.com", ("wiki-editors",)),
    DemoPerson("alan", "Alan Turing", "alan@example.com", ("wiki-readers",)),
    DemoPerson("mallory", "Mallory", "mallory@example.net", ()),
)
