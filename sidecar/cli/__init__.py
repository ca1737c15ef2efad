"""The command line: one group, one module for each command."""

from __future__ import annotations

import click

from sidecar import __version__
from sidecar.cli.check import check, schema
from sidecar.cli.demo import demo
from sidecar.cli.plan import hooks, plan
from sidecar.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sidecar")
def main() -> None:
    """Sign people in, give them an account in the application, and forward their requests.

    \b
    Begin with:  sidecar demo                see it work within seconds
                 sidecar check config.yaml   find every problem in a configuration
                 sidecar run config.yaml     start

    Shell completion: eval "$(_SIDECAR_COMPLETE=bash_source sidecar)", or zsh_source, fish_source.
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


for command in (run, check, schema, plan, hooks, demo):
    main.add_command(command)
