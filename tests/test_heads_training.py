import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, make_data
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim import SGD, Adam, AdamW, Optimizer

from heads.base import Head
from heads.checkpoint import load_head, read_checkpoint
from heads.evaluation import score_table
from heads.optimizer import create_optimizer, optimizer_tensors, restore_optimizer
from heads.registry import create_head
from heads.settings import TrainSettings
from heads.table import FeatureTable
from heads.training import BEST, LAST, TrainResult, train_head
from heads.training_log import EpochReport
from heads.training_pass import CHECK_STEPS, Learner, PassNumbers
from heads.training_state import save_training_state

SETTINGS = TrainSettings(epochs=4, batch_size=8, learning_rate=0.05, decay_epochs=(3,))


def create(name: str = "saoa", seed: int = 0) -> Head:
    return create_head(name, specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS, seed=seed)


def make_table(size: int = 30, seed: int = 0, **options: Any) -> FeatureTable:
    reader, samples = make_data(size, views=2, seed=seed)
    return FeatureTable(reader, samples, outputs=create().inputs, **options)


def train(folder: Path, **changes: Any) -> TrainResult:
    arguments: dict[str, Any] = {
        "head": create(),
        "train_table": make_table(),
        "validation_table": make_table(20, seed=1),
        "settings": SETTINGS,
        **changes,
    }
    return train_head(folder, **arguments)


def without_seconds(result: TrainResult) -> list[EpochReport]:
    return [replace(report, seconds=0.0) for report in result.history]


def tensors_equal(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns(tmp_path: Path) -> None:
    """The fake rows tell their labels: the head must find them, on segments it never saw."""
    settings = TrainSettings(epochs=12, batch_size=16, learning_rate=0.1)
    result = train(tmp_path, train_table=make_table(300), settings=settings)
    validation = result.history[-1].validation
    assert validation is not None
    assert validation.verb_top1 > 0.9
    assert validation.noun_top1 > 0.9
    assert result.history[-1].loss < result.history[0].loss / 3


def test_first_epochs_equal_sgd_written_out(tmp_path: Path) -> None:
    """Momentum, weight decay, rate decay, order of segments and draw of views."""
    settings = TrainSettings(
        epochs=3, batch_size=8, learning_rate=0.05, decay_epochs=(1, 2), decay_factor=0.5, seed=3
    )
    table, expected = make_table(), create("pooled")
    velocity = {name: torch.zeros_like(p) for name, p in expected.named_parameters()}
    for epoch, rate in enumerate((0.05, 0.025, 0.0125), start=1):
        generator = np.random.default_rng((3, epoch))
        order = generator.permutation(30)
        views = generator.integers([2] * 30)
        for start in (0, 8, 16, 24):
            chosen = order[start : start + 8]
            logits = expected(table.batch(chosen, [views[index] for index in chosen]))
            loss = expected.loss(logits, table.labels(chosen))
            gradients = torch.autograd.grad(loss, list(expected.parameters()))
            with torch.no_grad():
                for (name, p), gradient in zip(expected.named_parameters(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + gradient + 1e-4 * p
                    p.sub_(rate * velocity[name])
    head = create("pooled")
    train_head(tmp_path, head, table, settings=settings)
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), rtol=1e-5, atol=1e-6)


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    other = train(tmp_path / "c", settings=replace(SETTINGS, seed=1))
    assert without_seconds(first) == without_seconds(second)
    assert first.checkpoint.read_bytes() == second.checkpoint.read_bytes()
    assert not tensors_equal(first.checkpoint, other.checkpoint)


def test_reading_per_batch_gives_the_same_bits(tmp_path: Path) -> None:
    train(tmp_path / "a")
    train(tmp_path / "b", train_table=make_table(resident_mib=0))
    name = "last.safetensors"
    assert tensors_equal(tmp_path / "a" / name, tmp_path / "b" / name)


OPTIMIZERS: dict[str, TrainSettings] = {
    "sgd": SETTINGS,
    "nesterov": replace(SETTINGS, nesterov=True, gradient_clip_norm=0.5),
    "no_momentum": replace(SETTINGS, momentum=0.0),
    "adam": replace(SETTINGS, optimizer="adam", learning_rate=1e-3, betas=(0.8, 0.99)),
    "adamw": replace(
        SETTINGS,
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="cosine",
        decay_epochs=(),
        warmup_epochs=1,
        precision="bfloat16",
    ),
}


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_training_gives_the_same_bits(tmp_path: Path, name: str, stop_after: int) -> None:
    settings = OPTIMIZERS[name]

    def stop(report: EpochReport) -> None:
        if report.epoch == stop_after:
            raise KeyboardInterrupt

    whole = train(tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", settings=settings, on_epoch=stop)
    epochs: list[int] = []
    resumed = train(
        tmp_path / "cut",
        settings=settings,
        head=create(seed=99),  # its weights come from the file
        resume=True,
        on_epoch=lambda report: epochs.append(report.epoch),
    )
    assert epochs == list(range(stop_after + 1, 5))
    assert without_seconds(resumed) == without_seconds(whole)
    assert resumed.epoch == whole.epoch
    for file in ("head.safetensors", "last.safetensors"):
        assert tensors_equal(tmp_path / "cut" / file, tmp_path / "whole" / file)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            TrainSettings(learning_rate=0.3, momentum=0.7, nesterov=True, weight_decay=0.2),
            (SGD, {"lr": 0.3, "momentum": 0.7, "nesterov": True, "weight_decay": 0.2}),
        ),
        (
            TrainSettings(optimizer="adam", betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2),
            (Adam, {"lr": 1e-4, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.2}),
        ),
        (
            TrainSettings(optimizer="adamw", betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2),
            (AdamW, {"lr": 1e-4, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.2}),
        ),
    ],
)
def test_optimizers_get_their_settings(settings: TrainSettings, expected: Any) -> None:
    optimizer = create_optimizer(create("pooled").parameters(), settings)
    assert type(optimizer) is expected[0]
    assert expected[1].items() <= optimizer.defaults.items()


def test_the_loss_is_a_mean_over_segments_not_batches(tmp_path: Path) -> None:
    """30 segments in batches of 8: the last one is smaller. The weights hardly move."""
    reader, samples = make_data(30)
    head, table = create(), FeatureTable(reader, samples, outputs=create().inputs)
    whole = head.loss(head(table.batch(range(30), [0] * 30)), table.labels(range(30))).item()
    settings = TrainSettings(epochs=1, batch_size=8, learning_rate=1e-12)
    report = train_head(tmp_path, head, table, settings=settings).history[0]
    assert report.loss == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_go_on_in_the_middle_as_torch_would(tmp_path: Path, name: str) -> None:
    """What is restored is all that torch keeps: the same keys, shapes and values."""
    head = create("pooled")
    optimizer = create_optimizer(head.parameters(), OPTIMIZERS[name])
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack([p.square().sum() for p in head.parameters()]).sum().backward()
        optimizer.step()
    again = create_optimizer(head.parameters(), OPTIMIZERS[name])
    restore_optimizer(head, again, optimizer_tensors(head, optimizer))
    expected, actual = optimizer.state_dict(), again.state_dict()
    assert actual["param_groups"] == expected["param_groups"]
    assert actual["state"].keys() == expected["state"].keys() != set()
    for number, state in expected["state"].items():
        assert state.keys() == actual["state"][number].keys() != set()
        for what, value in state.items():
            assert torch.equal(value, actual["state"][number][what])


def test_more_epochs_go_on_where_fewer_ended(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", settings=replace(SETTINGS, epochs=6))
    train(tmp_path / "more")
    more = train(tmp_path / "more", settings=replace(SETTINGS, epochs=6), resume=True)
    assert [replace(r, epochs=6) for r in without_seconds(more)] == without_seconds(whole)
    assert more.epoch == whole.epoch
    for name in ("head.safetensors", "last.safetensors"):
        assert tensors_equal(tmp_path / "more" / name, tmp_path / "whole" / name)
    with pytest.raises(ValueError, match="got a training with epochs=6, expected 5 to go on"):
        train(tmp_path / "more", settings=replace(SETTINGS, epochs=5), resume=True)


def test_a_cosine_has_its_number_of_epochs_for_good(tmp_path: Path) -> None:
    settings = replace(SETTINGS, decay_epochs=(), schedule="cosine")
    train(tmp_path, settings=settings)
    with pytest.raises(ValueError, match="got a training with epochs=4, expected 9 to go on"):
        train(tmp_path, settings=replace(settings, epochs=9), resume=True)


def test_an_earlier_epoch_can_be_gone_back_to(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=8)
    whole = train(tmp_path, settings=settings, keep_every=3)
    kept = sorted(path.name for path in (tmp_path / "epochs").iterdir())
    assert kept == [
        "epoch_003.safetensors",
        "epoch_003_best.safetensors",
        "epoch_006.safetensors",
        "epoch_006_best.safetensors",
    ]
    log, last = (tmp_path / "log.csv").read_text(), load_file(tmp_path / "last.safetensors")
    best = read_checkpoint(tmp_path / "epochs" / kept[1]).training["epoch"]
    assert best == max(report.epoch for report in whole.history[:3] if report.kept)

    def stop(report: EpochReport) -> None:
        assert report.epoch == 4
        assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
        raise KeyboardInterrupt

    arguments: dict[str, Any] = {"settings": settings, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, from_epoch=3, on_epoch=stop, **arguments)
    again = train(tmp_path, head=create(seed=5), from_epoch=3, **arguments)
    assert without_seconds(again) == without_seconds(whole)
    restored = load_file(tmp_path / "last.safetensors")
    assert all(torch.equal(last[name], restored[name]) for name in last)
    assert [line.split(",")[:-1] for line in (tmp_path / "log.csv").read_text().splitlines()] == [
        line.split(",")[:-1] for line in log.splitlines()
    ]


def test_going_back_brings_back_the_best_head_of_then(tmp_path: Path) -> None:
    """The training that follows ends at once: what counts is what the way back left."""
    settings = replace(SETTINGS, epochs=6, decay_epochs=())
    train(tmp_path, settings=settings, keep_every=2, validation_table=None)
    short = train(tmp_path / "short", settings=replace(settings, epochs=2), validation_table=None)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heads.training._Trainer.run_epoch", fail)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, settings=settings, validation_table=None, resume=True, from_epoch=2)
    assert read_checkpoint(tmp_path / "head.safetensors").training["epoch"] == 2
    for name in ("head.safetensors", "last.safetensors"):
        assert tensors_equal(tmp_path / name, tmp_path / "short" / name)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert short.epoch == 2


def test_epochs_that_were_not_kept_are_no_way_back(tmp_path: Path) -> None:
    train(tmp_path, keep_every=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    with pytest.raises(FileNotFoundError, match=r"no state of epoch 3, .* those kept: 2, 4; train"):
        train(tmp_path, resume=True, from_epoch=3)
    with pytest.raises(ValueError, match="from_epoch=2 without resume"):
        train(tmp_path, from_epoch=2)
    with pytest.raises(ValueError, match=r"epoch_002.*got a training with momentum=0\.9"):
        train(tmp_path, settings=replace(SETTINGS, momentum=0.5), resume=True, from_epoch=2)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    """One step of plain descent moves the weights by the rate times the clipped norm."""
    settings = TrainSettings(
        epochs=1,
        batch_size=30,
        learning_rate=0.5,
        momentum=0.0,
        weight_decay=0.0,
        gradient_clip_norm=0.01,
    )
    before, head = create(), create()
    train_head(tmp_path, head, make_table(), settings=settings)
    moved = [(p - before.get_parameter(n)).flatten() for n, p in head.named_parameters()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_bfloat16_is_near_float32_and_not_the_same(tmp_path: Path) -> None:
    exact = train(tmp_path / "a").history[0]
    rounded = train(tmp_path / "b", settings=replace(SETTINGS, precision="bfloat16")).history[0]
    assert rounded.loss != exact.loss
    assert rounded.loss == pytest.approx(exact.loss, rel=0.02)
    weights = load_file(tmp_path / "b" / "last.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_a_compiled_head_is_what_trains_and_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def compile_(head: Head) -> Any:
        return lambda batch: (calls.append(1), head(batch))[1]

    monkeypatch.setattr("torch.compile", compile_)
    compiled = train(tmp_path / "a", settings=replace(SETTINGS, compile=True))
    assert len(calls) == 4 * 4
    plain = train(tmp_path / "b")
    assert without_seconds(compiled) == without_seconds(plain)
    assert tensors_equal(compiled.checkpoint, plain.checkpoint)


@pytest.mark.slow
def test_pytorch_compiles_a_training(tmp_path: Path) -> None:
    exact = train(tmp_path / "a", settings=SETTINGS)
    compiled = train(tmp_path / "b", settings=replace(SETTINGS, compile=True))
    assert compiled.history[0].loss == pytest.approx(exact.history[0].loss, rel=1e-4)
    reader, samples = make_data(10, seed=4)
    reader.rows["4-6-0"]["verb_gap"][0] = np.nan
    table = FeatureTable(reader, samples, outputs=create().inputs)
    settings = replace(SETTINGS, batch_size=2, compile=True)
    with pytest.raises(FloatingPointError, match=r"loss of nan in epoch 1 .*\bs6\b"):
        train(tmp_path / "c", train_table=table, validation_table=None, settings=settings)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("resident_mib", [4096, 0])
def test_a_gpu_trains_as_the_cpu_does_and_goes_on(
    tmp_path: Path, name: str, resident_mib: int
) -> None:
    settings = OPTIMIZERS[name]
    tables = {"train_table": make_table(resident_mib=resident_mib)}
    cpu = train(tmp_path / "cpu", settings=settings)
    train(
        tmp_path / "gpu",
        settings=settings,
        device="cuda",
        keep_every=2,
        **tables,
    )
    again = train(
        tmp_path / "gpu",
        settings=settings,
        device="cuda",
        resume=True,
        from_epoch=2,
        **tables,
    )
    for report, expected in zip(again.history, cpu.history, strict=True):
        assert report.loss == pytest.approx(expected.loss, rel=0.02)


@pytest.mark.needs_cuda
def test_a_nan_on_a_gpu_names_its_batch(tmp_path: Path) -> None:
    reader, samples = make_data(10, seed=4)
    reader.rows["4-6-0"]["verb_gap"][0] = np.nan
    table = FeatureTable(reader, samples, outputs=create().inputs)
    settings = replace(SETTINGS, batch_size=2)
    with pytest.raises(FloatingPointError, match=r"loss of nan in epoch 1 .*\bs6\b") as caught:
        train(tmp_path, train_table=table, validation_table=None, settings=settings, device="cuda")
    assert len(str(caught.value).split("segments ")[1].split(";")[0].split(", ")) == 2


def test_another_process_gives_the_same_bits(tmp_path: Path) -> None:
    """Whatever was computed before in a process, and however it hashes its words."""
    child = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[2])); from pathlib import Path; "
        "from test_heads_training import train; train(Path(sys.argv[1]))"
    )
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "1"}
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-c", child, str(tmp_path / "other"), threads]
    subprocess.run(command, check=True, env=environment)
    train(tmp_path / "here")
    for name in ("head.safetensors", "last.safetensors"):
        assert tensors_equal(tmp_path / "other" / name, tmp_path / "here" / name)


def test_resume_starts_where_there_is_nothing_and_ends_where_all_is_done(tmp_path: Path) -> None:
    first = train(tmp_path, resume=True)
    again = train(tmp_path, resume=True, on_epoch=lambda _: pytest.fail("trained again"))
    assert again == first


def test_resume_into_another_training_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(FileExistsError, match="resume it or choose another"):
        train(tmp_path)
    changes: dict[str, dict[str, Any]] = {
        "got a training with momentum=0.9, expected 0.5 to go on": {
            "settings": replace(SETTINGS, momentum=0.5)
        },
        "got a training with other action prior": {"prior": np.full((NUM_VERBS, NUM_NOUNS), 2.0)},
        "got a training with other training segments": {"train_table": make_table(31)},
        "got a training with other validation segments": {"validation_table": None},
        "expected HeadConfig": {"head": create("pooled")},
    }
    for message, change in changes.items():
        with pytest.raises(ValueError, match=message):
            train(tmp_path, resume=True, **change)


def test_best_epoch_is_kept(tmp_path: Path) -> None:
    table = make_table(20, seed=1)
    settings = replace(SETTINGS, epochs=8)
    prior = np.random.default_rng(3).random((NUM_VERBS, NUM_NOUNS))
    result = train(
        tmp_path, settings=settings, validation_table=table, prior=prior, provenance={"run": 7}
    )
    accuracies = [r.validation.action_top1 for r in result.history if r.validation]
    assert result.epoch == 1 + int(np.argmax(accuracies))  # the earliest of equals
    assert result.selection == BEST
    saved = read_checkpoint(result.checkpoint)
    assert saved.training == {"epoch": result.epoch, "selection": BEST}
    assert saved.provenance == {"run": 7}
    measured = score_table(load_head(result.checkpoint), table).metrics(prior)
    assert measured == result.history[result.epoch - 1].validation


def test_last_epoch_is_kept_without_validation(tmp_path: Path) -> None:
    head = create()
    result = train(tmp_path, head=head, validation_table=None)
    assert (result.epoch, result.selection) == (4, LAST)
    assert read_checkpoint(result.checkpoint).training == {"epoch": 4, "selection": LAST}
    assert all(report.kept and report.validation is None for report in result.history)
    last = load_head(tmp_path / "last.safetensors")  # an ordinary checkpoint, too
    for path_head in (load_head(result.checkpoint), last):
        for name, parameter in path_head.named_parameters():
            assert torch.equal(parameter, head.get_parameter(name))


def test_training_accuracy_and_loss_are_those_of_the_batches(tmp_path: Path) -> None:
    """One batch an epoch: the report is about the weights before the step."""
    reader, samples = make_data(12)
    head, table = create(), FeatureTable(reader, samples, outputs=create().inputs)
    indices = np.arange(12)
    logits, labels = head(table.batch(indices, 0 * indices)), table.labels(indices)
    settings = TrainSettings(epochs=1, batch_size=12)
    report = train_head(tmp_path, create(), table, settings=settings).history[0]
    assert report.loss == pytest.approx(head.loss(logits, labels).item(), rel=1e-5)
    for name, accuracy in (("verb", report.verb_top1), ("noun", report.noun_top1)):
        hits = (logits[name].argmax(1) == labels[name]).sum().item()
        assert accuracy == pytest.approx(hits / 12)


def test_log_and_events_hold_every_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a training that was cut off between logging an epoch and saving its state."""

    def cut_off(path: Path, head: Head, optimizer: Optimizer, history: Any, **others: Any) -> None:
        if len(history) == 3:
            raise KeyboardInterrupt
        save_training_state(path, head, optimizer, history, **others)

    monkeypatch.setattr("heads.training.save_training_state", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    result = train(tmp_path, resume=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert list(rows[0]) == [
        "epoch",
        "learning_rate",
        "train_loss",
        "train_verb_top1",
        "train_noun_top1",
        "validation_verb_top1",
        "validation_verb_top5",
        "validation_noun_top1",
        "validation_noun_top5",
        "validation_action_top1",
        "validation_action_top5",
        "seconds",
    ]
    for row, report in zip(rows, result.history, strict=True):
        assert {name: float(row[name]) for name in report.scalars()} == report.scalars()
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.05] * 3 + [0.005])

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert losses == [(r.epoch, pytest.approx(r.loss, rel=1e-6)) for r in result.history]


def test_a_nan_stops_training_and_names_the_segments(tmp_path: Path) -> None:
    reader, samples = make_data(10, seed=4)
    table = FeatureTable(reader, samples, outputs=create().inputs, resident_mib=0)
    settings = replace(SETTINGS, batch_size=2)

    def break_a_row(report: EpochReport) -> None:
        if report.epoch == 2:
            reader.rows["4-6-0"]["verb_gap"][0] = np.nan

    arguments: dict[str, Any] = {"validation_table": None, "settings": settings}
    with pytest.raises(FloatingPointError, match=r"loss of nan in epoch 3 .*\bs6\b") as caught:
        train(tmp_path, train_table=table, on_epoch=break_a_row, **arguments)
    named = str(caught.value).split("segments ")[1].split(";")[0].split(", ")
    assert len(named) == 2
    saved = read_checkpoint(tmp_path / "last.safetensors")
    assert saved.training["epoch"] == 2
    assert read_checkpoint(tmp_path / "head.safetensors").training["epoch"] == 2
    for name in ("head.safetensors", "last.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / name).values())
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("check_steps", [1, 3, 64])
@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bfloat16", "gradient_clip_norm": 1.0, "optimizer": "adamw"}]
)
def test_the_batch_that_broke_is_named_however_late_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], check_steps: int
) -> None:
    """A GPU is asked for its losses now and then; all after the first bad one are bad, too."""
    monkeypatch.setitem(CHECK_STEPS, "cpu", check_steps)
    reader, samples = make_data(10, seed=4)
    reader.rows["4-6-0"]["verb_gap"][0] = np.inf
    table = FeatureTable(reader, samples, outputs=create().inputs)
    settings = replace(SETTINGS, batch_size=2, **changes)
    order = np.random.default_rng((0, 1)).permutation(10)
    place = order.tolist().index(6) // 2 * 2
    expected = ", ".join(f"s{number}" for number in order[place : place + 2])
    losses, loss = [], Head.loss
    monkeypatch.setattr(Head, "loss", lambda *given: losses.append(1) or loss(*given))
    with pytest.raises(FloatingPointError, match=f"a loss of .* segments {expected};"):
        train(tmp_path, train_table=table, validation_table=None, settings=settings)
    looked_at = place // 2 // check_steps * check_steps + check_steps
    assert len(losses) == min(5, looked_at)
    assert not list(tmp_path.glob("*.safetensors"))


def test_weights_that_overflow_in_the_last_step_are_not_saved(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=1, batch_size=30, learning_rate=1e38)
    reader, samples = make_data(30)
    for row in reader.rows.values():
        row["verb_gap"] = row["verb_gap"] * np.float16(1000)
    table = FeatureTable(reader, samples, outputs=create().inputs)
    with pytest.raises(
        FloatingPointError, match=r"NaN or infinite weights in epoch 1 .*s0.*; no epoch is done"
    ):
        train_head(tmp_path, create("pooled"), table, settings=settings)
    assert not list(tmp_path.glob("*.safetensors"))


def test_weights_that_overflow_in_validation_name_run_and_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_weights(report: EpochReport) -> None:
        if report.epoch == 1:
            monkeypatch.setattr(Learner, "train_pass", too_far)

    def too_far(learner: Learner, table: FeatureTable, epoch: int) -> PassNumbers:
        with torch.no_grad():
            for parameter in learner.head.parameters():
                parameter.fill_(3e38)
        return PassNumbers(0.0, 0.0, 0.0)

    with pytest.raises(
        FloatingPointError,
        match=rf"{tmp_path}: .*after epoch 2; lower the learning rate; files are as of epoch 1",
    ):
        train(tmp_path, on_epoch=break_weights)
    assert read_checkpoint(tmp_path / "last.safetensors").training["epoch"] == 1


def test_labels_and_priors_are_checked_before_training(tmp_path: Path) -> None:
    small = create_head("saoa", specs=SPECS, num_verbs=2, num_nouns=NUM_NOUNS)
    with pytest.raises(ValueError, match="got verb class"):
        train(tmp_path / "run", head=small)
    with pytest.raises(ValueError, match=r"got a prior of shape \(2, 2\), expected \(V, N\) = "):
        train(tmp_path / "run", prior=np.ones((2, 2)))
    assert not (tmp_path / "run").exists()


def test_states_are_plain_safetensors(tmp_path: Path) -> None:
    train(tmp_path)
    tensors = load_file(tmp_path / "last.safetensors")
    names = {name for name, _ in create().named_parameters()}
    assert set(tensors) == names | {f"training.momentum_buffer.{name}" for name in names}
    training = read_checkpoint(tmp_path / "last.safetensors").training
    assert training["identity"]["settings"]["seed"] == 0
    assert len(training["history"]) == training["epoch"] == 4
    assert json.loads(json.dumps(training)) == training
