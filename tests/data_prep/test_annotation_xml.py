"""XML of annotations: what it has is read, and what it may not have is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.annotation_xml import parse_xml
from data_prep.boxes import Box, read_boxes
from prototxt_gen.errors import DataError

OBJECT = (
    "<object><name>n1</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    "</bndbox></object>"
)
WHOLE = f"<annotation>{OBJECT}</annotation>"
BOX = Box("n1", 1, 2, 3, 4)


def _boxes(content: str | bytes, folder: Path) -> list[Box]:
    path = folder / "image.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_boxes(path)


@pytest.mark.parametrize(
    "content",
    [
        WHOLE,
        f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- from a tool -->{WHOLE}\n',
        WHOLE.encode("utf-16"),
        b"\xef\xbb\xbf" + WHOLE.encode(),
        f'<?xml version="1.0" encoding="cp1252"?>{WHOLE}',
        WHOLE.replace("n1", "<![CDATA[n1]]>"),
        WHOLE.replace("n1", "&#110;1"),
        WHOLE.replace("<annotation>", '<annotation xmlns="http://example.org" a="&lt;">'),
        WHOLE.replace("n1", "  n1\n"),
    ],
)
def test_forms_of_one_annotation(content: str | bytes, tmp_path: Path) -> None:
    assert _boxes(content, tmp_path) == [BOX]


def test_text_around_elements_is_kept() -> None:
    root = parse_xml(b"<a>1<b>2</b>3</a>")
    assert (root.text, root[0].text, root[0].tail) == ("1", "2", "3")


def _laughs() -> str:
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    return f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]>{WHOLE.replace("n1", "&e9;")}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_laughs(), "a document type"),
        (f'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>{WHOLE}', "a document type"),
        (f'<!DOCTYPE a SYSTEM "http://example.org/a.dtd">{WHOLE}', "a document type"),
        (f'<!DOCTYPE a [<!ENTITY % p SYSTEM "p"> %p;]>{WHOLE}', "a document type"),
        (f'<?xml version="1.0" encoding="utf-7"?>{WHOLE}', "multi-byte encodings"),
        (f'<?xml version="1.0" encoding="gb18030"?>{WHOLE}', "multi-byte encodings"),
        (f'<?xml version="1.0" encoding="rot13"?>{WHOLE}', "not a text encoding"),
        (f'<?xml version="1.0" encoding="idna"?>{WHOLE}', "idna"),
        (f'<?xml version="1.0" encoding="none-such"?>{WHOLE}', "unknown encoding"),
        (b"\xff" + WHOLE.encode(), "not well-formed"),
        ("<a>" * 100_000, "more than 32 levels"),
        (WHOLE.replace("n1", "&none;"), "undefined entity"),
        (WHOLE[:-5], "no element|unclosed"),
        ("", "no element"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_refused(content: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"image\.xml: not XML \(.*({words})") as caught:
        _boxes(content, tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_file_of_any_size_or_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: larger than"):
        _boxes("<a>" + "x" * (5 << 20) + "</a>", tmp_path)
    with pytest.raises(DataError, match="/dev/zero: the boxes cannot be read: a device"):
        read_boxes("/dev/zero")
    with pytest.raises(DataError, match="no file can have this name"):
        read_boxes(f"{tmp_path}/a\0b.xml")


@pytest.mark.parametrize(
    "number",
    ["1e999", "nan", "-inf", "1" * 100_000, "x", "", "1e-999999999"],
    ids=lambda value: value[:8],
)
def test_corners_without_end(number: str, tmp_path: Path) -> None:
    content = WHOLE.replace("<xmin>1<", f"<xmin>{number}<")
    if number == "1e-999999999":
        assert _boxes(content, tmp_path)[0].xmin == 0
        return
    with pytest.raises(DataError, match="corners"):
        _boxes(content, tmp_path)
