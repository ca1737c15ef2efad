"""``sidecar break-glass hash``: turn a password for an emergency account into what the configuration holds."""

from __future__ import annotations

import sys

import click

from sidecar.cli.saying import EXIT_PROBLEMS, complain, say

_LEAST, _LEAST_DIFFERENT, _LONGEST = 16, 8, 1024


@click.group("break-glass")
def break_glass() -> None:
    """Prepare local accounts for emergencies."""


@break_glass.command("hash")
def hash_password() -> None:
    """Ask for a password and print its argon2id hash, for break_glass.accounts.NAME.hash.

    The password comes from the terminal, or as the first line of the standard input; never from an argument, which
    everybody on the machine can read.
    """
    # argon2 is for those who make a hash.
    from sidecar.portal.vetting import hashed

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    problem = weakness(password)
    if problem:
        complain(problem)
        sys.exit(EXIT_PROBLEMS)
    say(hashed(password))


def weakness(password: str) -> str:
    """Why *password* is not good enough, "" when it is."""
    if len(password) < _LEAST:
        return f"the password is too short: at least {_LEAST} characters, such as six words drawn by lot"
    if len(set(password)) < _LEAST_DIFFERENT:
        return f"the password repeats itself: at least {_LEAST_DIFFERENT} different characters"
    return "" if len(password) <= _LONGEST else f"the password is too long: at most {_LONGEST} characters"
