"""The findings as a page that stands alone: no script, nothing fetched, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jinja2

from sidecar.cli.sync_showing import moment
from sidecar.core.drift import Finding

if TYPE_CHECKING:
    from sidecar.drift.watch import Report

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Drift, {{ at }}</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0; }
.wrong { border-left: .25rem solid #c62828; padding: .5rem .75rem; background: var(--soft); }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; min-width: 6rem; }
th { font-weight: 600; white-space: nowrap; }
</style>
</head>
<body>
<h1>Accounts that are not what they should be</h1>
<p>{{ at }} · {{ head.accounts }} accounts there, {{ head.known }} known here</p>
{% if head.why %}<p class="wrong">The listing is not complete: {{ head.why }}. What is missing there cannot be told.</p>
{% endif %}
{% for kind, words, rows in groups %}
<h2>{{ rows|length }} {{ kind }}</h2>
<p>{{ words }}</p>
<div class="table"><table>
<tr>{% for column in columns[1:] %}<th scope="col">{{ column }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% else %}
<h2>Nothing differs</h2>
{% endfor %}
</body>
</html>
"""


def page(report: Report, columns: Sequence[str], rows: Sequence[Sequence[str]], words: Mapping[Finding, str]) -> str:
    """HTML of *rows*, whose first column is the finding, explained by *words*."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    groups = [(kind.value, words[kind], [row for row in rows if row[0] == kind.value]) for kind in Finding]
    return environment.from_string(_PAGE).render(
        at=moment(report.run.created),
        head=report.run.head,
        columns=columns,
        groups=[group for group in groups if group[2]],
    )
