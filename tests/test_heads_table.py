import numpy as np
import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, FakeReader, N, make_data

from heads.saoa import SaoaHead
from heads.table import FeatureTable, Sample

OUTPUTS = SaoaHead.inputs
ROW_NBYTES = 2 * (8 + 12 + 4 * 8 + 6 * 5) + 6


def test_batch_holds_what_the_store_holds() -> None:
    reader, samples = make_data(6, views=2)
    table = FeatureTable(reader, samples, outputs=OUTPUTS)
    batch = table.batch([4, 1, 4], [0, 1, 1])
    assert set(batch) == set(OUTPUTS)
    for row, key in enumerate(["0-4-0", "0-1-1", "0-4-1"]):
        stored = reader.rows[key]
        assert batch["verb_roi"][row].tolist() == stored["verb_roi"].tolist()
        assert batch["object_mask"][row].tolist() == (stored["object_mask"] == 1).tolist()
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        **dict.fromkeys(OUTPUTS, torch.float32),
        "object_mask": torch.bool,
    }
    assert batch["object_mask"].shape == (3, N)


def test_resident_and_read_per_batch_give_the_same() -> None:
    reader, samples = make_data(9, views=3)
    resident = FeatureTable(reader, samples, outputs=OUTPUTS)
    assert resident.resident
    assert reader.num_reads == 1
    lazy = FeatureTable(reader, samples, outputs=OUTPUTS, resident_mib=0)
    assert not lazy.resident
    indices, views = [8, 0, 3, 3], [2, 0, 1, 1]
    expected, actual = resident.batch(indices, views), lazy.batch(indices, views)
    assert reader.num_reads == 2
    assert all(torch.equal(expected[name], actual[name]) for name in OUTPUTS)


def test_rows_are_held_up_to_the_cap_exactly() -> None:
    reader, samples = make_data(3, views=2)
    cap = 6 * ROW_NBYTES / 2**20
    assert FeatureTable(reader, samples, outputs=OUTPUTS, resident_mib=cap).resident
    less = np.nextafter(cap, 0)
    assert not FeatureTable(reader, samples, outputs=OUTPUTS, resident_mib=less).resident


def test_a_row_of_two_segments_is_held_once() -> None:
    reader, samples = make_data(1)
    twin = Sample("twin", samples[0].row_keys, verb=1, noun=2)
    cap = ROW_NBYTES / 2**20
    table = FeatureTable(reader, [*samples, twin], outputs=OUTPUTS, resident_mib=cap)
    assert table.resident
    gaps = table.batch([0, 1], [0, 0])["verb_gap"]
    assert torch.equal(gaps[0], gaps[1])


@pytest.mark.parametrize("resident_mib", [4096, 0])
def test_selected_outputs_are_those_of_the_table_and_no_other_copy(resident_mib: int) -> None:
    reader, samples = make_data(4, views=2)
    whole = FeatureTable(reader, samples, outputs=OUTPUTS, resident_mib=resident_mib)
    reads = reader.num_reads
    selected = whole.select(("noun_gap", "verb_gap"))
    assert (reader.num_reads, selected.resident) == (reads, resident_mib > 0)
    alone = FeatureTable(reader, samples, outputs=("noun_gap", "verb_gap"))
    expected, actual = alone.batch([3, 1], [0, 1]), selected.batch([3, 1], [0, 1])
    assert list(actual) == ["noun_gap", "verb_gap"]
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert selected.fingerprint() == alone.fingerprint()
    assert set(whole.batch([0], [0])) == set(OUTPUTS)
    with pytest.raises(ValueError, match=r"got outputs \['verb_roi'\], expected"):
        selected.select(["verb_roi"])


def test_resident_memory_is_shared_by_selections() -> None:
    reader, samples = make_data(1)
    whole = FeatureTable(reader, samples, outputs=OUTPUTS)
    selected = whole.select(["verb_gap"])
    assert whole._rows is not None
    whole._rows["verb_gap"][0, 0] = 7
    assert selected.batch([0], [0])["verb_gap"][0, 0] == 7


def test_batches_do_not_share_memory_with_the_table() -> None:
    reader, samples = make_data(2)
    table = FeatureTable(reader, samples, outputs=("object_boxes_xyxy_px",))
    first = table.batch([0, 1], [0, 0])["object_boxes_xyxy_px"]
    before = first.clone()
    first.zero_()
    assert torch.equal(table.batch([0, 1], [0, 0])["object_boxes_xyxy_px"], before)


def test_labels_and_ids_follow_the_indices() -> None:
    reader, samples = make_data(5)
    table = FeatureTable(reader, samples, outputs=OUTPUTS)
    labels = table.labels([3, 0])
    assert labels["verb"].tolist() == [samples[3].verb, samples[0].verb]
    assert labels["noun"].tolist() == [samples[3].noun, samples[0].noun]
    assert labels["verb"].dtype == labels["noun"].dtype == torch.int64
    assert table.segment_ids([3, 0]) == ["s3", "s0"]
    assert len(table) == 5


def test_views_are_drawn_evenly_among_those_a_segment_has() -> None:
    reader, samples = make_data(2, views=3)
    samples[1] = Sample("single", samples[1].row_keys[:1], 0, 0)
    table = FeatureTable(reader, samples, outputs=OUTPUTS)
    generator = np.random.default_rng(0)
    drawn = np.stack([table.draw_views(generator) for _ in range(600)])
    assert (drawn[:, 1] == 0).all()
    assert (np.bincount(drawn[:, 0], minlength=3) > 150).all()
    again = np.random.default_rng(0)
    assert (drawn[0] == table.draw_views(again)).all()


@pytest.mark.parametrize("view", [2, -1])
def test_views_that_a_segment_does_not_have_are_refused(view: int) -> None:
    """The rows of the next segment lie behind those of this one."""
    reader, samples = make_data(3, views=2)
    table = FeatureTable(reader, samples, outputs=OUTPUTS)
    with pytest.raises(IndexError, match=rf"got views \[0, {view}\], expected 0 to those"):
        table.batch([0, 1], [0, view])


def test_missing_rows_are_counted_before_anything_is_read() -> None:
    reader, samples = make_data(2)
    absent = Sample("absent", ("gone", "lost"), 0, 0)
    with pytest.raises(LookupError, match=r"got 4 rows .* lacks 2 \(the first: gone\); extract"):
        FeatureTable(reader, [*samples, absent], outputs=OUTPUTS)
    assert reader.num_reads == 0


def test_unusable_samples_are_refused() -> None:
    reader, samples = make_data(2)
    with pytest.raises(ValueError, match="got no samples"):
        FeatureTable(reader, [], outputs=OUTPUTS)
    with pytest.raises(ValueError, match="got segment 's0' twice"):
        FeatureTable(reader, [samples[0], samples[0]], outputs=OUTPUTS)
    with pytest.raises(ValueError, match="got no rows for segment 'x'"):
        FeatureTable(reader, [Sample("x", (), 0, 0)], outputs=OUTPUTS)
    with pytest.raises(ValueError, match=r"got outputs \['map'\], expected some of \['noun_gap'"):
        FeatureTable(reader, samples, outputs=("map", "verb_gap"))


@pytest.mark.parametrize(
    ("verb", "noun", "message"),
    [
        (NUM_VERBS, 0, "got verb class 4 for segment 'x', expected 0 to 3"),
        (0, NUM_NOUNS, "got noun class 7 for segment 'x', expected 0 to 6"),
        (-1, 0, "got verb class -1 for segment 'x'"),
    ],
)
def test_labels_outside_the_classes_are_named(verb: int, noun: int, message: str) -> None:
    reader, samples = make_data(2)
    table = FeatureTable(
        reader, [samples[0], Sample("x", samples[1].row_keys, verb, noun)], outputs=OUTPUTS
    )
    with pytest.raises(ValueError, match=message):
        table.check_labels(NUM_VERBS, NUM_NOUNS)


def test_fingerprint_tells_tables_apart() -> None:
    reader, samples = make_data(2, views=2)

    def fingerprint(*chosen: Sample, outputs: tuple[str, ...] = OUTPUTS) -> str:
        return FeatureTable(FakeReader(reader.rows, SPECS), chosen, outputs=outputs).fingerprint()

    first, second = samples
    changed = Sample(first.segment_id, first.row_keys, first.verb + 1, first.noun)
    fewer_views = Sample(first.segment_id, first.row_keys[:1], first.verb, first.noun)
    assert fingerprint(first, second) == fingerprint(*samples)
    different = {
        fingerprint(first, second),
        fingerprint(second, first),
        fingerprint(first),
        fingerprint(changed, second),
        fingerprint(fewer_views, second),
        fingerprint(first, second, outputs=OUTPUTS[:2]),
    }
    assert len(different) == 6
