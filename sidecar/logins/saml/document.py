"""Turn what came through the browser into one parsed tree, or refuse it before it costs anything.

One parser for all: lxml, UTF-8 only, without DTD, entities, comments, CDATA, processing instructions and network. Every
bound is checked before the work that it bounds.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator

from lxml import etree

from sidecar.faults import Refused
from sidecar.reason import Reason

# White space of XML (1.0, section 2.3) and no other: "ada" and "ada" with a no-break space are two people's names.
BLANKS = " \t\r\n"
_BREAKS = str.maketrans("", "", "\r\n")
_DECLARATION = re.compile(
    rb"""\A<\?xml\s+version=(["'])1\.0\1(\s+encoding=(["'])utf-8\3)?(\s+standalone=(["'])(yes|no)\5)?\s*\?>""",
    re.IGNORECASE,
)
_MOST_TAGS = 8000
_MOST_NAMESPACES = 400
_MOST_NODES = 4000
_MOST_ATTRIBUTES = 24
_DEEPEST = 24


def decode(text: str, limit: int) -> bytes:
    """Bytes of base64 *text*, at most *limit* of them; only line breaks may stand in between."""
    if len(text) > limit * 3 // 2 + 64:
        raise Refused(Reason.BODY_TOO_LARGE, 413, f"longer than {limit} bytes")
    plain = text.translate(_BREAKS)
    try:
        raw = base64.b64decode(plain, validate=True)
    except ValueError:
        raise _invalid("not base64") from None
    if base64.b64encode(raw).decode() != plain:
        raise _invalid("not base64 in its one spelling")
    if len(raw) > limit:
        raise Refused(Reason.BODY_TOO_LARGE, 413, f"longer than {limit} bytes")
    return raw


def inflate(raw: bytes, limit: int) -> bytes:
    """Unpack DEFLATE (SAML 2.0 Bindings, section 3.4.4.1) to at most *limit* bytes."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(raw, limit + 1)
    except zlib.error:
        raise _invalid("not DEFLATE") from None
    if len(unpacked) > limit:
        raise Refused(Reason.BODY_TOO_LARGE, 413, f"longer than {limit} bytes when unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise _invalid("DEFLATE that is cut, or goes on behind its end")
    return unpacked


def parse(raw: bytes) -> etree._Element:
    """Root of the one tree that everything is judged by. Raises Refused(LOGIN_ANSWER_INVALID)."""
    _check_bytes(raw)
    try:
        root = etree.fromstring(raw, _parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        # The message may quote what was sent.
        raise _invalid(f"no well-formed XML: {type(error).__name__}") from None
    if root.getroottree().docinfo.doctype:
        raise _invalid("a document type")
    _check_tree(root)
    return root


def everything(root: etree._Element) -> Iterator[etree._Element]:
    """All elements of a tree, in their order."""
    yield from root.iter(etree.Element)


def text_of(element: etree._Element) -> str:
    """All text of *element*, without the blanks around it; ``.text`` alone ends at the first node inside."""
    return "".join(element.itertext()).strip(BLANKS)


def _parser() -> etree.XMLParser:
    # A parser of its own for each document: they are parsed in several threads.
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        remove_comments=False,
        remove_pis=False,
        strip_cdata=False,
        collect_ids=False,
    )


def _check_bytes(raw: bytes) -> None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid("not UTF-8") from None
    # Outside CDATA, which is refused here too, "<" begins markup and nothing else.
    body = _DECLARATION.sub(b"", raw, count=1)
    if b"<!" in body or b"<?" in body:
        raise _invalid("a document type, comment, CDATA or processing instruction")
    if body.count(b"<") > _MOST_TAGS or body.count(b"xmlns") > _MOST_NAMESPACES:
        raise _invalid("too many elements or namespaces")


def _check_tree(root: etree._Element) -> None:
    nodes = 0
    level: list[etree._Element] = [root]
    for _ in range(_DEEPEST):
        nodes += len(level)
        if nodes > _MOST_NODES:
            raise _invalid("too many elements")
        for element in level:
            if not isinstance(element.tag, str) or len(element.attrib) > _MOST_ATTRIBUTES:
                raise _invalid("a node that is no element, or one with too many attributes")
        level = [child for element in level for child in element]
        if not level:
            return
    raise _invalid("nested too deeply")


def _invalid(detail: str) -> Refused:
    return Refused(Reason.LOGIN_ANSWER_INVALID, 400, f"SAML: {detail}")
