"""Read the line or the block in which a load balancer announces whose connection it passes on (PROXY protocol)."""

from __future__ import annotations

import ipaddress
import struct

Announced = tuple[str, int]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
# Version 1: no valid line is longer. Version 2: addresses, and what little is usually appended to them.
LONGEST_LINE = 107
LONGEST_BLOCK = 2048
SHORTEST = 12
_HEAD = struct.Struct("!12sBBH")
HEAD_SIZE = _HEAD.size
_WORDS = {4: b"TCP4", 6: b"TCP6"}
_LARGEST_PORT = 65535
_LOCAL, _PROXY = 0x20, 0x21
# Of each family over TCP: how many bytes an address has. What is neither, such as a Unix socket, announces nobody.
_ADDRESS_SIZES = {0x11: 4, 0x21: 16}
_NOBODY = frozenset([0x00, 0x31])


def read_line(line: bytes) -> Announced | None:
    """Read version 1 without its CR LF; None when it announces nobody. Raises ValueError."""
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return None
    words = line.split(b" ")
    if len(words) != 6 or words[0] != b"PROXY":
        raise ValueError(line)
    source, target = (ipaddress.ip_address(word.decode("ascii")) for word in words[2:4])
    if not _WORDS[source.version] == _WORDS[target.version] == words[1]:
        raise ValueError(line)
    ports = [_port(word) for word in words[4:]]
    return str(source), ports[0]


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or int(word) > _LARGEST_PORT:
        raise ValueError(word)
    return int(word)


def rest_of_block(head: bytes) -> int:
    """How many bytes follow the head of version 2. Raises ValueError when it is none, or they are too many."""
    signature, command, _, size = _HEAD.unpack(head)
    if signature != SIGNATURE or command not in (_LOCAL, _PROXY) or size > LONGEST_BLOCK:
        raise ValueError(head)
    return int(size)


def read_block(head: bytes, rest: bytes) -> Announced | None:
    """Read version 2; None when it announces nobody. Raises ValueError."""
    _, command, family, _ = _HEAD.unpack(head)
    if command == _LOCAL or family in _NOBODY:
        return None
    size = _ADDRESS_SIZES.get(family)
    if size is None or len(rest) < 2 * size + 4:
        raise ValueError(head)
    source = ipaddress.ip_address(rest[:size])
    return str(source), int.from_bytes(rest[2 * size : 2 * size + 2], "big")
