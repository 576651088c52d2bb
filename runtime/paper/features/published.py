"""Tables 11 and 12 of the paper: mean AP or mean class recall on the test sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runtime.paper.features.tasks import ACTION2012, CALTECH101, CALTECH256, VOC2007, VOC2012
from runtime.paper.published import PaperRow


@dataclass(frozen=True)
class MethodRow(PaperRow):
    """The result of a method; `std` is that of three random splits.

    `extended` marks nets that were trained on more than ILSVRC's 1000 classes.
    """

    columns: ClassVar[tuple[str, ...]] = ("value", "std")

    method: str
    extended: bool = False


_D, _E, _BOTH = "VGG Net-D (16 layers)", "VGG Net-E (19 layers)", "VGG Net-D & Net-E"
_ZEILER, _CHATFIELD = "Zeiler & Fergus (2013)", "Chatfield et al. (2014)"
_HE, _WEI = "He et al. (2014)", "Wei et al. (2014)"

NOTE = "* with nets trained on more than ILSVRC's 1000 classes"
_ROWS: dict[str, tuple[MethodRow, ...]] = {
    VOC2007: (
        MethodRow(11, (82.4,), _CHATFIELD),
        MethodRow(11, (82.4,), _HE),
        MethodRow(11, (81.5,), _WEI),
        MethodRow(11, (85.2,), _WEI, extended=True),
        MethodRow(11, (89.3,), _D),
        MethodRow(11, (89.3,), _E),
        MethodRow(11, (89.7,), _BOTH),
    ),
    VOC2012: (
        MethodRow(11, (79.0,), _ZEILER),
        MethodRow(11, (83.2,), _CHATFIELD),
        MethodRow(11, (81.7,), _WEI),
        MethodRow(11, (90.3,), _WEI, extended=True),
        MethodRow(11, (89.0,), _D),
        MethodRow(11, (89.0,), _E),
        MethodRow(11, (89.3,), _BOTH),
    ),
    CALTECH101: (
        MethodRow(11, (86.5, 0.5), _ZEILER),
        MethodRow(11, (88.4, 0.6), _CHATFIELD),
        MethodRow(11, (93.4, 0.5), _HE),
        MethodRow(11, (91.8, 1.0), _D),
        MethodRow(11, (92.3, 0.5), _E),
        MethodRow(11, (92.7, 0.5), _BOTH),
    ),
    CALTECH256: (
        MethodRow(11, (74.2, 0.3), _ZEILER),
        MethodRow(11, (77.6, 0.1), _CHATFIELD),
        MethodRow(11, (85.0, 0.2), _D),
        MethodRow(11, (85.1, 0.3), _E),
        MethodRow(11, (86.2, 0.3), _BOTH),
    ),
    ACTION2012: (
        MethodRow(12, (70.2,), "Oquab et al. (2014)", extended=True),
        MethodRow(12, (73.6,), "Gkioxari et al. (2014)"),
        MethodRow(12, (76.3,), "Hoai (2014)"),
        MethodRow(12, (79.2,), "VGG Net-D & Net-E, image-only"),
        MethodRow(12, (84.0,), "VGG Net-D & Net-E, image and bounding box"),
    ),
}
"""By task. VOC's server measured the results on the test sets of 2012."""


def rows(task: str) -> tuple[MethodRow, ...]:
    """Return the rows of a task, in the paper's order; none for a task that is not in the paper."""
    return _ROWS.get(task, ())
