"""Where the time of a stage goes, so that a user sees what to mend."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

__all__ = ["Timings"]


@dataclass
class Timings:
    """Seconds of one stage, added up over all threads and processes.

    Attributes:
        decode_seconds: decoding frames; a frame that several stages want is shared out evenly.
        transform_seconds: resizing and cropping them.
        forward_seconds: the network, copies to and from the device and computed flow included.
        write_seconds: writing shards.
        waiting_seconds: the network's process had nothing to do and waited for decoded rows.
    """

    decode_seconds: float = 0.0
    transform_seconds: float = 0.0
    forward_seconds: float = 0.0
    write_seconds: float = 0.0
    waiting_seconds: float = 0.0

    def __iadd__(self, other: Timings) -> Timings:
        for field in fields(self):
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)
        return self

    @property
    def own_seconds(self) -> float:
        """All but waiting: what the stage itself cost."""
        return sum(self.as_dict().values()) - self.waiting_seconds

    def as_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)
