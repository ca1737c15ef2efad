"""Check what rules require of a sign-in, one against the other."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.access import AccessRule
from sidecar.config.document import Document
from sidecar.config.lints.access import meet
from sidecar.config.models import Config
from sidecar.config.problem import Problem


def classes(config: Config, document: Document) -> Iterator[Problem]:
    """A sign-in has one class: two rules for one page that accept none in common send people to and fro."""
    for number, later in enumerate(config.access):
        for place, earlier in enumerate(config.access[:number]):
            if not _both_decide(earlier, later, folds=config.app.ignore_case):
                continue
            mine, theirs = later.require.acr, earlier.require.acr
            if mine and theirs and not set(mine) & set(theirs):
                shown = f"rule {place + 1} ({document.quoted(('access', place, 'path'), earlier.path)})"
                message = f"no sign-in is of a class for this rule and for {shown}, which is about the same paths"
                fix = "Let them accept one class in common: else people sign in again whenever they change between them"
                yield document.warning(("access", number, "require", "acr"), message, fix)
                break


def _both_decide(earlier: AccessRule, later: AccessRule, *, folds: bool) -> bool:
    """True when, on some path, *earlier* decides about some methods and *later* about others."""
    if earlier.only_denies or later.only_denies or not earlier.methods:
        return False
    if later.methods and set(later.methods) <= set(earlier.methods):
        return False
    return meet(earlier, later, folds=folds)
