"""What the console is made of: audit lines read backward, plots, people by key, and forms that prove their origin."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path

import pytest

from sidecar.console.history import REQUESTS, History, level_of, plot_of
from sidecar.console.operators import Level
from sidecar.console.page import span
from sidecar.console.seal import Seal
from sidecar.console.views.house import place_of as place_of_part
from sidecar.console.views.people import parts_of
from sidecar.console.views.trail import shown
from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.model import Identity, identity_key
from sidecar.reason import Reason
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.trail import look_back, place_of

TEMPLATES = Path(__file__).parents[1] / "sidecar" / "console" / "templates"


def written(file: Path, numbers: range, size: int = 0) -> None:
    lines = [
        json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime(n)), "event": "e", "k": n})
        for n in numbers
    ]
    file.write_text("".join(f"{line[:-1]}, {json.dumps('pad')}: {json.dumps('x' * size)}}}\n" for line in lines))


def test_lines_are_found_the_newest_first_through_rotations_and_page_by_page(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    written(file.with_name("audit.jsonl.1"), range(1000, 1300), 500)
    written(file, range(1300, 1400), 500)
    with gzip.open(tmp_path / "audit.jsonl.2.gz", "wb") as packed:
        packed.write(b"{}\n")
    found, place, pages = [], None, 0
    while True:
        looked = look_back(file, lambda line: line["k"] % 2 == 0, most=40, begin=place)
        found += [line["k"] for line in looked.lines]
        pages += 1
        if looked.further is None:
            break
        place = place_of(str(looked.further))
    assert found == list(range(1398, 999, -2))
    assert pages == 6
    assert looked.has_packed


def test_no_look_reads_more_than_its_budget(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    written(file, range(1000, 3000), 500)
    looked = look_back(file, lambda _: False, budget=100_000)
    assert looked.lines == ()
    assert looked.further is not None
    assert looked.further.offset > file.stat().st_size - 110_000


@pytest.mark.parametrize("until", [999, 1000, 1500, 1777, 2999, 5000])
def test_a_look_begins_where_its_time_ends(tmp_path: Path, until: int) -> None:
    file = tmp_path / "audit.jsonl"
    written(file, range(1000, 3000), 500)
    looked = look_back(file, lambda _: True, most=1, until=until, budget=200_000)
    assert [line["k"] for line in looked.lines] == ([min(until, 2999)] if until >= 1000 else [])
    assert [line["k"] for line in look_back(file, lambda _: True, most=9, since=2998).lines] == [2999, 2998]


def test_blocks_without_what_is_looked_for_cost_their_size_and_lose_no_line(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    written(file, range(1000, 3000), 500)
    wanted = "1234"
    found, place = [], None
    while True:
        looked = look_back(file, lambda _: True, needles=[f'"k": {wanted}'], most=1, begin=place, budget=200_000)
        found += [line["k"] for line in looked.lines]
        if looked.further is None:
            break
        assert place is None or looked.further.offset < place.offset
        place = looked.further
    assert found == [1234]


def test_lines_that_are_none_and_needles_that_miss_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text('{"time":"x","k":1}\nnot json\n[1]\n\n{"k":2,"who":"ada"}')
    assert [line["k"] for line in look_back(file, lambda _: True).lines] == [2, 1]
    assert [line["k"] for line in look_back(file, lambda _: True, needles=["ada"]).lines] == [2]
    assert place_of("x-1") is place_of("1") is place_of("") is place_of("1-" + "9" * 30) is None


def test_a_line_says_at_first_glance_what_it_is_about_and_the_rest_unfolds() -> None:
    ended = {"time": "2026-11-26T16:31:28.123+00:00", "event": "sync-ended", "result": "done", "source": "sync:hr"}
    line = shown({**ended, "counts": {"added": 3}, "chain": "0" * 16, "n": 7, "hash": "f" * 64})
    assert line.time == "2026-11-26 16:31:28"
    assert line.glance == (("event", "sync-ended"), ("result", "done"), ("source", "sync:hr"))
    assert dict(line.rest) == {"counts": '{"added": 3}'}


def test_a_plot_shows_what_was_added_in_each_minute() -> None:
    metrics = Metrics()
    history = History(metrics, lambda: 0.0)
    history.take()
    for answered, refused in ((10, 0), (0, 0), (30, 10)):
        metrics.requests.labels("answered", "2xx").inc(answered)
        metrics.requests.labels("refused", "csrf").inc(refused)
        history.take()
    assert list(history.counted(REQUESTS[0])) == [10, 0, 30]
    plot = plot_of("Requests", history, REQUESTS)
    assert plot.top == 40
    assert plot.sums == (("let through", "good", 40), ("refused", "bad", 10), ("unavailable", "worse", 0))
    assert [(bar.x, bar.y, bar.height, bar.tone) for bar in plot.bars] == [
        (179, 10, 30, "good"),
        (179, 0, 10, "bad"),
        (177, 30, 10, "good"),
    ]
    assert plot_of("", History(metrics, lambda: 0.0), REQUESTS).bars == ()


async def test_sessions_are_sampled_with_the_counters_and_a_store_that_refuses_is_left_alone() -> None:
    answers: list[int | None] = [5, 7, None, 9]
    asked = 0

    async def how_many() -> int:
        nonlocal asked
        asked += 1
        number = answers.pop(0)
        if number is None:
            raise Unavailable(Reason.STORE_DOWN)
        return number

    history = History(Metrics(), lambda: 0.0, how_many)
    for _ in range(3):
        history.sessions.append(await history._count_sessions())
    assert list(history.sessions) == [5, 7, None]
    for _ in range(30):
        assert await history._count_sessions() is None
    assert asked == 3
    assert await history._count_sessions() == 9
    for number in range(500):
        history.sessions.append(number)
    assert len(history.sessions) == 181


def test_a_level_is_drawn_from_nought_with_gaps_where_nothing_is_known() -> None:
    level = level_of("Sessions", [4, 8, None, 2])
    assert level is not None
    assert (level.now, level.least, level.top) == (2, 2, 8)
    # Four minutes end at the right; one that stands alone is as wide as a minute.
    assert level.edges == ("177,20.5 178,1", "179,30.25 180,30.25")
    assert level.areas[0] == "177,40 177,20.5 178,1 178,40"
    assert level_of("Sessions", [None, None]) is None
    nobody = level_of("Sessions", [0, 0])
    assert nobody is not None
    assert (nobody.edges, nobody.top) == (("179,40 180,40",), 0)
    whole = level_of("Sessions", [1] * 181)
    assert whole is not None
    assert whole.edges[0].startswith("0,")


def test_a_seal_is_good_for_one_session_while_its_secret_is_known() -> None:
    origin, here = "https://c.example", {"Sec-Fetch-Site": "same-origin"}
    old, new = Seal([b"old"], origin), Seal([b"new", b"old"], origin)
    new.refuse_foreign(here, "t", {"seal": old.of("t")})
    new.refuse_foreign(here, "t", {"seal": new.of("t")})
    for seal, token, form in ((new, "u", old.of("t")), (old, "t", new.of("t")), (new, "t", "")):
        with pytest.raises(Refused):
            seal.refuse_foreign(here, token, {"seal": form})
    with pytest.raises(Refused):
        new.refuse_foreign({}, "t", {"seal": new.of("t")})


def test_the_names_of_levels_are_those_of_the_configuration() -> None:
    assert [level.word for level in Level] == ["none", "view", "operate", "administer"]


def test_an_identity_s_key_comes_apart_as_it_was_put_together() -> None:
    key = identity_key("https://i/1:2", "a:b")
    assert parts_of(key) == (key, "https://i/1:2", "a:b")


def test_spans_are_written_in_their_largest_unit() -> None:
    assert [span(seconds) for seconds in (0, 5, 65, 7300, 200000)] == ["0 s", "5 s", "1 min", "2 h", "2 d"]


async def test_people_come_page_by_page_whatever_their_names_are(database_url: str) -> None:
    directory = await Directory.open(database_url, "app")
    try:
        names = [f"same{n % 3}" for n in range(10)] + ["%", "_x", "Ünal", "A", "b"]
        for number, name in enumerate(names):
            await directory.admit(Identity("corp", "i", f"s{number}", name, f"{number}@example.com"), 1.0)
        seen: list[str] = []
        after = None
        while page := await directory.browsing.people("", after, 4):
            seen += [person.id for person in page]
            after = (page[-1].username, page[-1].id)
        assert len(seen) == len(set(seen)) == len(names)
        assert [one.username for one in await directory.browsing.people("%", None, 9)] == ["%"]
        assert [one.username for one in await directory.browsing.people("SAME1", None, 9)] == ["same1"] * 3
        assert [one.username for one in await directory.browsing.people("12@", None, 9)] == ["Ünal"]
        assert await directory.browsing.count("due", 5) == 0
    finally:
        await directory.close()


@pytest.mark.parametrize(
    ("part", "page"),
    [
        ("outbox", "/owed"),
        ("drift", "/drift"),
        ("sync.h/r", "/sync/h%2Fr"),
        ("configuration", "/configuration"),
        ("break_glass", "/audit?event=break-glass-used"),
        ("provider.corp", "/health"),
        ("metadata.corp", "/health"),
    ],
)
def test_what_needs_attention_has_a_page(part: str, page: str) -> None:
    assert place_of_part(part) == page


def test_a_column_of_times_says_that_they_are_utc_also_where_its_head_is_not_shown() -> None:
    columns = [
        found
        for template in TEMPLATES.glob("*.html")
        for found in re.findall(r'data-label="([^"]+)" class="when"', template.read_text())
    ]
    assert len(columns) > 10
    assert [one for one in columns if not one.endswith(" (UTC)")] == []
