"""The stage ``aligned`` as a run makes it: against rows made one by one, and when some fail."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from stage_fixtures import clip_table, key_of
from test_pipeline_align import Generations, make_stage
from test_pipeline_maps_reader import (
    CLIPS,
    VERB_SHAPE,
    assert_equal,
    keys_of,
    stored_aligned,
    stored_rows,
)

from pipeline import aligner, run_aligned
from pipeline.aligner import Aligner
from pipeline.clips import Clip
from pipeline.patience import Patience
from pipeline.run_report import StageReport
from pipeline.stages import AlignedStage
from pipeline.work import Progress
from stores.base import CorruptRowError, FeatureStore, Row
from stores.memory_store import MemoryStore


class Run:
    """Rows of all clips, made into a store in memory."""

    def __init__(self, stage: AlignedStage, generations: Generations) -> None:
        self.generations = generations
        specs = stage.output_specs({name: reader.specs for name, reader in generations.items()})
        self.aligned: FeatureStore = MemoryStore().generation("aligned", stage.key, specs)
        self.report = StageReport("aligned", stage.key, wanted=len(CLIPS), present=0)
        self.stop = threading.Event()
        self.progress: list[Progress] = []
        self._stage = stage

    def make(self, clips: Sequence[Clip] = CLIPS) -> None:
        rows = self._stage.rows(clip_table(*clips))
        with closing(Aligner(self._stage, self.generations, self.aligned.specs)) as made:
            making = run_aligned._make(
                rows, made, self.generations, self.aligned, self.report, self.stop, Patience(0)
            )
            for progress in filter(None, making):
                self.progress.append(progress)
                receipts = [progress.receipt] if progress.receipt else []
                self.aligned.commit(receipts, progress.failures)

    @property
    def computed(self) -> int:
        return sum(progress.computed for progress in self.progress)

    @property
    def shard_sizes(self) -> list[int]:
        return [len(p.receipt.slots) for p in self.progress if p.receipt]


def spoil(run: Run, stage: AlignedStage, clip: Clip) -> str:
    """A clip's map holds what float16 cannot; the key of its aligned row."""
    key = key_of(stage.verb, clip)
    info = run.generations["verb"].infos([key])[0]
    run.generations["verb"].forget([key])
    large = np.full(VERB_SHAPE, 1e6, np.float32)
    run.generations["verb"].append([Row(key, {"map": large}, info)])
    return key_of(stage, clip)


@pytest.mark.parametrize("rows_per_shard", [1, 4, 100])
@pytest.mark.parametrize("rows_at_once", [1, 3, 32])
def test_rows_are_those_made_one_by_one(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int, rows_per_shard: int
) -> None:
    monkeypatch.setattr(aligner, "ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(run_aligned, "ROWS_AT_ONCE", rows_at_once + 1)
    stage = make_stage(noun_roi=True, output_size=3, map_time="nearest")
    run = Run(stage, stored_rows(stage))
    run.aligned.rows_per_shard = rows_per_shard
    run.make()
    expected = stored_aligned(stage, run.generations)
    keys = keys_of(stage)
    assert_equal(run.aligned.read(keys), expected.read(keys))
    assert run.aligned.infos(keys) == expected.infos(keys)
    assert run.computed == len(CLIPS)
    whole, rest = divmod(len(CLIPS), rows_per_shard)
    assert run.shard_sizes == [rows_per_shard] * whole + [rest] * bool(rest)
    assert run.report.timings.transform_seconds > 0
    assert run.report.timings.write_seconds > 0


@pytest.mark.parametrize("culprits", [[0], [5], [2, 3], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("rows_at_once", [2, 32])
def test_only_the_culprits_fail(
    monkeypatch: pytest.MonkeyPatch, culprits: list[int], rows_at_once: int
) -> None:
    monkeypatch.setattr(aligner, "ROWS_AT_ONCE", rows_at_once)
    stage = make_stage(dtype="float16")
    run = Run(stage, stored_rows(stage, dtype="float32"))
    expected = stored_aligned(stage, run.generations)
    failed = {spoil(run, stage, CLIPS[i]) for i in culprits}
    run.aligned.rows_per_shard = 4
    run.make()
    failures = run.aligned.failures()
    assert {failure.row_key for failure in failures} == failed
    assert {failure.error_class for failure in failures} == {"OverflowError"}
    assert failures[0].message.startswith(f"got verb_gap of clip {failures[0].clip_id} ")
    kept = [key for key in keys_of(stage) if key not in failed]
    assert_equal(run.aligned.read(kept), expected.read(kept))
    assert run.computed == len(kept)
    assert sum(run.shard_sizes) == len(kept)


def test_rows_that_do_not_read_back_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage()
    run = Run(stage, stored_rows(stage))
    bad = key_of(stage.noun, CLIPS[3])
    noun = run.generations["noun"]
    read = noun.read

    def damaged(keys: Sequence[str], *rest: Any) -> Any:
        if bad in keys:
            raise CorruptRowError("shard 0 of noun: got another checksum", [bad])
        return read(keys, *rest)

    monkeypatch.setattr(noun, "read", damaged)
    run.make()
    (failure,) = run.aligned.failures()
    assert failure.row_key == key_of(stage, CLIPS[3])
    assert failure.error_class == "CorruptRowError"
    assert len(run.aligned) == len(CLIPS) - 1


def test_an_error_of_another_kind_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage()
    run = Run(stage, stored_rows(stage))
    monkeypatch.setattr(run.generations["noun"], "read", lambda *_: 1 / [])
    with pytest.raises(TypeError):
        run.make()


@pytest.mark.parametrize("stage_name", ["verb", "noun", "objects"])
def test_rows_made_from_clamped_rows_are_clamped(stage_name: str) -> None:
    stage = make_stage()
    run = Run(stage, stored_rows(stage))
    upstream = run.generations[stage_name]
    (row,) = stage.rows(clip_table(CLIPS[2]))
    key = row.upstream[stage_name][0]
    arrays = {name: values[0] for name, values in upstream.read([key]).items()}
    flagged = replace(upstream.infos([key])[0], flags="clamped")
    upstream.forget([key])
    upstream.append([Row(key, arrays, flagged)])
    run.make()
    for made in stage.rows(clip_table(*CLIPS)):
        (info,) = run.aligned.infos([made.key])
        assert info.flags == ("clamped" if key in made.upstream[stage_name] else "")
        assert replace(info, flags="") == made.info


def test_who_asks_to_stop_waits_for_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_aligned, "ROWS_AT_ONCE", 2)
    stage = make_stage()
    run = Run(stage, stored_rows(stage))
    fill, pieces = Aligner.fill, []

    def counted(self: Aligner, rows: Any, arrays: Any) -> None:
        pieces.append(len(rows))
        if len(pieces) == 2:
            run.stop.set()
        fill(self, rows, arrays)

    monkeypatch.setattr(Aligner, "fill", counted)
    run.make()
    assert pieces == [2, 2]
    assert set(run.aligned.keys()) == set(keys_of(stage)[:4])
    assert run.shard_sizes == [4]


def test_threads_are_done_when_filling_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes to arrays that are used again for other rows."""
    stage = make_stage()
    generations = stored_rows(stage)
    specs = stage.output_specs({name: reader.specs for name, reader in generations.items()})
    rows = stage.rows(clip_table(*CLIPS))
    going, slow = [], threading.Event()

    def work(_stage: Any, row: Any, *_: Any) -> dict[str, Any]:
        if row.key == rows[0].key:
            raise OverflowError("the first")
        going.append(row.key)
        slow.wait(0.05)
        going.remove(row.key)
        return {}

    monkeypatch.setattr(aligner, "aligned_outputs", work)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    with closing(Aligner(stage, generations, specs)) as made:
        out = {"verb_gap": np.empty((len(rows), *specs["verb_gap"].shape), np.float16)}
        with pytest.raises(OverflowError, match="the first"):
            made.fill(rows, out)
        assert not going
        assert not made._pool._work_queue.qsize()
