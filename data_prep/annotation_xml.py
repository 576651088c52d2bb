"""Reading the XML of annotations: elements and text only.

A document type is refused, and with it all entities but the five of XML, so that none can expand or
refer to a file. So the parser of the standard library is sufficient.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_DEEPEST = 32
"""Levels of elements; annotations have four."""


def parse_xml(content: bytes) -> Element:
    """The root element of a document.

    Raises:
        ValueError: the content is not XML, has a document type, an unknown encoding or too many
            levels.
    """
    builder = TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"elements inside each other, more than {_DEEPEST} levels")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as cause:
        raise ValueError(str(cause)) from cause
    return builder.close()


def _refuse_document_type(*_: object) -> None:
    raise ValueError("a document type (<!DOCTYPE), which annotations do not have")
