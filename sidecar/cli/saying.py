"""Say things on a terminal: colour only there, errors on standard error, JSON where asked."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.text import Text

from sidecar.core.audit_export import json_text, on_one_line

EXIT_PROBLEMS = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
_STDOUT = 1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class _Honest(Console):
    """Leaves it to the command what becomes of it when nobody reads; rich would end it as if it had found problems."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, error: bool = False) -> Console:
    """Console that colours on a terminal and honours NO_COLOR."""
    stream = sys.stderr if error else sys.stdout
    return _Honest(file=stream, highlight=False, soft_wrap=True, no_color="NO_COLOR" in os.environ or None)


def say(text: str = "", style: str = "") -> None:
    """Print *text* on a line for the reader, who may be shown what strangers wrote; *style* is one of rich's."""
    console().print(_shown(text, style))


def complain(text: str, style: str = "red") -> None:
    """Print a line about something wrong."""
    console(error=True).print(_shown(text, style))


def _shown(text: str, style: str) -> Text:
    # A name, a path or an answer must not speak to the terminal, or begin a line of its own, which would read as ours:
    # rich lets most of that through.
    return Text("\t".join(map(on_one_line, text.split("\t"))), style=style)


def say_json(value: Any) -> None:
    """Print *value* as JSON."""
    click.echo(json_text(value, 2))


def leave_if_unheard(error: OSError) -> None:
    """End a command whose output went nowhere: by SIGPIPE, as others do, when whoever read it is gone (`| head`)."""
    if error.errno in _FULL:
        # What is left in the buffer would be tried, and complained about, once more at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        give_up(f"cannot write: {error.strerror}")
    poll = select.poll()
    poll.register(_STDOUT, 0)
    if isinstance(error, BrokenPipeError) and any(happened & select.POLLERR for _, happened in poll.poll(0)):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)


def give_up(text: str, code: int = EXIT_PROBLEMS) -> NoReturn:
    """Print an error and leave with *code*."""
    complain(text)
    raise SystemExit(code)
