"""Sections of the data: which segments, and where their videos are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config_base import Count, Natural, Positive, Section

__all__ = [
    "PATTERN_FIELDS",
    "CsvData",
    "DataConfig",
    "EgteaData",
    "Epic55Data",
    "Epic100Data",
    "FlowVideosConfig",
    "OnlyConfig",
    "PlaceConfig",
    "ToyKitchenData",
    "VideosConfig",
]


def _as_text(value: Any) -> Any:
    """EPIC's segment ids are numbers; nobody should have to quote them."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[str, BeforeValidator(_as_text)]


# Of a segment; a pattern may name them.
PATTERN_FIELDS = ("video_id", "participant_id", "session_id")


class PlaceConfig(Section):
    """``root / pattern``, the pattern with fields of the segment."""

    root: Path
    pattern: Annotated[str, Field(min_length=1)] = "{video_id}"

    @field_validator("pattern")
    @classmethod
    def _known_fields(cls, pattern: str) -> str:
        try:
            pattern.format(**dict.fromkeys(PATTERN_FIELDS, "x"))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                "expected a pattern with the fields {video_id}, {participant_id} and {session_id} "
                "only"
            ) from error
        if Path(pattern).is_absolute():
            raise ValueError("expected a pattern relative to root")
        if "{video_id}" not in pattern:
            raise ValueError("expected a pattern that contains {video_id}")
        return pattern


class FlowVideosConfig(PlaceConfig):
    """Official flow: a folder or a tar a video, with one frame to ``stride`` RGB frames.

    ``frame_rate_fps`` is that of the RGB frames. The word ``epic`` stands for EPIC's rules: 60 and
    2, or 50 and 1 for videos with a three-digit number (P01_101).
    """

    frame_rate_fps: Literal["epic"] | Positive = "epic"
    stride: Literal["epic"] | Count = "epic"


class VideosConfig(PlaceConfig):
    """Where the videos are.

    ``kind: frames`` means folders of numbered images at ``frame_rate_fps``, ``kind: tar`` tar files
    of them; the word ``epic`` stands for EPIC's rule: 60, or 50 for videos with a three-digit
    number (P01_101).
    """

    pattern: Annotated[str, Field(min_length=1)] = "{video_id}.mp4"
    kind: Literal["file", "frames", "tar"] = "file"
    frame_rate_fps: Literal["epic"] | Positive | None = None
    reader: Literal["pyav", "decord"] = "pyav"
    truncated: Literal["refuse", "clamp"] = "refuse"

    @model_validator(mode="after")
    def _frames_have_a_rate(self) -> VideosConfig:
        if (self.kind == "file") != (self.frame_rate_fps is None):
            raise ValueError(
                "frame_rate_fps goes with kind: frames and kind: tar (a number, or the word epic) "
                "and with nothing else; video files carry their own rate"
            )
        return self


class OnlyConfig(Section):
    """Keep these videos or segments only; empty keeps all."""

    video_ids: tuple[Id, ...] = ()
    segment_ids: tuple[Id, ...] = ()


class _LabelledData(Section):
    annotations: Path
    videos: VideosConfig
    flow: FlowVideosConfig | None = None
    only: OnlyConfig = OnlyConfig()


class _EpicData(_LabelledData):
    """``splits``: which are loaded. ``train_on: all`` puts the rows of ``val`` into ``train``."""

    splits: tuple[str, ...] = ("train", "val")
    train_on: Literal["split", "all"] = "split"

    @model_validator(mode="after")
    def _splits_fit(self) -> Self:
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"got splits {list(self.splits)}, expected each name once")
        if self.train_on == "all" and not {"train", "val"} <= {*self.splits}:
            raise ValueError(
                f"got train_on all with splits {list(self.splits)}, expected train and val among "
                "them: the rows of both are trained on"
            )
        return self


class Epic55Data(_EpicData):
    """EPIC-KITCHENS-55: ``annotations`` is the folder with the official label files."""

    kind: Literal["epic55"]
    splits: Annotated[
        tuple[Literal["train", "val", "test_s1", "test_s2"], ...], Field(min_length=1)
    ] = ("train", "val")


class Epic100Data(_EpicData):
    """EPIC-KITCHENS-100: ``annotations`` is the folder with the official label files."""

    kind: Literal["epic100"]
    splits: Annotated[tuple[Literal["train", "val", "test"], ...], Field(min_length=1)] = (
        "train",
        "val",
    )


class EgteaData(_LabelledData):
    """EGTEA Gaze+: ``annotations`` is the folder with the official action annotations.

    ``split``: which of the three; its test part is ``val``. ``clips``: whether the videos are whole
    sessions, or the official trimmed clips.
    """

    kind: Literal["egtea"]
    split: Literal[1, 2, 3] = 1
    clips: Literal["full", "trimmed"] = "full"


class CsvData(_LabelledData):
    """Any data set as one CSV file; classes are counts or lists of names."""

    kind: Literal["csv"]
    verbs: Count | Annotated[tuple[str, ...], Field(min_length=1)]
    nouns: Count | Annotated[tuple[str, ...], Field(min_length=1)]


class ToyKitchenData(Section):
    """The rendered demonstration data set; made in ``folder`` when it is not there yet."""

    kind: Literal["toy_kitchen"]
    folder: Path
    seed: Natural = 0
    train_segments: Count = 500
    val_segments: Count = 150


DataConfig = Annotated[
    Epic55Data | Epic100Data | EgteaData | CsvData | ToyKitchenData, Field(discriminator="kind")
]
