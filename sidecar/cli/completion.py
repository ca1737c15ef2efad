"""``sidecar completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion for SHELL, to be read when it starts.

    \b
    bash:  sidecar completion bash > ~/.local/share/bash-completion/completions/sidecar
    zsh:   sidecar completion zsh > a file called _sidecar in a folder of $fpath
    fish:  sidecar completion fish > ~/.config/fish/completions/sidecar.fish
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from sidecar.cli import main

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(main, {}, "sidecar", "_SIDECAR_COMPLETE").source())
