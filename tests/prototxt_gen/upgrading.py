"""What the tests of the upgrades share: a net upgraded and compared, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.text import parse, to_text
from prototxt_gen.upgrade import needs_upgrade, upgrade_net


def upgraded(text: str) -> Any:
    """The net in a text, upgraded; a second upgrade must find nothing to do."""
    net = parse(text, proto.NetParameter)
    upgrade_net(net, "n")
    assert not needs_upgrade(net)
    assert upgrade_net(net, "n") == []
    return net


def check(old: str, new: str) -> None:
    assert to_text(upgraded(old)) == to_text(parse(new, proto.NetParameter))


def refused(text: str, complaint: str) -> None:
    with pytest.raises(ProtoError, match=complaint):
        upgrade_net(parse(text, proto.NetParameter), "n")
