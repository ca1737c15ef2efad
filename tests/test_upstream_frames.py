"""Frame boundaries are found whatever the cut of the stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.upstream import Ending
from sidecar.upstream.frames import FrameTrack, close_frame


def frame(opcode: int, size: int, *, masked: bool) -> bytes:
    mask = 0x80 if masked else 0
    if size < 126:
        length = bytes((mask | size,))
    elif size < 1 << 16:
        length = bytes((mask | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((mask | 127,)) + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + length + (b"mask" if masked else b"") + b"\x88" * size


sizes = st.sampled_from([0, 1, 125, 126, 127, 128, 65535, 65536, 70_000])
frames = st.lists(st.builds(frame, st.sampled_from([0, 1, 2, 9, 10]), sizes, masked=st.booleans()), max_size=4)


@settings(deadline=None)
@given(frames, st.lists(st.integers(1, 90_000), min_size=1, max_size=8))
def test_boundaries_do_not_depend_on_the_cut(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    ends = {0}
    for part in parts:
        ends.add(max(ends) + len(part))
    track, position, turn = FrameTrack(), 0, 0
    while position < len(stream):
        step = cuts[turn % len(cuts)]
        turn += 1
        track.feed(stream[position : position + step])
        position = min(position + step, len(stream))
        assert track.is_at_boundary == (position in ends)
    assert not track.has_closed


def test_every_byte_of_a_header_may_come_alone() -> None:
    track = FrameTrack()
    for byte in frame(2, 65536, masked=True)[:14]:
        track.feed(bytes((byte,)))
        assert not track.is_at_boundary
    track.feed(b"x" * 65536)
    assert track.is_at_boundary


def test_a_close_frame_is_noticed() -> None:
    track = FrameTrack()
    track.feed(close_frame(1008, "session ended"))
    assert track.has_closed
    assert track.is_at_boundary


def test_a_close_frame_is_well_formed() -> None:
    assert close_frame(1008, "bye") == b"\x88\x05\x03\xf0bye"


def test_the_end_of_a_session_is_told_once_to_everybody_who_watches() -> None:
    ending, told = Ending(), []
    watchers = [lambda: told.append("a"), lambda: told.append("b"), lambda: told.append("c")]
    for watcher in watchers:
        ending.watch(watcher)
    ending.unwatch(watchers[1])
    ending.end()
    ending.end()
    assert sorted(told) == ["a", "c"]
    ending.watch(watchers[1])
    assert sorted(told) == ["a", "b", "c"]


def test_a_message_is_measured_with_all_its_fragments_and_without_what_stands_between() -> None:
    track = FrameTrack(10)
    parts = ((0x01, 6), (0x89, 100), (0x80, 4), (0x82, 10))
    for first, size in parts:
        track.feed(bytes((first, size)) + bytes(size))
    assert not track.is_too_large
    track.feed(bytes((0x01, 6)) + bytes(6))
    track.feed(bytes((0x80, 5)))
    assert track.is_too_large


@pytest.mark.parametrize(
    "frames",
    [
        [b"\x89\x7e\x00\x7e"],
        [b"\x88\x7f" + (1 << 40).to_bytes(8, "big")],
        [b"\x01\x06" + bytes(6), b"\x01\x05"],
        [b"\x02\x06" + bytes(6), b"\x03\x00", b"\x00\x05"],
    ],
    ids=["ping", "close", "a second beginning", "an opcode of nobody"],
)
def test_what_no_message_may_consist_of_is_measured_too(frames: list[bytes]) -> None:
    track, unbounded = FrameTrack(10), FrameTrack()
    for frame in frames:
        assert not track.is_too_large
        track.feed(frame)
        unbounded.feed(frame)
    assert track.is_too_large
    assert not unbounded.is_too_large
