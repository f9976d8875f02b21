"""How fast features are extracted, against the limits of the same machine at the same time.

    python benchmarks/bench_extract.py            all figures, some ten minutes on two cores
    python benchmarks/bench_extract.py --quick    tiny networks and videos: shows that it works

End to end: `run_experiment` on a generated experiment with random weights makes every row of one
stage in a new store. What counts is the unit of work, from the videos to the last commit: opening
and probing them, decoding, resizing, the way between the processes, batches, normalising, the
network, casting, writing, syncs and commits. What a program does once, whatever it has to make, is
out of it and has figures of its own: building networks while decode processes start (`before_run`),
and the first start of such a process, which imports PyTorch (`first_decode_process_start`).

Its limits take turns with it: bare decoding of the same clips with all cores, nothing kept, and
the bare network in inference mode on normalised clips that lie in memory, in the layout that the
extractor uses. On a CPU both need the same cores, so the bound is one after the other; on CUDA it
is the slower of both. A ratio is the median over the turns. `in_run` figures come from the run's
own report: how much slower decoding and network are there than alone, and how long it waited.

Videos are synthetic (see `extract_videos.py`). Matrix products of the same type beside each turn
give the machine's rate; FLOP are those of convolutions, counted by PyTorch; where its
convolutions are faster than its matrix products, as on some CPUs, the fraction exceeds one. Memory
is measured in fresh processes. Where CUDA is at hand, networks are measured there, too, in bfloat16
and from videos in full HD: `run_speed` includes decoding, `forward_speed` does not. That part has
not been run yet.
"""

# The processes of `extract_end_to_end` import this file again: the rest is imported where needed.
import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extract_cases import Effort
    from extract_experiment import Material
    from figures import Figures

LIBRARIES = ["torch", "torchvision", "av", "numpy", "pillow"]
SCENE_SECONDS = 10
LENGTH_CLIP_EVERY_SECONDS = 5.0  # as in EPIC-KITCHENS


def main() -> None:
    """Run everything in temporary folders and save the figures."""
    import torch
    from extract_cases import FULL, FULL_CUDA, QUICK
    from figures import Figures

    parser = argparse.ArgumentParser(description="Measure extraction.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing saved")
    effort = QUICK if parser.parse_args().quick else FULL
    figures = Figures("extract", LIBRARIES)
    with temporary_folder() as folder:
        bench_videos(figures, effort, folder)
    with temporary_folder() as folder:
        bench_networks(figures, effort, folder, "cpu")
    if torch.cuda.is_available():
        with temporary_folder() as folder:
            bench_networks(figures, FULL_CUDA if effort is FULL else QUICK, folder, "cuda")
    print(f"saved {figures.save()}" if effort is FULL else "nothing saved")


def bench_videos(figures: "Figures", effort: "Effort", folder: Path) -> None:
    """What needs no network."""
    from extract_decoding import bench_plain_reader, bench_stages
    from extract_experiment import video_seconds
    from extract_videos import write_scene

    cases = (
        ("456x256", effort.small_video_px, effort.clips, True),
        ("456x256_no_b_frames", effort.small_video_px, effort.clips, False),
        ("1080p_no_b_frames", effort.large_video_px, effort.large_clips, False),
    )
    for name, size_px, clips, b_frames in cases:
        seconds = video_seconds(clips)
        video = write_scene(folder / f"{name}.mp4", size_px, seconds, b_frames=b_frames)
        bench_plain_reader(figures, effort, name, video, clips)
        if name == "456x256":
            bench_stages(figures, effort, video, seconds)


def bench_networks(figures: "Figures", effort: "Effort", folder: Path, device: str) -> None:
    """End to end with each network, and its memory."""
    from extract_end_to_end import bench_end_to_end, bench_start
    from extract_experiment import Material, video_seconds
    from extract_memory import bench_memory
    from extract_videos import repeat_video, write_scene

    size_px = effort.small_video_px if device == "cpu" else effort.large_video_px
    seconds = video_seconds(effort.clips)
    scene = write_scene(folder / "scene.mp4", size_px, seconds, b_frames=device == "cpu")
    (folder / "videos").mkdir()
    videos = [  # rows of equal content would be one
        repeat_video(scene, folder / "videos" / f"{number}.mp4", title=f"{number}")
        for number in range(effort.videos)
    ]
    material = Material(folder, videos, effort.clips)
    if device == "cpu":
        bench_start(figures, material, effort.backbones[0])
    precision = "float32" if device == "cpu" else "bfloat16"
    for backbone in effort.backbones:
        bench_end_to_end(figures, effort, backbone, material, device=device, precision=precision)
    one_batch = Material(folder, videos[:1], min(effort.batch_size, effort.clips))
    lengths = by_length(effort, folder) if device == "cpu" else []
    bench_memory(figures, effort, device, one_batch, lengths)


def by_length(effort: "Effort", folder: Path) -> "list[Material]":
    """A short video and a long one, the same pictures again and again."""
    from extract_experiment import Material, most_clips
    from extract_videos import repeat_video, write_scene

    scene = write_scene(folder / "short_scene.mp4", (128, 96), SCENE_SECONDS)
    materials = []
    for name, seconds in (("short", effort.short_seconds), ("long", effort.long_seconds)):
        (folder / name / "videos").mkdir(parents=True)
        path = folder / name / "videos" / f"{name}.mp4"
        video = repeat_video(scene, path, seconds // SCENE_SECONDS)
        clips = most_clips(seconds, LENGTH_CLIP_EVERY_SECONDS)
        materials.append(Material(folder / name, [video], clips, LENGTH_CLIP_EVERY_SECONDS))
    return materials


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder that goes away again."""
    with tempfile.TemporaryDirectory(prefix="bench_extract_") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
