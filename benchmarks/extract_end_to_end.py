"""The whole pipeline beside bare decoding and the bare network, in turns; layouts; GEMM rate."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from statistics import median

import torch
from extract_cases import Backbone, Effort, bare_forward, gemm_flop_per_second, timed
from extract_experiment import STAGE, Material, Ran, run, works
from figures import Figures
from store_cases import median_ratio, take_turns

from extractors.geometry import Geometry
from extractors.inference import memory_format_3d
from pipeline.decode_limits import DecodeLimits
from pipeline.decode_pass import DecodedRow
from pipeline.decode_videos import decode_video
from pipeline.decoder import create_decoder, default_processes, usable_cores
from pipeline.work import VideoWork

GEMM_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def bench_end_to_end(
    figures: Figures,
    effort: Effort,
    backbone: Backbone,
    material: Material,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> None:
    """Run, decode and compute in turns; all figures of one network."""
    bare = bare_forward(backbone, effort.batch_size, device, precision)
    ours = memory_format_3d(precision, bare.device)
    layouts = {"default": torch.contiguous_format, "channels_last": torch.channels_last_3d}
    rans: list[Ran] = []

    def run_once() -> float:
        rans.append(run(material.experiment(backbone, effort.batch_size, device, precision)))
        return rans[-1].stage.seconds / material.num_clips

    gemm = partial(gemm_flop_per_second, effort.gemm_sides, device, GEMM_DTYPES[precision])
    times = take_turns(
        effort.turns,
        {
            "decode": partial(_decode_seconds, backbone, material, device),
            **{name: partial(bare.seconds_per_clip, layout) for name, layout in layouts.items()},
            "run": run_once,
            "gemm": gemm,
        },
    )
    forward = times["channels_last" if ours is layouts["channels_last"] else "default"]
    both = zip(times["decode"], forward, strict=True)
    bound = [sum(pair) if device == "cpu" else max(pair) for pair in both]
    name = backbone.name if device == "cpu" else f"{device}_{precision}_{backbone.name}"
    _add_speeds(figures, name, times, forward, bound)
    _add_forward(figures, name, backbone.flop_per_clip, times, forward)
    _add_parts(figures, name, rans[1:], times, forward, material.num_clips)


def bench_start(figures: Figures, material: Material, backbone: Backbone) -> None:
    """The first decode process of a program, and a later one, to the end of a rowless video."""
    work = works(material.experiment(backbone, 1))[0]
    empty = VideoWork(work.video, {})
    for when in ("first", "later"):
        seconds = timed(lambda: _decode_alone(empty), _CPU)
        figures.add(f"{when}_decode_process_start", seconds, "s")


def _decode_alone(work: VideoWork) -> None:
    limits = DecodeLimits(60.0, 3600.0, None)
    with closing(create_decoder(1, {}, limits=limits, cores=usable_cores())) as decoder:
        for _ in decoder.decode([work], {}):
            pass


def _add_speeds(
    figures: Figures,
    name: str,
    times: dict[str, list[float]],
    forward: list[float],
    bound: list[float],
) -> None:
    words = (
        "of_decode_plus_forward"
        if bound[0] > max(times["decode"][0], forward[0])
        else ("of_slower_of_decode_and_forward")
    )
    figures.add(f"{name}_end_to_end_ratio", median_ratio(bound, times["run"]), words, (">=", 0.90))
    for what, seconds in (("run", times["run"]), ("decode", times["decode"]), ("forward", forward)):
        figures.add(f"{name}_{what}_speed", 1 / median(seconds), "clips/s")


def _add_forward(
    figures: Figures, name: str, flop: int, times: dict[str, list[float]], forward: list[float]
) -> None:
    figures.add(f"{name}_forward_work", flop / 1e9, "GFLOP/clip")
    for what, seconds in (("forward", forward), ("run", times["run"])):
        rates = [flop / second for second in seconds]
        fraction = median(rate / gemm for rate, gemm in zip(rates, times["gemm"], strict=True))
        figures.add(f"{name}_{what}_gemm_fraction", fraction, "of_gemm_rate")
    figures.add(f"{name}_gemm_rate", median(times["gemm"]) / 1e9, "GFLOP/s")
    speedup = median_ratio(times["default"], times["channels_last"])
    figures.add(f"{name}_channels_last_speedup", speedup, "x_default_layout")


def _add_parts(
    figures: Figures,
    name: str,
    rans: list[Ran],
    times: dict[str, list[float]],
    forward: list[float],
    num_clips: int,
) -> None:
    """Where a run's time goes, by its own report, beside what the same costs alone."""
    parts = [ran.stage.timings for ran in rans]
    decoding = [(part.decode_seconds + part.transform_seconds) / num_clips for part in parts]
    computing = [part.forward_seconds / num_clips for part in parts]
    waiting = [ran.stage.timings.waiting_seconds / ran.stage.seconds for ran in rans]
    writing = [ran.stage.timings.write_seconds / ran.stage.seconds for ran in rans]
    slower = {"decode": (decoding, times["decode"]), "forward": (computing, forward)}
    for what, (within, alone) in slower.items():
        figures.add(f"{name}_{what}_in_run", median_ratio(within, alone), "x_alone")
    figures.add(f"{name}_waiting_in_run", median(waiting), "of_run")
    figures.add(f"{name}_writing_in_run", median(writing), "of_run")
    figures.add(f"{name}_before_run", median(ran.before_seconds for ran in rans), "s")


def _decode_seconds(backbone: Backbone, material: Material, device: str) -> float:
    """Seconds per clip of decoding and resizing all clips with all cores, and nothing else.

    One video after the other with all threads, as in a run on the CPU; beside a GPU, as many videos
    at a time as a run has processes.
    """
    experiment = material.experiment(backbone, 1)
    geometry = experiment.video_stages[STAGE].geometry
    todo = works(experiment)
    processes = default_processes(device, usable_cores())
    if processes == 1:
        seconds = timed(lambda: [decode_all(work, geometry, 0) for work in todo], _CPU)
    else:
        seconds = _in_processes(processes, todo, geometry)
    return seconds / material.num_clips


def _in_processes(processes: int, todo: list[VideoWork], geometry: Geometry | None) -> float:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(time.sleep, [1.0] * processes))  # all are there
        one_each = partial(decode_all, geometry=geometry, num_threads=1)
        return timed(lambda: list(pool.map(one_each, todo)), _CPU)


def decode_all(work: VideoWork, geometry: Geometry | None, num_threads: int) -> None:
    """Decode the rows of a video and forget them.

    Raises:
        RuntimeError: a row cannot be decoded.
    """
    for item in decode_video(work, {STAGE: geometry}, num_threads=num_threads):
        if not isinstance(item, DecodedRow):
            raise RuntimeError(f"got {item.failures}, expected frames")


_CPU = torch.device("cpu")
