"""``sidecar convert``: begin with the configuration of another proxy."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_USAGE, complain, give_up, say_json
from sidecar.convert import KINDS

_MOST = 4 * 1024 * 1024


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("file", type=click.File("rb"))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write; must not exist yet.")
@click.option("--json", "as_json", is_flag=True, help="Print configuration and leftovers as JSON.")
def convert(kind: str, file: BinaryIO, output: Path | None, *, as_json: bool) -> None:
    """Write our configuration from FILE, the configuration of oauth2-proxy, mod_auth_openidc or mod_auth_mellon.

    What cannot be carried over stands in comments at the top, with the reason. Secrets are not copied: the comments
    say which file each belongs into.

    \b
    sidecar convert oauth2-proxy oauth2-proxy.cfg --output config.yaml && sidecar check config.yaml
    sidecar convert mod_auth_openidc /etc/apache2/sites-enabled/wiki.conf

    Exit code 0: written. 1: FILE cannot be read as KIND. 2: wrong call.
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    text = file.read(_MOST + 1)
    if len(text) > _MOST:
        give_up(f"{_name(file)}: is larger than {_MOST} bytes")
    try:
        draft = KINDS[kind](text.decode())
    except UnicodeDecodeError:
        give_up(f"{_name(file)}: is not UTF-8 text")
    except ValueError as error:
        give_up(f"{_name(file)}: {error}", EXIT_PROBLEMS)
    written = draft.written()
    if as_json:
        left = [{"where": one.where, "setting": one.setting, "why": one.why} for one in draft.left]
        say_json({"configuration": written, "todo": draft.todo, "left": left})
        return
    if output is None:
        click.echo(written, nl=False)
    else:
        try:
            with output.open("x", encoding="utf-8") as stream:
                stream.write(written)
        except FileExistsError:
            give_up(f"{output}: is there already; name another file", EXIT_USAGE)
        except OSError as error:
            give_up(f"{output}: {error.strerror}", EXIT_USAGE)
    complain(
        f"{len(draft.todo)} things to do and {len(draft.left)} settings that were not carried over: see its top",
        "yellow",
    )


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "name", "-"))
