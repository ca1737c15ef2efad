"""The pages that people see: words for every reason, nothing reflected unescaped, safe headers, own templates."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jinja2
import pytest
from aiohttp import web
from playwright.async_api import Page

from sidecar.core.reasons import EXPLANATIONS, Way
from sidecar.faults import Refused, Unavailable
from sidecar.model import Decision, Effect, Visit
from sidecar.pages.answers import Answers
from sidecar.pages.samples import SAMPLES
from sidecar.reason import Reason

DOCS = Path(__file__).parent.parent / "docs"
VOID = {"meta", "link", "input", "br", "img", "hr"}
SVG_LEAVES = {"rect", "path", "circle"}
ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</title><script>alert(1)</script>",
    "//evil.example",
    "/\\evil.example",
    "https://evil.example/",
    "data:text/html,<script>alert(1)</script>",
    "0;url=javascript:alert(1)",
    "/x\r\nSet-Cookie: a=b",
)


class Reader(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.title = ""
        self.feed(text)
        self.close()
        assert self.open == [], "left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is there twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_LEAVES, tag
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title":
            self.title += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def visit(**changes: Any) -> Visit:
    values = {"method": "GET", "path": "/x", "host": "wiki.example.com", "client": "10.0.0.9", "scheme": "https"}
    return Visit(**{**values, "wants_page": True, "reference": "5f2c9ad01b7e", **changes})


def answers_of(**changes: Any) -> Answers:
    values = {"app_name": "Team Wiki", "prefix": "/-", "support": "it-help@example.com", "overrides": None}
    return Answers(**{**values, **changes})


@pytest.fixture(scope="module")
def answers() -> Answers:
    return answers_of()


def read(answer: web.Response) -> Reader:
    assert answer.content_type == "text/html"
    return Reader(str(answer.text))


def chooser(**changes: Any) -> Mapping[str, Any]:
    return {**SAMPLES["chooser"][0], **changes}


def every_page(answers: Answers) -> Iterator[web.Response]:
    for name, samples in SAMPLES.items():
        for values in samples:
            yield answers.page(name, 200, values)
    for reason in Reason:
        yield answers.refused(visit(), Refused(reason))
        yield answers.unavailable(visit(method="POST"), Unavailable(reason), "/-/login?to=/notes")


# Words


def test_every_reason_has_words_that_say_what_happened_and_what_to_do() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    for explanation in EXPLANATIONS.values():
        assert explanation.title, explanation
        assert not explanation.title.endswith("."), explanation
        assert explanation.happened.endswith("."), explanation
        assert explanation.advice.endswith("."), explanation


def test_every_reason_has_its_line_for_operators() -> None:
    lines = [line for line in (DOCS / "reasons.md").read_text().splitlines() if line.startswith("| `")]
    codes = [line.split("`")[1] for line in lines]
    assert sorted(codes) == sorted(reason.value for reason in Reason)
    assert all(len([cell for cell in line.split("|") if cell.strip()]) == 3 for line in lines)


def test_every_template_has_its_line_for_those_who_replace_it() -> None:
    text = (DOCS / "pages.md").read_text()
    for name, samples in SAMPLES.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}.html`"))
        for variable in samples[0]:
            assert f"`{variable}`" in line, (name, variable)


# Pages


def test_every_page_is_well_formed_and_has_one_heading_a_title_and_a_language(answers: Answers) -> None:
    for answer in every_page(answers):
        page = read(answer)
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("h1")) == 1
        assert len(page.all("main")) == 1
        assert page.title.endswith(" · Team Wiki")
        assert not page.title.startswith(" ")


def test_pages_need_no_script_and_no_inline_style(answers: Answers) -> None:
    for answer in every_page(answers):
        page = read(answer)
        # One page has the one script, and works by its button without it.
        assert not page.all("script") or 'name="SAMLRequest"' in str(answer.text)
        assert not page.all("style")
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)


def test_a_refusal_says_why_and_gives_the_reference(answers: Answers) -> None:
    text = str(answers.refused(visit(), Refused(Reason.ROLE_MISSING, detail="secret detail")).text)
    assert "You do not have access" in text
    assert "role-missing" in text
    assert "5f2c9ad01b7e" in text
    assert "it-help@example.com" in text
    assert "secret detail" not in text


def links(answer: web.Response) -> list[str]:
    return [attributes["href"] for attributes in read(answer).all("a") if "mailto" not in attributes["href"]]


def test_who_may_not_enter_can_sign_in_as_somebody_else(answers: Answers) -> None:
    assert links(answers.refused(visit(), Refused(Reason.ROLE_MISSING))) == ["/-/logout"]


def test_a_page_that_is_closed_to_everyone_does_not_send_people_round_in_circles(answers: Answers) -> None:
    assert links(answers.refused(visit(), Refused(Reason.RULE_DENIES))) == []


def test_a_failed_sign_in_begins_again_where_the_caller_says(answers: Answers) -> None:
    retry = "/-/login?to=/notes%3Fa%3D1"
    assert links(answers.refused(visit(), Refused(Reason.LOGIN_CODE_REFUSED), retry)) == [retry]


def test_a_used_up_sign_in_leads_on_to_the_application(answers: Answers) -> None:
    answer = answers.refused(visit(), Refused(Reason.LOGIN_STATE_UNKNOWN, 400), "/notes")
    assert links(answer) == ["/notes"]
    assert Way.CONTINUE.value in str(answer.text)


def test_an_outage_offers_to_load_the_same_address_again(answers: Answers) -> None:
    assert links(answers.unavailable(visit(), Unavailable(Reason.UPSTREAM_DOWN))) == [""]


def test_an_outage_does_not_offer_to_load_what_a_form_was_sent_to(answers: Answers) -> None:
    assert links(answers.unavailable(visit(method="POST"), Unavailable(Reason.UPSTREAM_DOWN))) == []


def test_a_missing_page_leads_to_the_start_page(answers: Answers) -> None:
    assert links(answers.refused(visit(), Refused(Reason.NOT_FOUND, 404))) == ["/"]


def test_the_chooser_keeps_the_way_back_in_links_and_in_the_form(answers: Answers) -> None:
    to = "/notes?a=1&with=evil#x"
    page = read(answers.page("chooser", 200, chooser(to=to)))
    for link, name in zip(page.all("a"), ("corp", "partners"), strict=False):
        assert parse_qs(urlsplit(link["href"]).query) == {"to": [to], "with": [name]}
    assert {"type": "hidden", "name": "to", "value": to} in page.all("input")
    assert page.all("form") == [{"method": "get", "action": "/-/login"}]


def test_the_chooser_says_that_an_address_is_unknown_at_the_field_itself(answers: Answers) -> None:
    page = read(answers.page("chooser", 200, chooser(email="ada@nowhere.example", unknown_email=True)))
    field = next(attributes for attributes in page.all("input") if attributes["name"] == "email")
    assert field["aria-invalid"] == "true"
    assert field["value"] == "ada@nowhere.example"
    assert field["aria-describedby"] in [attributes.get("id") for attributes in page.all("p")]


def test_without_e_mail_domains_the_chooser_has_no_form(answers: Answers) -> None:
    assert read(answers.page("chooser", 200, chooser(asks_email=False))).all("form") == []


def test_the_page_that_asks_before_signing_out_posts(answers: Answers) -> None:
    forms = read(answers.page("confirm_sign_out", 200, {})).all("form")
    assert [(form["method"], form["action"]) for form in forms] == [("post", "/-/logout")]


@pytest.mark.parametrize(
    ("support", "link"),
    [
        ("it-help@example.com", "mailto:it-help@example.com"),
        ("https://help.example.com/new", "https://help.example.com/new"),
        ("the help desk, phone 4711", None),
        ("javascript:alert(1)", None),
        ("javascript:alert(1)//a@b.example", None),
    ],
)
def test_support_is_a_link_only_where_it_surely_is_one(support: str, link: str | None) -> None:
    page = read(answers_of(support=support).page("signed_out", 200, {}))
    found = [attributes["href"] for attributes in page.all("a") if attributes["href"] != "/"]
    assert found == ([link] if link else [])


# T74: whatever is reflected stays text


def skeleton(page: Reader) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(attributes)) for tag, attributes in page.elements]


def targets(page: Reader) -> list[str]:
    return [attributes[name] for _, attributes in page.elements for name in ("href", "action") if name in attributes]


@pytest.mark.parametrize("attack", ATTACKS)
def test_t74_reflected_values_never_become_markup_or_foreign_links(answers: Answers, attack: str) -> None:
    plain = chooser(unknown_email=True, choices=[{"name": "a", "title": "b"}])
    evil = {**plain, "to": attack, "email": attack, "choices": [{"name": attack, "title": attack}]}
    said = SAMPLES["refused"][0]
    cases = (
        ("chooser", plain, evil),
        ("refused", said, {**said, "title": attack, "happened": attack, "reference": attack, "reason": attack}),
        ("unavailable", said, {**said, "title": attack, "advice": attack, "reference": attack}),
        ("onward", {"to": "/"}, {"to": attack, "note": attack}),
    )
    for name, harmless, hostile in cases:
        page = read(answers.page(name, 200, hostile))
        assert skeleton(page) == skeleton(read(answers.page(name, 200, harmless))), name
        for target in targets(page):
            assert target.startswith(("/-/", "mailto:it-help", "data:,")) or target == "/", (name, target)


@pytest.mark.parametrize("attack", ATTACKS)
def test_t74_the_page_that_goes_on_by_itself_stays_on_this_site(answers: Answers, attack: str) -> None:
    page = read(answers.page("onward", 200, {"to": attack}))
    refresh = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "refresh")
    assert refresh == "0;url=/"
    assert links(answers.page("onward", 200, {"to": attack})) == ["/"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_t74_a_way_back_that_leaves_the_site_leads_to_the_start_page(answers: Answers, attack: str) -> None:
    assert links(answers.refused(visit(), Refused(Reason.LOGIN_CODE_REFUSED), attack)) == ["/"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_t74_the_names_in_the_configuration_are_text_too(attack: str) -> None:
    plain = read(answers_of(support="words").page("signed_out", 200, {}))
    page = read(answers_of(app_name=attack, support="words, " + attack).page("signed_out", 200, {}))
    assert skeleton(page) == skeleton(plain)
    assert page.title == f"You are signed out · {attack}"


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("wiki.example.com", "wiki.example.com"),
        ('x", error="invalid_token', "xerrorinvalid_token"),
        ("x\r\nSet-Cookie: a=b", "xSet-Cookie:ab"),
        ('x\\"', "x"),
        ("wíki", "wki"),
    ],
)
def test_a_hostile_host_cannot_break_out_of_the_challenge(answers: Answers, host: str, realm: str) -> None:
    decision = Decision(Effect.CHALLENGE, Reason.NOT_SIGNED_IN)
    answer = answers.challenge(visit(host=host, wants_page=False), "https://wiki.example.com/-/login", decision)
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{realm}"'


# Headers


def every_answer(answers: Answers) -> Iterator[web.Response]:
    yield from every_page(answers)
    program = visit(wants_page=False)
    yield answers.json(200, {"a": 1})
    yield answers.go("https://id.example.com/auth", ["a=b"])
    yield answers.challenge(program, "https://wiki.example.com/-/login", Decision())
    yield answers.refused(program, Refused(Reason.ROLE_MISSING))
    yield answers.unavailable(program, Unavailable(Reason.STORE_DOWN))


def test_every_answer_is_private_and_gives_nothing_away(answers: Answers) -> None:
    for answer in every_answer(answers):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Frame-Options"] == "DENY"


def policy(answer: web.Response) -> dict[str, str]:
    parts = [part.strip().partition(" ") for part in answer.headers["Content-Security-Policy"].split(";")]
    return {name: value for name, _, value in parts}


def test_every_answer_forbids_scripts_and_frames(answers: Answers) -> None:
    for answer in every_answer(answers):
        rules = policy(answer)
        assert rules["default-src"] == "'none'"
        assert "script-src" not in rules
        assert rules["base-uri"] == "'none'"
        assert rules["frame-ancestors"] == "'none'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_forms_may_lead_to_a_provider_and_only_pages_that_are_made_for_them_have_any(answers: Answers) -> None:
    for name, samples in SAMPLES.items():
        if name == "post_on":
            continue
        answer = answers.page(name, 200, samples[0])
        may = "'self' https: http://localhost:* http://127.0.0.1:*" if read(answer).all("form") else "'none'"
        # What is posted there goes nowhere else.
        may = "'self'" if name == "break_glass" else may
        assert policy(answer)["form-action"] == may


def test_a_page_that_posts_may_run_that_script_and_post_to_that_place_and_nothing_else(answers: Answers) -> None:
    answer = answers.post_on("https://idp.example.com:8443/sso?a=1", {"SAMLRequest": '"><script>x</script>'})
    assert "<script>x" not in str(answer.text)
    assert read(answer).all("script")
    script = str(answer.text).partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    said = policy(answer)
    assert said["script-src"] == f"'sha256-{digest}'"
    assert said["form-action"].endswith(" https://idp.example.com:8443")
    assert said["default-src"] == "'none'"


def test_pages_without_a_form_allow_none(answers: Answers) -> None:
    assert policy(answers.refused(visit(), Refused(Reason.ROLE_MISSING)))["form-action"] == "'none'"
    assert policy(answers.page("onward", 200, {"to": "/"}))["form-action"] == "'none'"


def test_the_stylesheet_may_be_kept_because_its_address_changes_with_it(answers: Answers, tmp_path: Path) -> None:
    sheet = answers.stylesheet()
    assert sheet.content_type == "text/css"
    assert sheet.headers["Cache-Control"] == "public, max-age=3600"
    assert sheet.headers["X-Content-Type-Options"] == "nosniff"
    (tmp_path / "style.css").write_text("main { color: red }")
    own = answers_of(overrides=tmp_path)
    assert own.stylesheet().text == "main { color: red }"

    def address(some: Answers) -> str:
        return next(
            link["href"] for link in read(some.page("signed_out", 200, {})).all("link") if link["rel"] == "stylesheet"
        )

    assert address(answers) != address(own)
    assert address(own).startswith("/-/style.css?v=")


def test_cookies_travel_with_every_kind_of_answer(answers: Answers) -> None:
    cookies = ["a=1; Path=/", "b=2; Path=/"]
    for answer in (
        answers.page("signed_out", 200, {}, cookies),
        answers.go("/", cookies),
        answers.json(200, {}, cookies),
        answers.refused(visit(), Refused(Reason.LOGIN_LOOP), cookies=cookies),
    ):
        assert answer.headers.getall("Set-Cookie") == cookies


# Programs


def test_programs_get_json_with_the_same_code(answers: Answers) -> None:
    program = visit(wants_page=False)
    refused = answers.refused(program, Refused(Reason.ROLE_MISSING, detail="secret detail"))
    assert refused.status == 403
    assert json.loads(str(refused.text)) == {"error": "role-missing", "reference": "5f2c9ad01b7e"}
    down = answers.unavailable(program, Unavailable(Reason.UPSTREAM_SLOW, "detail", 504))
    assert down.status == 504
    assert down.headers["Retry-After"] == "5"
    assert json.loads(str(down.text)) == {"error": "application-slow", "reference": "5f2c9ad01b7e"}


def test_programs_are_told_where_a_person_could_sign_in(answers: Answers) -> None:
    url = "https://wiki.example.com/-/login?to=/x"
    answer = answers.challenge(visit(wants_page=False), url, Decision(Effect.CHALLENGE, Reason.NOT_SIGNED_IN))
    assert answer.status == 401
    assert json.loads(str(answer.text))["login_url"] == url


def test_a_token_that_is_too_old_is_told_so(answers: Answers) -> None:
    answer = answers.challenge(visit(), "/-/login", Decision(Effect.STEP_UP, Reason.REAUTHENTICATION))
    assert answer.headers["WWW-Authenticate"].endswith(', error="insufficient_user_authentication"')


def test_a_bad_token_is_told_so_and_no_401_lacks_a_challenge(answers: Answers) -> None:
    program = visit(wants_page=False)
    bad = answers.refused(program, Refused(Reason.TOKEN_EXPIRED, 401))
    assert bad.headers["WWW-Authenticate"] == 'Bearer realm="wiki.example.com", error="invalid_token"'
    nobody = answers.refused(program, Refused(Reason.NOT_SIGNED_IN, 401))
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="wiki.example.com"'
    assert "WWW-Authenticate" not in answers.refused(program, Refused(Reason.TOKEN_EXPIRED, 403)).headers


# Templates of the operator's own


def test_one_file_replaces_one_page_and_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "signed_out.html").write_text("<h1>Bye from {{ app_name }}</h1>")
    own = answers_of(overrides=tmp_path)
    assert own.page("signed_out", 200, {}).text == "<h1>Bye from Team Wiki</h1>"
    assert "Sign out?" in str(own.page("confirm_sign_out", 200, {}).text)


def test_a_page_may_extend_the_one_that_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "base.html").write_text(
        '{% extends "built-in/base.html" %}{% block brand %}<img src="/logo.svg" alt="{{ app_name }}">{% endblock %}'
    )
    page = read(answers_of(overrides=tmp_path).refused(visit(), Refused(Reason.ROLE_MISSING)))
    assert page.all("img") == [{"src": "/logo.svg", "alt": "Team Wiki"}]
    assert len(page.all("h1")) == 1


def test_own_templates_escape_too(tmp_path: Path) -> None:
    (tmp_path / "refused.html").write_text("<h1>{{ title }}</h1>")
    own = answers_of(overrides=tmp_path)
    text = own.page("refused", 403, {**SAMPLES["refused"][0], "title": "<script>"}).text
    assert text == "<h1>&lt;script&gt;</h1>"


def test_templates_are_not_read_again_after_the_start(tmp_path: Path) -> None:
    file = tmp_path / "signed_out.html"
    file.write_text("before")
    own = answers_of(overrides=tmp_path)
    file.write_text("{{ broken")
    assert own.page("signed_out", 200, {}).text == "before"


def test_a_start_anew_compiles_what_changed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, compiled = tmp_path / "signed_out.html", []
    compile_it = jinja2.Environment.compile

    def noted(environment: jinja2.Environment, source: Any, name: Any = None, *rest: Any, **more: Any) -> Any:
        compiled.append(name)
        return compile_it(environment, source, name, *rest, **more)

    monkeypatch.setattr(jinja2.Environment, "compile", noted)
    file.write_text("before")
    answers_of(overrides=tmp_path)
    compiled.clear()
    assert answers_of(overrides=tmp_path).page("signed_out", 200, {}).text == "before"
    assert compiled == []
    file.write_text("behind")
    assert answers_of(overrides=tmp_path).page("signed_out", 200, {}).text == "behind"
    assert compiled == ["signed_out.html"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("refused.html", "<p>\n{{ title }\n", "refused.html, line 2"),
        ("refused.html", "<p>\n\n{{ titel }}\n", r"refused.html, line 3: UndefinedError: 'titel'"),
        ("refused.html", "{% if not is_for_others %}\n{{ nothing }}{% endif %}", "refused.html, line 2"),
        ("chooser.html", "{% if unknown_email %}{{ mail }}{% endif %}", "chooser.html, line 1"),
        ("onward.html", "\n{{ 1 // 0 }}", "onward.html, line 2: ZeroDivisionError"),
        ("signed_out.html", "\n{% include '_gone.html' %}", "signed_out.html, line 2: TemplateNotFound"),
        ("signed_out.html", "{% extends '../../etc/passwd' %}", "signed_out.html, line 1"),
        ("_part.html", "{% if %}", "_part.html, line 1"),
        ("refuse.html", "<h1>misspelt</h1>", "refuse.html: no page has this name"),
        ("styles.css", "", "styles.css: no page has this name"),
    ],
)
def test_a_broken_template_is_found_at_the_start_with_file_and_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        answers_of(overrides=tmp_path)


@pytest.mark.parametrize("name", ["refused.html", "style.css"])
def test_a_template_that_is_not_utf_8_is_found_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"{name}.*UTF-8"):
        answers_of(overrides=tmp_path)


def test_a_folder_that_is_not_there_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        answers_of(overrides=tmp_path / "gone")


# In a real browser


@pytest.fixture
async def site(answers: Answers) -> AsyncIterator[tuple[str, list[str]]]:
    """The pages on 127.0.0.1, with a provider that is another site; (its address, what the provider was asked)."""
    asked: list[str] = []
    provider = ""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers["Host"].startswith("localhost"):
            asked.append(request.path_qs)
            return web.Response(text="provider")
        if request.path in ("/-/login", "/-/logout"):
            return answers.go(f"{provider}{request.path}")
        if request.path == "/-/style.css":
            return answers.stylesheet()
        if request.path == "/onward":
            return answers.page("onward", 200, {"to": request.query["to"]})
        name = request.path[1:]
        if name in SAMPLES:
            # Without its script, which would leave the page at once.
            values = {**SAMPLES[name][0], "script": ""} if name == "post_on" else SAMPLES[name][0]
            return answers.page(name, 200, values)
        return web.Response(text=f"arrived at {request.raw_path}")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    port = runner.addresses[0][1]
    provider = f"http://localhost:{port}"
    yield f"http://127.0.0.1:{port}", asked
    await runner.cleanup()


async def test_the_browser_follows_the_e_mail_form_to_the_provider(page: Page, site: tuple[str, list[str]]) -> None:
    address, asked = site
    await page.goto(f"{address}/chooser")
    await page.get_by_label("E-mail address").fill("ada@example.com")
    await page.get_by_role("button", name="Continue").click()
    await page.wait_for_url("http://localhost:*/-/login")
    assert "/-/login" in asked


async def test_the_browser_follows_the_sign_out_form_to_the_provider(page: Page, site: tuple[str, list[str]]) -> None:
    address, asked = site
    await page.goto(f"{address}/confirm_sign_out")
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("http://localhost:*/-/logout")
    assert "/-/logout" in asked


@pytest.mark.parametrize("to", ["/a;b=c", "/a'b", "/a?x='1';y=2,3&z=%22", "/%3Cscript%3E?to=%2F&url=/x;0;url=/evil"])
async def test_the_browser_goes_on_by_itself_to_the_very_path(page: Page, site: tuple[str, list[str]], to: str) -> None:
    address, _ = site
    await page.goto(f"{address}/onward?to={re.sub('[^A-Za-z/]', lambda one: f'%{ord(one[0]):02X}', to)}")
    await page.wait_for_url(re.compile(r"/(a|%3C)"))
    # Browsers write an apostrophe in a query as %27 whoever asks (URL Standard, special-query percent-encode set).
    path, _, query = to.partition("?")
    expected = f"{path}?{query.replace(chr(39), '%27')}" if query else path
    assert await page.inner_text("body") == f"arrived at {expected}"


_CONTRASTS = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
      .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/^rgba\\(.*, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() &&
      (e.matches("input") || [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))).map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return [e.outerHTML, (a + 0.05) / (b + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_and_fits_a_phone(page: Page, site: tuple[str, list[str]], scheme: str) -> None:
    address, _ = site
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size({"width": 320, "height": 640})
    for name in set(SAMPLES) - {"onward"}:
        await page.goto(f"{address}/{name}")
        contrasts = await page.evaluate(_CONTRASTS)
        assert len(contrasts) > 3
        assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        assert await page.evaluate("getComputedStyle(document.querySelector('main')).borderTopStyle") == "solid"
    assert complaints == []


async def test_the_keyboard_shows_where_it_is(page: Page, site: tuple[str, list[str]]) -> None:
    address, _ = site
    await page.goto(f"{address}/chooser")
    for expected in ("INPUT", "BUTTON", "A", "A"):
        await page.keyboard.press("Tab")
        tag, style = await page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert (tag, style) == (expected, "solid")
