"""The one path that is judged, and the one door for return targets."""

from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from sidecar.core.paths import read_target, safe_return_to
from sidecar.faults import Refused
from sidecar.reason import Reason

AMBIGUOUS = [
    "/public/../admin",
    "/public/./admin",
    "/..",
    "/a/..",
    "/%2e%2e/admin",
    "/%2E%2e/admin",
    "/.%2e/admin",
    "/public/%2e/admin",
    "/public/..;/admin",
    "/public/..;x=1/admin",
    "/public/%2e%2e;/admin",
    "/..%3b/admin",
    "//admin",
    "/public//admin",
    "/;/admin",
    "/public/;x/admin",
    "/public%2fadmin",
    "/public%2Fadmin",
    "/public%5cadmin",
    "/public%5Cadmin",
    "/%252e%252e/admin",
    "/public%252fadmin",
    "/a%00b",
    "/a%0ab",
    "/a%0d%0ab",
    "/a%7fb",
]
INVALID = ["", "*", "admin", "/ä", "/a b", "/a\\b", "/a#b", "/a?x#y", "/a%zz", "/a%2", "/%c0%ae", "/%ff", "/a\tb"]
INVALID += ["/a?\x00", "http:///x", "http://u@h/x", "ftp://h/x", "h:443", "/a\nb"]


@pytest.mark.parametrize("raw", AMBIGUOUS)
def test_t13_paths_that_two_servers_read_differently_are_refused(raw: str) -> None:
    with pytest.raises(Refused) as refused:
        read_target(raw)
    assert refused.value.reason is Reason.PATH_AMBIGUOUS
    assert refused.value.status == 400


@pytest.mark.parametrize("raw", INVALID)
def test_t15_malformed_targets_are_refused(raw: str) -> None:
    with pytest.raises(Refused) as refused:
        read_target(raw)
    assert refused.value.reason is Reason.TARGET_INVALID


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b", "/a/b", ""),
        ("/a/b/", "/a/b/", ""),
        ("/a?x=/public", "/a", "x=/public"),
        ("/a?", "/a", ""),
        ("/%41dmin", "/Admin", ""),
        ("/caf%C3%A9", "/café", ""),
        ("/foo/secret%23/bar", "/foo/secret#/bar", ""),
        ("/100%25", "/100%", ""),
        ("/.well-known/x", "/.well-known/x", ""),
        ("/a..b/c.", "/a..b/c.", ""),
        ("/a[1]|b^", "/a[1]|b^", ""),
        ("/page;jsessionid=1", "/page", ""),
        ("/a;x=1/b?q=[1]&r={}", "/a/b", "q=[1]&r={}"),
    ],
)
def test_the_path_is_decoded_once_and_the_query_left_alone(raw: str, path: str, query: str) -> None:
    target = read_target(raw)
    assert (target.raw, target.path, target.query) == (raw, path, query)


def test_parameters_are_kept_in_the_literal_path() -> None:
    assert read_target("/admin;x=1/users").literal == "/admin;x=1/users"


def test_absolute_form_becomes_origin_form_with_its_authority() -> None:
    target = read_target("http://wiki.example.com:8080/a?b")
    assert (target.raw, target.authority) == ("/a?b", "wiki.example.com:8080")
    assert read_target("http://wiki.example.com").raw == "/"


def test_a_target_of_absurd_length_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read_target("/" + "a" * 20_000)
    assert refused.value.status == 414


@given(st.text(alphabet=string.printable + "äé\u2028%./;\\", max_size=60))
def test_reading_never_fails_in_any_other_way_and_never_leaves_a_dot_segment(text: str) -> None:
    try:
        target = read_target("/" + text)
    except Refused:
        return
    for path in (target.path, target.literal):
        segments = path.split("/")
        assert ".." not in segments
        assert "." not in segments
        assert "" not in segments[1:-1]


def _corpus() -> list[str]:
    """Shapes in which a return target leads to another site, made from their building blocks."""
    slashes = [
        "//",
        "///",
        "/\\",
        "\\\\",
        "\\/",
        "/\t/",
        "/\n/",
        "/\r/",
        "/%09/",
        "/%0a/",
        "/%5c",
        "/%2f",
        "/ /",
        "/.//",
    ]
    slashes += ["/..//", "/./", "\t//", " //", "%2f%2f", "/%2f%2f", "/%252f", "/;//", "/;@", "//;@", "/\x00/", "/\x0b/"]
    slashes += ["http:", "http:/", "http://", "https:", "https:/", "https://", "HtTpS://", "//user@", "//user:pw@"]
    slashes += ["///user@", "http://wiki.example.com@", "http://wiki.example.com:80@", "//wiki.example.com@", "ftp://"]
    hosts = ["evil.com", "evil.com/x", "evil.com%2fx", "0x7f000001", "2130706433", "127.1", "[::1]", "evil%E3%80%82com"]
    hosts += ["evil.com#wiki.example.com", "evil.com?wiki.example.com", "wiki.example.com.evil.com", "evil。com"]
    hosts += ["evil.com:443", "evil.com/..", "evil.com/%2e%2e", "EVIL.COM", "evil.com.", "[::ffff:7f00:1]"]
    schemes = ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "data:text/html,x", "vbscript:x"]
    schemes += [
        "file:///etc/passwd",
        "blob:x",
        "\x01javascript:x",
        "mailto:x@y",
        "about:blank",
        "",
        " ",
        ".",
        "..",
        "?x",
    ]
    return ["".join(pair) for pair in itertools.product(slashes, hosts)] + schemes


CORPUS = _corpus()


def test_the_corpus_of_return_targets_is_large() -> None:
    assert len(set(CORPUS)) > 500


@pytest.mark.parametrize("text", CORPUS)
def test_t19_return_targets_never_lead_to_another_site(text: str) -> None:
    safe = safe_return_to(text)
    if safe is None:
        return
    joined = URL("https://wiki.example.com/-/callback/x").join(URL(safe, encoded=True))
    assert joined.host == "wiki.example.com"
    assert joined.scheme == "https"
    assert not safe.startswith(("//", "/\\"))
    assert not any(letter in safe for letter in "\\\t\r\n\x00 ")


@pytest.mark.parametrize("text", ["/", "/a/b?x=1&y=//evil.com", "/wiki/Caf%C3%A9", "/a;b=c?d"])
def test_paths_of_this_site_are_good_return_targets(text: str) -> None:
    assert safe_return_to(text) == text
