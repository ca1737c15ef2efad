"""Headers cross to the application only as the plan says."""

from __future__ import annotations

import pytest

from sidecar.core.headers import (
    HeaderPlan,
    Origin,
    check_names,
    collapsed,
    encode_basic,
    encode_value,
    forwarding_lines,
)
from sidecar.faults import Refused
from sidecar.reason import Reason

PLAN = HeaderPlan(
    managed=frozenset(map(collapsed, ["X-App-User", "X-App-Roles"])),
    own_cookies=frozenset(["__Host-sidecar", "__Host-sidecar-browser"]),
)


def incoming(*lines: tuple[str, str]) -> list[tuple[str, str]]:
    return PLAN.incoming([(name.encode("latin-1"), value.encode()) for name, value in lines])


SPELLINGS = ["X-App-User", "x-app-user", "X_App_User", "x.app.user", "X-APP_user", "x~app!user", "X-App-User "]


@pytest.mark.parametrize("name", SPELLINGS[:-1])
def test_t01_managed_names_die_in_every_spelling(name: str) -> None:
    assert incoming((name, "admin"), (name, "again"), ("X-Fine", "1")) == [("X-Fine", "1")]


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For",
        "X_Forwarded_Proto",
        "x-forwarded-anything",
        "Forwarded",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Real-IP",
        "Remote-User",
        "X-Remote-User",
        "X-Auth-Request-Email",
        "X-WebAuth-User",
        "Proxy",
        "X-Original-Method",
        "X-Forwarded",
        "Forwarded-For",
        "Client-IP",
        "X-Originating-IP",
        "WL-Proxy-Client-IP",
        "SSL-Client-Verify",
        "X-SSL-Client-S-DN",
    ],
)
def test_t07_what_proxies_say_about_a_person_never_comes_from_outside(name: str) -> None:
    assert incoming((name, "x")) == []


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method_Override"]
)
def test_t18_method_overrides_are_stripped(name: str) -> None:
    assert incoming((name, "DELETE")) == []


@pytest.mark.parametrize(
    "name",
    [
        "SCRIPT_NAME",
        "Script-Name",
        "PATH_INFO",
        "X-Script-Name",
        "X-Accel-Mapping",
        "X-Sendfile-Type",
        "X-Middleware-Subrequest",
    ],
)
def test_t13_headers_that_move_the_path_of_an_application_are_stripped(name: str) -> None:
    assert incoming((name, "/public")) == []


def test_t04_names_listed_by_connection_are_removed_before_ours_are_added() -> None:
    kept = incoming(("Connection", "close, X-App-User, x-secret"), ("X-Secret", "1"), ("X-Fine", "2"))
    assert kept == [("X-Fine", "2")]


def test_hop_by_hop_headers_and_framing_stay_behind() -> None:
    names = [
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Proxy-Authorization",
        "Content-Length",
        "Host",
    ]
    assert incoming(*((name, "x") for name in names)) == []


def test_t09_our_cookies_stay_behind_and_the_others_pass_byte_for_byte() -> None:
    kept = incoming(("Cookie", 'a=1; __Host-sidecar=secret;b="x y"; __Host-sidecar-browser=q; c=é'))
    assert kept == [("Cookie", 'a=1;b="x y"; c=é')]
    assert incoming(("Cookie", "__Host-sidecar=secret")) == []
    assert incoming(("X_Cookie", "fine"), ("cookie", "__Host-sidecar=1")) == [("X_Cookie", "fine")]


def test_t09_bearer_tokens_stay_behind_where_they_are_ours_to_read() -> None:
    plan = HeaderPlan(managed=frozenset(), keeps_bearer=False)
    assert plan.incoming([(b"Authorization", b"Bearer abc"), (b"Accept", b"*/*")]) == [("Accept", "*/*")]
    assert plan.incoming([(b"authorization", b"Basic abc")]) == [("authorization", "Basic abc")]


def test_order_case_duplicates_and_bytes_are_kept() -> None:
    lines = [(b"B-Two", b"1"), (b"a-one", b"\xe9"), (b"B-Two", b"2"), (b"Empty", b"")]
    kept = PLAN.incoming(lines)
    assert [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in kept] == lines


def test_the_memo_of_names_is_bounded() -> None:
    plan = HeaderPlan(managed=frozenset(["x_user"]))
    for number in range(10_000):
        plan.incoming([(f"X-{number}".encode(), b"")])
    assert len(plan._memo) <= 4096
    assert plan.incoming([(b"X.User", b"admin")]) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "rfc2047"])
@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nb", "a\rb", "a\x00b", "a\x1bb", "a\x7fb", "a\tb"])
def test_t05_control_characters_in_a_value_are_refused(encoding: str, value: str) -> None:
    with pytest.raises(Refused) as refused:
        encode_value("X-App-User", value, encoding, 100)
    assert refused.value.reason is Reason.HEADER_VALUE


@pytest.mark.parametrize("encoding", ["percent", "base64"])
def test_t05_encodings_that_can_say_a_line_break_say_it_harmlessly(encoding: str) -> None:
    text = encode_value("X-App-User", "a\r\nX-Admin: 1\x00", encoding, 100)
    assert text.isprintable()


@pytest.mark.parametrize(
    ("encoding", "wire"),
    [
        ("utf-8", "Zoë".encode()),
        ("latin-1", "Zoë".encode("latin-1")),
        ("percent", b"Zo%C3%AB"),
        ("rfc2047", b"=?utf-8?q?Zo=C3=AB?="),
        ("base64", b"Wm/Dqw=="),
    ],
)
def test_t06_names_beyond_ascii_are_written_as_configured(encoding: str, wire: bytes) -> None:
    text = encode_value("X-Name", "Zoë", encoding, 100)
    assert text.encode("utf-8", "surrogateescape") == wire


def test_t06_what_an_encoding_cannot_say_is_refused() -> None:
    with pytest.raises(Refused):
        encode_value("X-Name", "Zoë", "ascii", 100)
    with pytest.raises(Refused):
        encode_value("X-Name", "Łódź", "latin-1", 100)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "percent", "rfc2047", "base64"])
def test_t05_half_a_character_is_refused(encoding: str) -> None:
    for half in ("\ud800", "\udc80"):
        with pytest.raises(Refused) as refused:
            encode_value("X-Name", f"a{half}", encoding, 100)
        assert refused.value.reason is Reason.HEADER_VALUE
        with pytest.raises(Refused):
            encode_basic("Authorization", f"a{half}", "b", 100)


def test_t06_a_value_over_its_limit_is_refused_and_never_cut() -> None:
    with pytest.raises(Refused) as refused:
        encode_value("X-Groups", "g" * 40_000, "utf-8", 8192)
    assert "X-Groups" in refused.value.detail
    assert "8192" in refused.value.detail


def test_forwarding_lines_say_where_people_are() -> None:
    lines = dict(forwarding_lines(Origin("2001:db8::1", "https", "wiki.example.com", 443)))
    assert lines["X-Forwarded-For"] == "2001:db8::1"
    assert lines["Forwarded"] == 'for="[2001:db8::1]";host="wiki.example.com";proto=https'


def test_two_names_that_are_one_to_an_application_are_refused() -> None:
    with pytest.raises(ValueError, match="same header"):
        check_names(["X-User", "X_User"])


@pytest.mark.parametrize(
    "line",
    [
        "__Host-sidecar=x; Path=/",
        " __Host-sidecar = x",
        "__Host-sidecar",
        "=__Host-sidecar=x",
        " = __Host-sidecar=x",
        "==__Host-sidecar=x",
    ],
)
def test_t09_a_set_cookie_that_browsers_send_back_as_ours_is_known(line: str) -> None:
    assert PLAN.sets_own(line)


@pytest.mark.parametrize("line", ["theirs=__Host-sidecar=x", "a=1; __Host-sidecar=x", "=theirs=1", "", "="])
def test_set_cookies_of_the_application_are_its_own(line: str) -> None:
    assert not PLAN.sets_own(line)


def test_long_names_of_strangers_are_judged_and_not_remembered() -> None:
    plan = HeaderPlan(managed=frozenset(["x_app_user"]))
    assert plan.incoming([(b"x" * 30_000, b"1")]) == [("x" * 30_000, "1")]
    assert plan.incoming([(b"X-App-User", b"1")]) == []
    assert [name for name in plan._memo if len(name) > 64] == []
    assert len(plan._memo) == 1
