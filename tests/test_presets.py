"""Presets: only lines of configuration, which any line that is written wins over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from sidecar.config.loader import Problem
from sidecar.config.saml import Preset, SamlLogin
from sidecar.config.saml_presets import PRESETS, with_presets
from sidecar.faults import Refused
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.login import SamlSignIn
from sidecar.logins.saml.parties import ServiceProvider
from sidecar.model import SignedIn
from sidecar.plans import identity_plan
from sidecar.reason import Reason
from tests.configurations import loaded, problems
from tests.saml_forger import ACS, ENTITY, SERVICE, FixedMetadata, provider, recipe
from tests.saml_samples import SAMPLES, Sample

ROOT = Path(__file__).parent.parent
CONFIGURATION = """
server: {public_url: https://wiki.example.com}
app: {upstream: http://127.0.0.1:3000}
logins:
  corp: {type: saml, metadata: https://idp.example.com/metadata, preset: PRESET LINES}
sessions: {secrets: [{env: SESSION_SECRET}]}
audit: {stdout: true}
access: [{path: /**, allow: signed_in}]
"""


def login_with(tmp_path: Path, preset: str, lines: str = "", more: str = "") -> SamlLogin:
    """The login as it is in force."""
    text = CONFIGURATION.replace("PRESET", preset).replace(" LINES", f", {lines}" if lines else "") + more
    return loaded(tmp_path, text).config.saml_logins["corp"]


def errors(tmp_path: Path, text: str) -> list[Problem]:
    """What is wrong with *text*."""
    return [problem for problem in problems(tmp_path, text) if problem.severity == "error"]


def test_each_preset_that_can_be_named_exists() -> None:
    assert set(PRESETS) == set(get_args(Preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_says_who_people_are(tmp_path: Path, preset: str) -> None:
    login = login_with(tmp_path, preset)
    assert login.identity.username is not None
    assert login.identity.email is not None
    assert login.identity.name is not None
    assert login.identity.groups is not None
    read = {name for _, template in login.identity for name in template.claims or ()}
    assert read <= set(login.attributes), "a line of the identity reads what no attribute fills"


@pytest.mark.parametrize("preset", PRESETS)
def test_people_are_never_known_by_a_name_that_changes_with_each_sign_in(tmp_path: Path, preset: str) -> None:
    login = login_with(tmp_path, preset)
    assert login.name_id != "transient" or login.subject is not None


def test_a_line_of_the_login_wins_over_its_preset(tmp_path: Path) -> None:
    lines = 'name_id: email, attributes: {email: mail}, identity: {username: "{{ claims.email }}"}'
    login = login_with(tmp_path, "keycloak", lines)
    assert login.name_id == "email"
    assert login.attributes["email"] == "mail"
    assert login.attributes["groups"] == "groups"
    assert login.identity.username is not None
    assert login.identity.username.source == "{{ claims.email }}"
    assert login.identity.groups is not None


def test_a_line_of_the_general_identity_wins_over_a_preset(tmp_path: Path) -> None:
    general = 'identity: {username: "{{ claims.email }}"}'
    login = login_with(tmp_path, "entra", more=general)
    assert login.identity.username is None
    assert login.identity.groups is not None


@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_of_a_product_shows_its_attributes_and_a_login_with_its_preset(preset: str) -> None:
    page = (ROOT / "docs" / "saml" / f"{preset}.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", page, re.MULTILINE))
    assert shown == PRESETS[preset].attributes
    assert f"preset: {preset}\n" in page


def test_a_general_line_that_reads_what_the_product_does_not_send_leaves_the_preset_its_own(tmp_path: Path) -> None:
    general = 'identity: {username: "{{ claims.preferred_username }}", name: "{{ claims.name }}"}'
    for preset, attributes, kept in (("google", "", True), ("google", "attributes: {preferred_username: uid}", False)):
        login = login_with(tmp_path, preset, attributes, more=general)
        assert (login.identity.username is not None) is kept
        assert login.identity.name is not None
    entra = login_with(tmp_path, "entra", more=general)
    assert (entra.identity.username, entra.identity.name) == (None, None)


def test_google_is_not_asked_to_sign_people_out(tmp_path: Path) -> None:
    assert login_with(tmp_path, "google").sign_out is False
    assert login_with(tmp_path, "google", "sign_out: true").sign_out is True
    assert login_with(tmp_path, "okta").sign_out is True


def test_an_unknown_preset_is_an_error_that_says_what_was_meant(tmp_path: Path) -> None:
    [problem] = errors(tmp_path, CONFIGURATION.replace("PRESET LINES", "shiboleth"))
    assert (problem.path, problem.line) == ("logins.corp.preset", 5)
    assert problem.fix == "Did you mean `shibboleth`?"


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("attributes: [mail]", "logins.corp.attributes"),
        ("identity: text", "logins.corp.identity"),
        ("identity: {nickname: x}", "logins.corp.identity.nickname"),
    ],
)
def test_a_wrong_line_beside_a_preset_is_reported_where_it_stands(tmp_path: Path, lines: str, path: str) -> None:
    [problem] = errors(tmp_path, CONFIGURATION.replace("PRESET LINES", f"okta, {lines}"))
    assert problem.path == path


def test_a_mistake_elsewhere_does_not_hide_what_a_preset_says(tmp_path: Path) -> None:
    [problem] = errors(tmp_path, CONFIGURATION.replace("PRESET LINES", "okta") + "log: {level: loud}\n")
    assert problem.path == "log.level"


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"logins": None},
        {"logins": {"corp": None}},
        {"logins": {"corp": {"type": "saml"}}},
        {"logins": {"corp": {"type": "oidc", "preset": "okta"}}},
        {"logins": {"corp": {"type": "saml", "preset": ["okta"]}}},
    ],
)
def test_what_has_no_preset_stays_as_it_is(data: Any) -> None:
    assert with_presets(data) == data


def sign_in_with(tmp_path: Path, preset: str, lines: str = "domains: [corp.example]") -> SamlSignIn:
    """A login with *preset*, at the forger."""
    text = CONFIGURATION.replace("PRESET", preset).replace(" LINES", f", {lines}")
    config = loaded(tmp_path, text).config
    service = ServiceProvider(SERVICE, ACS, f"{ACS}/slo", SERVICE)
    section = config.saml_logins["corp"]
    return SamlSignIn("corp", section, service, FixedMetadata(provider()), identity_plan(config, "corp"))


async def answered(login: SamlSignIn, sample: Sample, **attributes: tuple[str, ...] | None) -> SignedIn:
    """Who the sample is, with some attributes changed or (None) left out."""

    def befriend(root: Any) -> None:
        for attribute in root.iter(tag("a:Attribute")):
            if attribute.get("Name") in sample.friendly:
                attribute.set("FriendlyName", sample.friendly[attribute.get("Name")])

    changed = {**sample.attributes, **attributes}
    made = recipe(
        name_id=sample.name_id,
        name_format=sample.name_format,
        attributes={name: values for name, values in changed.items() if values is not None},
        signs=sample.signs,
        before=(befriend,),
    )
    kept = {"request": made.request, "issuer": ENTITY}
    return await login.finish(kept, {"SAMLResponse": made.text()}, made.now)


@pytest.mark.parametrize("preset", PRESETS)
async def test_an_answer_in_the_shape_of_the_product_is_understood(tmp_path: Path, preset: str) -> None:
    login, sample = sign_in_with(tmp_path, preset), SAMPLES[preset]
    identity = (await answered(login, sample)).identity
    await login.close()
    assert identity.subject == sample.subject
    assert identity.username == sample.username
    assert identity.name == sample.name
    assert identity.email.lower() == "ada@corp.example"
    assert identity.groups == sample.groups


@pytest.mark.parametrize("preset", PRESETS)
async def test_an_address_outside_the_domains_of_the_login_is_not_believed(tmp_path: Path, preset: str) -> None:
    login = sign_in_with(tmp_path, preset, "domains: [other.example]")
    identity = (await answered(login, SAMPLES[preset])).identity
    await login.close()
    assert identity.email == ""


@pytest.mark.parametrize("preset", PRESETS)
async def test_groups_that_are_not_sent_are_unknown_unless_a_line_says_otherwise(tmp_path: Path, preset: str) -> None:
    silent: dict[str, Any] = {PRESETS[preset].attributes["groups"]: None}
    for lines, groups in (
        ("title: x", None),
        ('identity: {groups: "{{ claims.groups | default([]) }}"}', ()),
    ):
        login = sign_in_with(tmp_path, preset, lines)
        identity = (await answered(login, SAMPLES[preset], **silent)).identity
        await login.close()
        assert identity.groups == groups


async def test_more_groups_than_entra_sends_are_unknown_whatever_a_line_says(tmp_path: Path) -> None:
    groups = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"
    link: dict[str, Any] = {
        groups: None,
        "http://schemas.microsoft.com/claims/groups.link": ("https://graph.example/x",),
    }
    login = sign_in_with(tmp_path, "entra", 'identity: {groups: "{{ claims.groups | default([]) }}"}')
    identity = (await answered(login, SAMPLES["entra"], **link)).identity
    await login.close()
    assert identity.groups is None


async def test_somebody_of_a_university_without_pairwise_id_is_known_by_subject_id_or_refused(tmp_path: Path) -> None:
    pairwise, other = (f"urn:oasis:names:tc:SAML:attribute:{name}-id" for name in ("pairwise", "subject"))
    login, sample = sign_in_with(tmp_path, "shibboleth"), SAMPLES["shibboleth"]
    known: dict[str, Any] = {pairwise: None, other: ("ada@corp.example",)}
    assert (await answered(login, sample, **known)).identity.subject == "ada@corp.example"
    with pytest.raises(Refused) as refused:
        await answered(login, sample, **{pairwise: None})
    await login.close()
    assert refused.value.reason is Reason.IDENTITY_INCOMPLETE
