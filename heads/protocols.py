"""What a data set's official evaluation asks for, beside scores and labels."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = ("epic55", "epic100", "egtea", "plain")


@dataclass(frozen=True)
class Protocol:
    """The official evaluation of one data set, and the lists of classes it needs.

    Raises:
        ValueError: if `name` is none of `PROTOCOLS`.
    """

    name: str = "plain"
    """`epic55`, `epic100`, `egtea`, or `plain` for a data set without an official evaluation."""
    many_shot_verbs: tuple[int, ...] = ()
    """EPIC-55: verb classes of more than 100 training segments."""
    many_shot_nouns: tuple[int, ...] = ()
    """EPIC-55: noun classes of more than 100 training segments."""
    tail_verbs: tuple[int, ...] = ()
    """EPIC-100: verb classes of the tail."""
    tail_nouns: tuple[int, ...] = ()
    """EPIC-100: noun classes of the tail."""
    unseen_participants: tuple[str, ...] = ()
    """EPIC-100: participants of the validation split who are in no training video."""
    actions: tuple[tuple[int, int], ...] | None = None
    """EGTEA: the (verb, noun) of each action class, in the order of the official ids; None where
    an action is any pair."""

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ValueError(f"got protocol '{self.name}', expected one of {list(PROTOCOLS)}")
