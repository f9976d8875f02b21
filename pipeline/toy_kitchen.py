"""A small egocentric-looking data set, rendered: H.264 videos, EPIC's CSV files, boxes per frame.

The folder holds what a copy of EPIC-KITCHENS-55 holds, in its form and file names, so that it is
read by the same code: validation participants are P26–P31, frame numbers count at 60 per second,
and `boxes.csv` is what a detector trained on the nouns would give. What is shown, and why it is
hard, is told in `pipeline.toy_scene` and `pipeline.toy_sprites`.

The same arguments give the same bytes. Every video follows from its own seed, so videos are
rendered by several processes, and a run that was cut short goes on where it stopped.
"""

import csv
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.toy_plan import RATE_FPS, TRAIN_PARTICIPANTS, VAL_PARTICIPANTS, ToyVideo, plan_videos
from pipeline.toy_scene import FRAME_SIZE_PX, NOUNS, VERBS, Scene
from pipeline.toy_view import Painter, sight_jars

__all__ = ["ToyKitchen", "render_toy_kitchen"]

VERSION = 1  # raise it when the same arguments no longer give the same data set
MIN_VISIBLE_SHARE = 0.4  # of a jar; a detector would miss what is less in view

# Macroblock trees and several threads make x264's output differ from run to run.
_ENCODER = {
    "preset": "veryfast",
    "crf": "23",
    "g": "48",
    "threads": "1",
    "x264-params": "mbtree=0",
}

_LABEL_COLUMNS = [
    "uid",
    "participant_id",
    "video_id",
    "narration",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
    "verb",
    "verb_class",
    "noun",
    "noun_class",
    "all_nouns",
    "all_noun_classes",
]
_BOX_COLUMNS = ["video_id", "time_seconds", "x0", "y0", "x1", "y1", "score", "noun_class"]


@dataclass(frozen=True, slots=True)
class ToyKitchen:
    """A rendered data set; EPIC's CSV files lie in `folder` itself."""

    folder: Path

    def video(self, video_id: str) -> Path:
        """A video's file, at `{participant_id}/{video_id}.MP4` as in EPIC's own folders."""
        return self.folder / video_id.split("_")[0] / f"{video_id}.MP4"

    @property
    def boxes(self) -> Path:
        """CSV of the jars to be seen at every frame's time: native px, xyxy; score = the share
        of the jar that is neither out of the frame nor behind the arm."""
        return self.folder / "boxes.csv"


def render_toy_kitchen(
    folder: Path,
    *,
    seed: int = 0,
    num_train_segments: int = 500,
    num_val_segments: int = 150,
    segments_per_video: int = 5,
    num_workers: int = 2,
) -> ToyKitchen:
    """Render the data set into a folder, or whatever of it the folder does not hold yet.

    Args:
        folder: made if it is not there.
        seed: of everything random.
        num_train_segments: actions of participants P01–P25, verbs and nouns balanced.
        num_val_segments: actions of participants P26–P31, likewise.
        segments_per_video: actions one after another in a video.
        num_workers: processes to render with; 1 = this one alone. No influence on the result.

    Returns:
        The paths.

    Raises:
        ValueError: on a count that cannot be, or if the folder holds something else already.
    """
    counts = {
        "num_train_segments": num_train_segments,
        "num_val_segments": num_val_segments,
        "segments_per_video": segments_per_video,
    }
    for name, count in {**counts, "num_workers": num_workers}.items():
        if count < 1:
            raise ValueError(f"got {name}={count}, expected 1 or more")
    kitchen = ToyKitchen(folder)
    _claim(folder, {"kind": "toy_kitchen", "version": VERSION, "seed": seed, **counts})

    train = plan_videos(num_train_segments, segments_per_video, TRAIN_PARTICIPANTS, seed)
    val = plan_videos(num_val_segments, segments_per_video, VAL_PARTICIPANTS, seed)
    videos = sorted(train + val, key=lambda video: video.video_id)
    _render_missing(kitchen, videos, num_workers)
    _write_csvs(kitchen, videos)
    return kitchen


def _claim(folder: Path, settings: dict[str, str | int]) -> None:
    """Write down what is rendered here; refuse a folder that holds anything else."""
    marker = folder / "toy_kitchen.json"
    if marker.exists():
        found = json.loads(marker.read_text())
        if found != settings:
            raise ValueError(
                f"{folder} holds a toy kitchen with {found}, expected {settings}; "
                "choose another folder or delete this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(path != _partial(marker) for path in folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and holds no toy_kitchen.json; choose another folder"
        )
    _write(marker, json.dumps(settings, indent=2) + "\n")


def _render_missing(kitchen: ToyKitchen, videos: Sequence[ToyVideo], num_workers: int) -> None:
    jobs = []
    for video in videos:
        path = kitchen.video(video.video_id)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            jobs.append((path, video.scene, video.num_frames))
    if num_workers == 1 or len(jobs) < 2:
        for job in jobs:
            _render_video(*job)
        return
    # Spawned, not forked: the caller may well have threads.
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches the whole group: workers leave it to the parent, which gives up what waits.
    pool = ProcessPoolExecutor(
        min(num_workers, len(jobs)), mp_context=context, initializer=_ignore_interrupts
    )
    try:
        for done in [pool.submit(_render_video, *job) for job in jobs]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render_video(path: Path, scene: Scene, num_frames: int) -> None:
    import av

    painter = Painter(scene)
    partial = _partial(path)
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE_FPS, options=_ENCODER)
        stream.width, stream.height = FRAME_SIZE_PX
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(painter.draw(index / RATE_FPS), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE_FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    os.replace(partial, path)


def _write_csvs(kitchen: ToyKitchen, videos: Sequence[ToyVideo]) -> None:
    size = "x".join(str(value) for value in FRAME_SIZE_PX)
    info = [(v.video_id, size, f"{v.num_frames / RATE_FPS:.6f}", float(RATE_FPS)) for v in videos]
    folder = kitchen.folder
    _write_csv(folder / "EPIC_train_action_labels.csv", _LABEL_COLUMNS, _label_rows(videos))
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        rows = [(index, name, [name]) for index, name in enumerate(names)]
        _write_csv(
            folder / f"EPIC_{kind}_classes.csv", [f"{kind}_id", "class_key", kind + "s"], rows
        )
    _write_csv(folder / "EPIC_video_info.csv", ["video", "resolution", "duration", "fps"], info)
    _write_csv(kitchen.boxes, _BOX_COLUMNS, (row for video in videos for row in _box_rows(video)))


def _label_rows(videos: Iterable[ToyVideo]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for video in videos:
        for (verb, noun), times in zip(video.labels, video.times_centiseconds, strict=True):
            frames = [max(1, time * 60 // 100) for time in times]
            narration = f"{VERBS[verb]} {NOUNS[noun]}"
            head = (len(rows), video.participant_id, video.video_id, narration)
            names = (VERBS[verb], verb, NOUNS[noun], noun, [NOUNS[noun]], [noun])
            rows.append((*head, *(_timestamp(time) for time in times), *frames, *names))
    return rows


def _timestamp(centiseconds: int) -> str:
    minutes, rest = divmod(centiseconds, 6000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 100:02d}.{rest % 100:02d}"


def _box_rows(video: ToyVideo) -> Iterable[tuple[object, ...]]:
    """A row for each jar that is to be seen, frame by frame."""
    times = np.arange(video.num_frames) / RATE_FPS
    sightings = sight_jars(video.scene, times)
    for index, time in enumerate(times):
        for jar in sightings:
            share = jar.visible_share[index]
            if share >= MIN_VISIBLE_SHARE:
                box = (f"{value:.1f}" for value in jar.boxes_xyxy_px[index])
                yield (video.video_id, f"{time:.6f}", *box, f"{share:.3f}", jar.noun_class)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    if path.exists():
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    partial = _partial(path)
    partial.write_text(text)
    os.replace(partial, path)


def _partial(path: Path) -> Path:
    """Where a file grows until it is whole; left over from a crash, it is written anew."""
    return path.with_name(f".{path.name}.partial")
