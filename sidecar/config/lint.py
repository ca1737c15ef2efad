"""Checks across sections, said plainly and with the way out."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.document import Document
from sidecar.config.models import Config
from sidecar.config.problem import Problem


def lint(config: Config, document: Document) -> Iterator[Problem]:
    """Find what each section alone cannot know."""
    if config.identity.username is None:
        for name, login in config.logins.items():
            if login.identity.username is None:
                yield document.problem(
                    ("identity",),
                    f"nothing says what people of the login {name} are called",
                    'Add identity: {username: "{{ claims.preferred_username }}"}',
                )
