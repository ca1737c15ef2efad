"""The example, the guide and the schema are true, and nothing that is done to the example crashes the loader."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config.anatomy import fields_of, plain_kinds
from sidecar.config.document import read_document
from sidecar.config.lints.access import _path_covers, _segments
from sidecar.config.loader import ConfigError, load, redacted
from sidecar.config.models import Config
from sidecar.config.reference import in_place
from sidecar.config.schema import schema
from sidecar.config.section import Section
from sidecar.core.patterns import compile_pattern
from sidecar.hooks.check import problems as hook_problems
from sidecar.hooks.passwords import FILTERS as REAL_FILTERS
from tests.configurations import EXAMPLE, FILTERS, SECRETS, example_data, example_in

GUIDE = Path(__file__).parents[1] / "docs/configuration.md"


def test_the_example_is_fine(tmp_path: Path) -> None:
    assert load(example_in(tmp_path), environment=SECRETS, filters=FILTERS).warnings == ()


def test_the_example_is_fine_for_the_hooks_too(tmp_path: Path) -> None:
    config = load(example_in(tmp_path), environment=SECRETS, filters=REAL_FILTERS).config
    assert config.provision is not None
    assert hook_problems(config.provision) == ()


def sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        yield from inner_sections(field.annotation)


def inner_sections(annotation: Any) -> Iterator[type[Section]]:
    for kind in plain_kinds(annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from sections(kind)
        else:
            for part in getattr(kind, "__args__", ()):
                yield from inner_sections(part)


def test_the_example_has_every_key() -> None:
    text = EXAMPLE.read_text()
    keys = {key for section in sections(Config) for key in fields_of(section)}
    assert {key for key in keys if not re.search(rf"(?<![\w-]){key}:", text)} == set()


def test_the_defaults_in_the_example_are_the_defaults(tmp_path: Path) -> None:
    """Every line "# key: value" that does not call itself an example may be made real without changing anything."""
    pattern = re.compile(r"^( *)# ([a-z_]+: [^ #][^#]*?) *(?:#(?! example).*)?$")
    lines = EXAMPLE.read_text().split("\n")
    real = [
        pattern.sub(r"\1\2", line) if not in_example_block(lines, number) else line for number, line in enumerate(lines)
    ]
    assert sum(one != other for one, other in zip(lines, real, strict=True)) > 40
    file = example_in(tmp_path)
    before = redacted(load(file, environment=SECRETS, filters=FILTERS).config)
    file.write_text("\n".join(real))
    assert redacted(load(file, environment=SECRETS, filters=FILTERS).config) == before


def in_example_block(lines: list[str], number: int) -> bool:
    """True inside a commented mapping (a line "# key:" above with less indentation), or for a line that says so."""
    line = lines[number]
    if "# example" in line or "yaml-language-server" in line:
        return True
    depth = len(line) - len(line.lstrip(" #"))
    for above in reversed(lines[:number]):
        if not above.lstrip().startswith("#"):
            return False
        if re.match(r" *# *[a-z_]+:( +#.*)?$", above) and len(above) - len(above.lstrip(" #")) < depth:
            return True
    return False


def test_the_guide_s_reference_is_what_the_models_say() -> None:
    text = GUIDE.read_text()
    way = "write sidecar.config.reference.in_place(text) into docs/configuration.md"
    assert in_place(text) == text, way


def test_the_guide_names_every_filter() -> None:
    text = GUIDE.read_text()
    assert [name for name in REAL_FILTERS if f"`{name}`" not in text] == []


def test_every_key_is_described() -> None:
    bare = [
        f"{part.__name__}.{key}"
        for part in sections(Config)
        for key, one in fields_of(part).items()
        if not one.description
    ]
    assert bare == []


def test_the_schema_is_one_and_the_example_fits_it() -> None:
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator(found).validate(read_document(EXAMPLE).data)
    json.dumps(found)


# In C where there is one, which is far quicker.
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
LEAST: dict[str, Any] = {
    "server": {"public_url": "https://w.example"},
    "app": {"upstream": "http://h"},
    "logins": {"c": {"type": "oidc", "issuer": "https://i.example", "client_id": "c"}},
    "access": [{"path": "/**", "allow": "signed_in"}],
}


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"directory": "sqlite:///x"}, True),
        ({"directory": {"env": "X"}}, True),
        ({"directory": {"url": {"file": "x"}}}, True),
        ({"headers": {"A": "x", "B": {"value": "x", "max": "1KiB"}}}, True),
        ({"access": [{"path": "/**", "allow": {"role": "a"}, "methods": "GET"}]}, True),
        ({"access": [{"path": "/**", "allow": {"role": ["a"]}, "methods": ["GET"]}]}, True),
        ({"app": {"upstream": {"env": "X"}, "idle_timeout": "5m"}}, True),
        ({"sessions": {"secrets": {"env": "X"}}}, True),
        ({"sessions": {"secrets": "a plain secret"}}, False),
        ({"app": {"upstream": "http://h", "idle_timeout": 5}}, False),
        ({"app": {"upstream": "http://h", "nam": "x"}}, False),
        ({"access": [{"path": "/**", "allow": "everyone"}]}, False),
        ({"access": [{"path": "/**", "allow": {"rol": "a"}}]}, False),
        ({"access": []}, False),
    ],
)
def test_the_schema_takes_what_the_loader_takes(changes: dict[str, Any], fits: bool) -> None:
    assert jsonschema.Draft202012Validator(schema()).is_valid({**LEAST, **changes}) is fits


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


DATA = example_data()
PLACES = [path for path in places(DATA) if path]
STRANGE = st.one_of(
    st.sampled_from(
        [
            "", None, True, -1, 0, 1.5, 10**30, [], {}, [[]], {"": ""},
            {"env": "SESSION_SECRET"}, {"env": "REDIS_URL"}, {"env": "NOT_SET"}, {"env": []}, {"env": "A", "file": "B"},
            {"file": "secrets/partner"}, {"file": ""}, {"file": "."},
            "{{", "{{ x", "{{ claims }}", "{% x %}", "{{ user.name * 9 }}", "{{ 1/0 }}", "{{ item }}",
            "http://[", "::", "[::1]:99999", "@", "a\0b", "*", "/**", "/../x", "SELECT ':a' :b ::c",
            "999999999999d", "9" * 6000, "\ud7ff\U0010ffff",
        ]
    ),
    st.text(max_size=20),
    st.integers(),
    st.sampled_from(PLACES).map(lambda path: at(DATA, path)),
)  # fmt: skip


def at(node: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        node = node[part]
    return node


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """The example with one to four values replaced, removed, renamed or wrapped."""
    data = copy.deepcopy(DATA)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(PLACES))
        try:
            parent = at(data, path[:-1])
            old = parent[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        if not isinstance(parent, dict | list):
            continue
        match draw(st.sampled_from(["replace", "remove", "rename", "wrap"])):
            case "replace":
                parent[path[-1]] = copy.deepcopy(draw(STRANGE))
            case "remove":
                del parent[path[-1]]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8))] = parent.pop(path[-1])
            case _:
                parent[path[-1]] = draw(st.sampled_from([[old], {"env": old}, {path[-1]: old}, [old, old]]))
    return data


# Thousands of loads; on a busy machine they take minutes.
@pytest.mark.timeout(600)
@given(mutants())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_change_to_the_example_crashes_the_loader_or_shows_a_secret(data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = example_in(Path(folder))
        file.write_text(yaml.dump(data, Dumper=DUMPER, allow_unicode=True, sort_keys=False))
        said = []
        try:
            done = load(file, environment=SECRETS, filters=FILTERS)
            # Texts that are no secrets by their type may come from anywhere, and are shown.
            said = [*map(str, done.warnings), *(repr(part) for part in secret_parts(done.config))]
        except ConfigError as error:
            said = [str(error), repr(error)]
    assert "leak-" not in "\n".join(said)


def secret_parts(config: Config) -> Iterator[Any]:
    yield config.sessions.redis
    yield config.sessions.secrets
    yield config.directory
    for login in config.oidc_logins.values():
        yield login.client_secret, login.private_key
    for saml in config.saml_logins.values():
        yield saml.keys
    if config.provision is not None:
        for connection in config.provision.connections.values():
            yield connection.sql
            if connection.rest is not None:
                yield connection.rest.bearer, connection.rest.basic, connection.rest.login


@given(st.binary(max_size=200))
def test_no_bytes_at_all_crash_the_loader(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_bytes(raw)
        with pytest.raises(ConfigError):
            load(file, environment={})


SEGMENT = st.text("ab*", max_size=3)
PATTERN = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]), st.lists(SEGMENT, max_size=3), st.sampled_from([[], ["**"]])
).filter(lambda path: "**" not in path.removesuffix("/**"))


@given(PATTERN, PATTERN, st.lists(st.text("ab", max_size=3), min_size=1, max_size=4))
@settings(max_examples=500)
def test_a_rule_that_is_called_unreachable_is(wide: str, narrow: str, parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    if _path_covers(_segments(wide), _segments(narrow)) and compile_pattern(narrow).fullmatch(path):
        assert compile_pattern(wide).fullmatch(path)
