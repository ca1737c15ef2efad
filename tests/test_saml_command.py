"""`sidecar saml`: our metadata on paper, and an answer explained point by point without anybody's name in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from click.testing import CliRunner, Result
from lxml import etree

from sidecar.cli import main
from tests.saml_farewells import is_schema_valid, section
from tests.saml_forger import ENTITY, pair, recipe
from tests.saml_metadata import described
from tests.world import BASE, merged

URL = "https://wiki.example.com"
ACS = f"{URL}/-/callback/partners"
AUDIENCE = f"{URL}/-/saml/partners/metadata"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one SAML login."""
    base = yaml.load(BASE, Loader=yaml.BaseLoader)  # noqa: S506 - text only
    changes = {
        "server": {"public_url": URL},
        "app": {"upstream": "http://127.0.0.1:3000"},
        "logins": {"corp": None, "partners": section(tmp_path)},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(merged(base, changes)))
    return file


def run(*words: str | Path, given: bytes | None = None) -> Result:
    environment = {"SESSION_SECRET": "a session secret that is long enough for anybody"}
    return CliRunner().invoke(main, ["saml", *map(str, words)], input=given, env=environment)


def answer(**changes: Any) -> bytes:
    return recipe(**{"acs": ACS, "audience": AUDIENCE, **changes}).raw()


def test_our_metadata_is_printed_for_a_provider_that_takes_files(config: Path) -> None:
    done = run("metadata", config)
    assert done.exit_code == 0, done.output
    root = etree.fromstring(done.stdout.encode())
    assert is_schema_valid(root, "saml-schema-metadata-2.0.xsd")
    assert root.get("entityID") == AUDIENCE
    # Kept as a file it must not run out.
    assert root.get("validUntil") is None
    said = json.loads(run("metadata", "--json", "--login", "partners", config).stdout)
    assert said["acs"] == ACS
    assert said["document"].startswith("<?xml")
    assert run("metadata", "--login", "nobody", config).exit_code == 2


def forms_of(raw: bytes) -> dict[str, bytes]:
    """The same answer as people find it."""
    coded = base64.b64encode(raw)
    return {
        "XML": raw,
        "base64": coded,
        "base64 in lines": base64.encodebytes(raw),
        "a form": urlencode({"RelayState": "x", "SAMLResponse": coded.decode()}).encode(),
    }


@pytest.mark.parametrize("form", forms_of(b""))
def test_a_good_answer_is_right_in_every_point(config: Path, form: str) -> None:
    done = run("inspect", "-", config, given=forms_of(answer())[form])
    assert done.exit_code == 0, done.output
    assert "WRONG" not in done.output
    assert "right  signature: the assertion is signed with a key in the provider's metadata" in done.output
    assert f"Issuer: {ENTITY}" in done.output


def test_names_and_values_of_people_are_masked_unless_asked_for(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "response.xml"
    file.write_bytes(answer())
    for words in ((file,), (file, config), ("--json", file, config)):
        done = run("inspect", *words)
        for secret in ("8f14e45f-ada", "ada@partner.example", "Ada Lovelace", "wiki-admins", "_session-7"):
            assert secret not in done.output
    shown = run("inspect", "--show-values", file, config)
    assert "8f14e45f-ada" in shown.output
    assert "ada@partner.example" in shown.output


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"key": pair("evil")}, "WRONG  signature: token-invalid"),
    ({"audience": "https://other.example"}, "WRONG  audience and times of the conditions: token-audience"),
    ({"acs": "https://other.example/acs"}, "WRONG  destination: token-audience"),
    ({"issuer": "https://other.example"}, "WRONG  issuer of the assertion: token-issuer"),
    ({"now": 1_600_000_000.0}, "WRONG  time of the response: token-expired"),
]


@pytest.mark.parametrize(("changes", "line"), WRONG, ids=[line for _, line in WRONG])
def test_what_is_wrong_is_said_and_the_rest_is_still_looked_at(
    config: Path, changes: dict[str, Any], line: str
) -> None:
    done = run("inspect", "-", config, given=answer(**changes))
    assert done.exit_code == 1
    assert line in done.output
    assert "right  " in done.output.partition(line)[0] + done.output.partition(line)[2]


def test_a_name_of_another_kind_than_is_asked_for_is_said(config: Path) -> None:
    config.write_text(config.read_text().replace("type: saml", "type: saml\n    name_id: email"))
    done = run("inspect", "-", config, given=answer())
    assert "WRONG  format of the NameID: token-claim: the NameID's Format is not" in done.output


def test_an_old_answer_can_be_judged_as_of_when_it_was_made(config: Path) -> None:
    old = answer(now=1_600_000_000.0)
    assert run("inspect", "--as-issued", "-", config, given=old).exit_code == 0


def test_without_a_configuration_it_is_only_shown(config: Path) -> None:
    done = run("inspect", "-", given=answer(key=pair("evil")))
    assert done.exit_code == 0
    assert "to verify it" in done.output
    data = json.loads(run("inspect", "--json", "-", given=answer()).stdout)
    assert data["facts"]["signed"] == "Assertion"
    assert data["right"] is True


def test_an_encrypted_answer_is_opened_with_our_key(config: Path) -> None:
    done = run("inspect", "-", config, given=answer(encrypt=(pair("ours"), None, None)))
    assert done.exit_code == 0, done.output
    assert "encrypted: EncryptedAssertion" in done.output
    assert f"Audience: {AUDIENCE}" in done.output
    other = run("inspect", "-", config, given=answer(encrypt=(pair("evil"), None, None)))
    assert other.exit_code == 1


def test_hostile_documents_are_refused_and_not_opened(config: Path) -> None:
    entity = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    done = run("inspect", "-", config, given=entity)
    assert done.exit_code == 1
    assert "WRONG  well-formed" in done.output
    assert "root:" not in done.output


def test_what_is_no_answer_at_all_is_a_mistake_in_use(config: Path) -> None:
    assert run("inspect", "-", config, given=b"hello, world").exit_code == 2


def test_metadata_that_cannot_be_had_is_said(config: Path, tmp_path: Path) -> None:
    (tmp_path / "idp.xml").unlink()
    assert run("inspect", "-", config, given=answer()).exit_code == 3


def test_an_answer_of_a_provider_that_changed_its_key_is_right_with_the_new_metadata(
    config: Path, tmp_path: Path
) -> None:
    (tmp_path / "idp.xml").write_text(described(ENTITY, pair("two"), pair()))
    assert run("inspect", "-", config, given=answer(key=pair("two"))).exit_code == 0
