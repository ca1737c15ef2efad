"""What the documentation site shows and nobody writes: the commands, the whole configuration, measurements, changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from sidecar.cli import main

_LINK = re.compile(r"\[([^\]]+)\]\((?!http)[^)]+\)")
_ROOT = Path(__file__).parent.parent
# Links out of docs/ → the page that stands for the file.
_MOVED = {
    "../config.example.yaml": "config.example.md",
    "../bench/results.md": "results.md",
    "../CHANGELOG.md": "changelog.md",
    "../examples/README.md": "examples.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    example = (_ROOT / "config.example.yaml").read_text()
    pages = {
        "commands.md": "\n".join(_commands()),
        "config.example.md": f"# The whole configuration\n\n```yaml\n{example}```\n",
        "results.md": (_ROOT / "bench/results.md").read_text(),
        "examples.md": "\n\n".join(_examples()),
        "changelog.md": (_ROOT / "CHANGELOG.md").read_text(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to files beside docs/ to the pages that stand for them."""
    for there, here in _MOVED.items():
        markdown = markdown.replace(f"]({there}", f"]({here}")
    return markdown


def _examples() -> Iterator[str]:
    """The pages beside the examples, one after another; their files are in the repository."""
    folder = _ROOT / "examples"
    for page in (folder / "README.md", *sorted(folder.glob("*/README.md"))):
        text = _LINK.sub(r"\1", page.read_text())
        yield text if page.parent == folder else text.replace("\n# ", "\n## ").replace("# ", "## ", 1)


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "What `--help` says, for every command.\n"
    yield from _told(main, "sidecar", None)


def _told(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    if parent is not None:
        yield f"## {context.command_path}\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            _, found, _ = command.resolve_command(context, [inner])
            if found is not None and not found.hidden:
                yield from _told(found, inner, context)
