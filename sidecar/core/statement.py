"""Find the ``:name`` binds of a static SQL statement, and protect every other colon from being taken for one."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Everything in which a colon is no bind. Alternatives are tried in order at each place.
_TOKEN = re.compile(
    r"""
    (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `[^`]*` )
  | (?P<dollar> \$(?P<tag>[A-Za-z_]\w*|)\$ .*? \$(?P=tag)\$ )
  | (?P<comment> --[^\n]* | /\*.*?\*/ )
  | (?P<cast> ::|:= )
  | :(?P<bind> [A-Za-z_]\w* )
  | (?P<escaped> \\: )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement: ``text`` as ``sqlalchemy.text`` wants it, and the names of its binds."""

    text: str
    binds: frozenset[str]


def parse_statement(sql: str) -> Statement:
    """Read *sql*; raises ValueError when it is empty or holds more than one statement."""
    pieces: list[str] = []
    binds: set[str] = set()
    body = sql.strip().removesuffix(";").rstrip()
    for token in _TOKEN.finditer(body):
        piece = token[0]
        if token["bind"]:
            binds.add(token["bind"])
            pieces.append(piece)
            continue
        if piece == ";":
            message = "one step is one statement: write two steps in place of the semicolon"
            raise ValueError(message)
        if token["escaped"]:
            pieces.append(piece)
            continue
        # SQLAlchemy would look for binds inside literals and comments too.
        pieces.append(piece.replace(":", "\\:"))
    if not body:
        message = "the statement is empty"
        raise ValueError(message)
    return Statement("".join(pieces), frozenset(binds))


def bind_problems(sql: str, given: frozenset[str]) -> tuple[str, ...]:
    """Say what is wrong with the binds of *sql* when ``params`` has the names *given*."""
    try:
        wanted = parse_statement(sql).binds
    except ValueError as error:
        return (str(error),)
    missing = [f":{name} is in the statement, but not in params" for name in sorted(wanted - given)]
    spare = [f"the param {name} is not in the statement (write :{name})" for name in sorted(given - wanted)]
    return (*missing, *spare)
