"""Tables 11 and 12 of the paper as data: mean AP or mean class recall, in per cent."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.paper.features.tasks import ACTION2012, CALTECH101, CALTECH256, VOC2007, VOC2012


@dataclass(frozen=True)
class PaperRow:
    """A method's result; `std` is that of three random splits, `extended` a larger ILSVRC."""

    method: str
    value: float
    std: float | None = None
    extended: bool = False

    def text(self) -> str:
        """The value as the paper prints it."""
        spread = "" if self.std is None else f" ± {self.std:.1f}"
        return f"{self.value:.1f}{spread}{'*' if self.extended else ''}"


_D, _E, _BOTH = "VGG Net-D (16 layers)", "VGG Net-E (19 layers)", "VGG Net-D & Net-E"
_ZEILER, _CHATFIELD = "Zeiler & Fergus (2013)", "Chatfield et al. (2014)"
_HE, _WEI = "He et al. (2014)", "Wei et al. (2014)"

NOTE = "* with nets trained on more than ILSVRC's 1000 classes"
TABLE = {VOC2007: 11, VOC2012: 11, CALTECH101: 11, CALTECH256: 11, ACTION2012: 12}
ROWS: dict[str, tuple[PaperRow, ...]] = {
    VOC2007: (
        PaperRow(_CHATFIELD, 82.4),
        PaperRow(_HE, 82.4),
        PaperRow(_WEI, 81.5),
        PaperRow(_WEI, 85.2, extended=True),
        PaperRow(_D, 89.3),
        PaperRow(_E, 89.3),
        PaperRow(_BOTH, 89.7),
    ),
    VOC2012: (
        PaperRow(_ZEILER, 79.0),
        PaperRow(_CHATFIELD, 83.2),
        PaperRow(_WEI, 81.7),
        PaperRow(_WEI, 90.3, extended=True),
        PaperRow(_D, 89.0),
        PaperRow(_E, 89.0),
        PaperRow(_BOTH, 89.3),
    ),
    CALTECH101: (
        PaperRow(_ZEILER, 86.5, 0.5),
        PaperRow(_CHATFIELD, 88.4, 0.6),
        PaperRow(_HE, 93.4, 0.5),
        PaperRow(_D, 91.8, 1.0),
        PaperRow(_E, 92.3, 0.5),
        PaperRow(_BOTH, 92.7, 0.5),
    ),
    CALTECH256: (
        PaperRow(_ZEILER, 74.2, 0.3),
        PaperRow(_CHATFIELD, 77.6, 0.1),
        PaperRow(_D, 85.0, 0.2),
        PaperRow(_E, 85.1, 0.3),
        PaperRow(_BOTH, 86.2, 0.3),
    ),
    ACTION2012: (
        PaperRow("Oquab et al. (2014)", 70.2, extended=True),
        PaperRow("Gkioxari et al. (2014)", 73.6),
        PaperRow("Hoai (2014)", 76.3),
        PaperRow("VGG Net-D & Net-E, image-only", 79.2),
        PaperRow("VGG Net-D & Net-E, image and bounding box", 84.0),
    ),
}
"""By task; all on the test sets, those of 2012 by VOC's own server."""


def paper_rows(task: str) -> tuple[PaperRow, ...]:
    """The paper's figures for a task; none for a task that is not the paper's."""
    return ROWS.get(task, ())
