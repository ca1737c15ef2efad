"""The command line: one group, one module for each command, which is imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from sidecar import __version__, is_compiled

# The line for the overview, and where the command is.
_COMMANDS = {
    "run": ("Serve.", "sidecar.cli.run"),
    "reload": ("Have the sidecar that runs read its configuration again.", "sidecar.cli.reload"),
    "log-level": ("Change what the sidecar that runs writes to its log, for a while.", "sidecar.cli.log_level"),
    "check": ("Report every problem of a configuration; --connect reaches all it names.", "sidecar.cli.check"),
    "doctor": ("Examine the whole deployment, and say what to change and why.", "sidecar.cli.doctor"),
    "plan": ("Print what would happen to a person, and do nothing.", "sidecar.cli.plan"),
    "explain": ("Say rule by rule why a request is let in or refused.", "sidecar.cli.explain"),
    "hooks": ("Try the hooks: the lookup runs for real.", "sidecar.cli.plan"),
    "users": ("Add people, look at them, switch them off and on.", "sidecar.cli.users"),
    "sessions": ("List sessions and end them.", "sidecar.cli.sessions"),
    "outbox": ("Look at what is owed to the application; try it again or let it go.", "sidecar.cli.outbox"),
    "saml": ("Print our SAML metadata; say what is wrong with a SAML answer.", "sidecar.cli.saml"),
    "sync": ("Synchronise people with a file, a database or a directory.", "sidecar.cli.sync"),
    "drift": ("Find accounts in the application that are not what they should be.", "sidecar.cli.drift"),
    "signals": ("Manage our streams of security events.", "sidecar.cli.signals"),
    "audit": ("Search, follow, export and verify the audit lines.", "sidecar.cli.audit"),
    "insights": ("Show what was noticed, and what is counted.", "sidecar.cli.insights"),
    "why": ("Tell the whole story behind the reference id of a refusal page.", "sidecar.cli.why"),
    "break-glass": ("Prepare local accounts for emergencies.", "sidecar.cli.break_glass"),
    "tokens": ("Issue API tokens, look at them, end them.", "sidecar.cli.tokens"),
    "convert": ("Begin with the configuration of another proxy.", "sidecar.cli.convert"),
    "schema": ("Print the JSON Schema of the configuration, for editors.", "sidecar.cli.check"),
    "completion": ("Print what bash, zsh or fish needs to complete commands.", "sidecar.cli.completion"),
    "demo": ("See it work within seconds, with an application and a provider.", "sidecar.cli.demo"),
}

# What a command means by its exit code that does not say so itself (docs/operation.md).
_EXIT_CODES = "Exit code 0: done. 1: refused, or something is wrong. 2: wrong usage. 3: something could not be reached."
_HOW = ", request path compiled" if is_compiled() else ""


class _Commands(click.Group):
    """Imports a command only when it runs: help, version and completion in the shell answer at once."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Stand for a command in lists; ``resolve_command`` gives the real one."""
        if cmd_name not in _COMMANDS:
            return None
        return click.Command(cmd_name, short_help=_COMMANDS[cmd_name][0])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, stand_in, rest = super().resolve_command(ctx, args)
        if stand_in is None or name is None:
            return name, stand_in, rest
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name][1]), name.replace("-", "_"))
        _say_exit_codes(command)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            from sidecar.cli.saying import leave_if_unheard

            leave_if_unheard(error)
            raise


def _say_exit_codes(command: click.Command) -> None:
    if isinstance(command, click.Group):
        for part in command.commands.values():
            _say_exit_codes(part)
    elif "xit code" not in (command.help or ""):
        command.epilog = _EXIT_CODES


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sidecar", message=f"%(prog)s, version %(version)s{_HOW}")
def main() -> None:
    """Sign people in, give them an account in the application, and forward their requests.

    \b
    Begin with:  sidecar demo                see it work within seconds
                 sidecar check config.yaml   find every problem in a configuration
                 sidecar run config.yaml     start

    \b
    Shell completion:  eval "$(sidecar completion bash)"    or zsh, fish
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
