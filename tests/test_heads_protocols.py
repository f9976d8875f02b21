"""Protocols: what official evaluations need to know."""

from __future__ import annotations

import pytest

from heads.protocols import PROTOCOLS, Protocol


def test_without_an_official_evaluation_nothing_is_listed() -> None:
    assert Protocol() == Protocol("plain", (), (), (), (), (), None)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_official_evaluation_has_a_name(name: str) -> None:
    assert Protocol(name).name == name


def test_another_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"got protocol 'epic-55', .*'epic55', 'epic100', 'egtea'"):
        Protocol("epic-55")


def test_protocols_of_equal_lists_are_equal_and_can_be_set_members() -> None:
    one, two = (Protocol("egtea", actions=((0, 0), (0, 1))) for _ in range(2))
    assert len({one, two}) == 1
