from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config_data import CsvData
from pipeline.config_file import dump_config, load_config, parse_config
from pipeline.errors import ConfigError

SMALL = """\
name: small
store:
  path: stores/small
data:
  kind: csv
  annotations: labels.csv
  videos:
    root: videos
  verbs: 3
  nouns: [cup, pan]
stages:
  verb:
    network: {name: resnet3d, depth: 18}
    weights: verb.safetensors
  noun:
    network: {name: resnet3d}
    weights: random
    weights_seed: 0
  objects:
    detector: {name: faster_rcnn}
    weights: random
    weights_seed: 1
head:
  name: saoa
  gating: false
"""


def errors_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, source="small.yaml")
    return str(caught.value).splitlines()


def test_a_file_is_read_and_defaults_are_filled_in(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    config = load_config(file)
    assert config.name == "small"
    assert config.store.path == Path("stores/small")
    assert config.store.shard_mib == 32
    assert config.device == "cpu"
    assert config.stages.verb.network.options == {"depth": 18}
    assert config.stages.verb.checkpoint == Path("verb.safetensors")
    assert config.stages.noun.checkpoint is None
    assert config.stages.verb.clip.model_dump() == {"frames": 64, "stride": 2, "rate_fps": 60.0}
    assert config.head.options == {"gating": False}
    assert (config.train.epochs, config.train.batch_size) == (15, 32)
    assert config.data.kind == "csv"
    assert config.data.nouns == ("cup", "pan")


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_config(file).name == "small"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such experiment file"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("content", [b"name: \xff\xfe", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "odd.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"odd\.yaml: cannot be read"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "small.yaml: got nothing, expected keys and values"),
        ("- a\n- b\n", "small.yaml: got list, expected keys and values"),
        ("only words", "small.yaml: got str, expected keys and values"),
    ],
)
def test_a_file_without_keys_is_refused(text: str, message: str) -> None:
    assert errors_of(text) == [message]


def test_broken_yaml_names_the_line() -> None:
    (message,) = errors_of(SMALL.replace("nouns: [cup, pan]", "nouns: [cup, pan"))
    assert message.startswith("small.yaml:11: not valid YAML: ")


def test_a_key_given_twice_names_both_lines() -> None:
    (message,) = errors_of(SMALL + "name: other\n")
    assert message == (
        "small.yaml:26: got the key name twice in one section, first in line 1; "
        "remove one of the two"
    )


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("views.train=5", ("views", "train"), 5),  # creates the section
        ("finetune.verb.weights=a.pt", ("finetune", "verb", "weights"), Path("a.pt")),  # and two
        ("name=other", ("name",), "other"),
        ("train.learning_rate=1e-5", ("train", "learning_rate"), 1e-5),
        ("train.decay_epochs=[3, 5]", ("train", "decay_epochs"), (3, 5)),
        ("data.nouns=7", ("data", "nouns"), 7),
        ("data.verbs=[a, 'b=c']", ("data", "verbs"), ("a", "b=c")),
        ("head={name: sap}", ("head", "name"), "sap"),
        ("head.options=x=y", ("head", "model_extra"), {"gating": False, "options": "x=y"}),
        ("stages.verb.clip={frames: 32, stride: 4}", ("stages", "verb", "clip", "stride"), 4),
        ("data.videos.frame_rate_fps=", ("data", "videos", "frame_rate_fps"), None),
    ],
)
def test_overrides_win(override: str, keys: tuple[str, ...], value: Any) -> None:
    node: Any = parse_config(SMALL, [override], source="small.yaml")
    for key in keys:
        node = getattr(node, key)
    assert node == value
    assert type(node) is type(value)


def test_an_override_of_an_alias_changes_one_place_only() -> None:
    text = SMALL.replace("network: {name: resnet3d, depth: 18}", "network: &net {name: resnet3d}")
    text = text.replace("network: {name: resnet3d}", "network: *net")
    config = parse_config(text, ["stages.noun.network.depth=34"], source="small.yaml")
    assert config.stages.noun.network.options == {"depth": 34}
    assert config.stages.verb.network.options == {}


def test_later_overrides_win() -> None:
    overrides = ["views.train=5", "views={seed: 3}", "views.train=2"]
    config = parse_config(SMALL, overrides, source="small.yaml")
    assert (config.views.train, config.views.seed) == (2, 3)


def test_an_override_fills_an_empty_section() -> None:
    config = parse_config(SMALL + "train:\n", ["train.epochs=3"], source="small.yaml")
    assert config.train.epochs == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name", "--set name: expected key.path=value"),
        ("=3", "--set =3: expected key.path=value"),
        ("train..epochs=3", "--set train..epochs=3: expected key.path=value"),
        (".train=3", "--set .train=3: expected key.path=value"),
        ("train.=3", "--set train.=3: expected key.path=value"),
        ("name.first=3", "--set name.first=3: name is not a section"),
        ("data.nouns.first=3", "--set data.nouns.first=3: data.nouns is not a section"),
        ("name=[3", "--set name=[3: not valid YAML: "),
        ("store={path: a, path: b}", "--set store={path: a, path: b}: got the key path twice"),
    ],
)
def test_wrong_forms_of_overrides_are_refused(override: str, message: str) -> None:
    (got,) = errors_of(SMALL, override)
    assert got.startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("store.shard_mib=0", "--set: store.shard_mib: got 0; expected greater than"),
        ("store.path=3", "--set: store.path: got 3; expected a path"),
        ("store=3", "--set: store: got 3; expected a section of keys and values"),
        ("store={shard_mib: 3}", "--set: store.path: this key is required and absent"),
        ("data.videos.rooot=3", "--set: data.videos.rooot: unknown key"),
    ],
)
def test_errors_of_an_override_do_not_point_into_the_file(override: str, message: str) -> None:
    (got,) = errors_of(SMALL, override)
    assert got.startswith(message)


def test_an_override_is_not_blamed_for_the_file() -> None:
    text = SMALL.replace("verbs: 3", "verbs: no")
    assert errors_of(text, "data.nouns=2")[0].startswith("small.yaml:9: data.verbs: got False;")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["finetune.verb={weights: random, weights_seed: 0, scale_range_px: [230, 260]}"],
        ["data={kind: toy_kitchen, folder: toy}", "device=cuda:1"],
        ["data={kind: epic55, annotations: a, videos: {root: b, kind: frames, "
         "frame_rate_fps: epic}, only: {video_ids: [P01_01, '1e5', '07']}}"],
        ["head={name: saoa, rate: 1e-6, nested: {list: [1, null, 'no']}}"],
    ],
)  # fmt: skip
def test_a_dumped_config_is_read_back(overrides: list[str]) -> None:
    config = parse_config(SMALL, overrides, source="small.yaml")
    dumped = dump_config(config)
    assert parse_config(dumped, source="dumped") == config
    assert dump_config(parse_config(dumped, source="dumped")) == dumped


def test_a_dump_spells_out_every_default() -> None:
    dumped = dump_config(parse_config(SMALL, source="small.yaml"))
    assert "resident_mib: 8192\n" in dumped
    assert "    clip:\n      frames: 64\n      stride: 2\n      rate_fps: 60.0\n" in dumped
    assert "&" not in dumped


def test_a_pattern_is_text_without_quotes() -> None:
    override = "data.videos.pattern={participant_id}/{video_id}.MP4"
    config = parse_config(SMALL, [override], source="small.yaml")
    assert isinstance(config.data, CsvData)
    assert config.data.videos.pattern == "{participant_id}/{video_id}.MP4"
