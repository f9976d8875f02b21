from __future__ import annotations

import json
import re

import pytest
from test_pipeline_config_file import SMALL, errors_of

from pipeline.config_executor import LocalExecutorConfig, RayExecutorConfig
from pipeline.config_file import parse_config
from pipeline.config_ray import host_and_port
from pipeline.errors import ConfigError


def replaced(old: str, new: str) -> str:
    assert SMALL.count(old) == 1
    return SMALL.replace(old, new)


def test_an_unknown_key_lists_the_allowed_ones_and_suggests_a_close_one() -> None:
    assert errors_of(replaced("  path:", "  shard_mb: 3\n  path:")) == [
        "small.yaml:3: store.shard_mb: unknown key; allowed here: compression, format, path, "
        "shard_mib, stages; did you mean shard_mib?"
    ]


def test_nothing_is_suggested_where_nothing_is_close() -> None:
    (message,) = errors_of(SMALL + "zzz: 3\n")
    assert message == (
        "small.yaml:26: zzz: unknown key; allowed here: data, device, engine, evaluate, executor, "
        "finetune, head, name, runs, stages, store, train, views"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  kind: csv",
            "  kind: csv\n  verb: 3",
            "small.yaml:6: data.verb: unknown key; allowed here: annotations, flow, kind, nouns, "
            "only, verbs, videos; did you mean verbs?",
        ),
        (
            "    root: videos",
            "    root: videos\n    patern: x",
            "small.yaml:9: data.videos.patern: unknown key; allowed here: frame_rate_fps, kind, "
            "pattern, reader, root, truncated; did you mean pattern?",
        ),
        (
            "    root: videos",
            "    root: 3",
            "small.yaml:8: data.videos.root: got 3; expected a path",
        ),
        (
            "  annotations: labels.csv",
            "  only: {video_ids: [a, 3.5]}\n  annotations: labels.csv",
            "small.yaml:6: data.only.video_ids: got 3.5; expected a valid string",
        ),
        ("  kind: csv\n", "", "small.yaml:4: data.kind: this key is required and absent; expected "
         "one of 'epic55', 'epic100', 'egtea', 'csv', 'toy_kitchen'"),
        ("kind: csv", "kind: cvs", "small.yaml:5: data.kind: got 'cvs'; expected one of 'epic55', "
         "'epic100', 'egtea', 'csv', 'toy_kitchen'"),
        ("kind: csv", "kind: 3", "small.yaml:5: data.kind: got '3'; expected one of 'epic55', "
         "'epic100', 'egtea', 'csv', 'toy_kitchen'"),
        ("verbs: 3", "verbs: 0", "small.yaml:9: data.verbs: got 0; expected greater than or equal "
         "to 1 or a list"),
        ("verbs: 3", "verbs: []", "small.yaml:9: data.verbs: got []; expected a valid integer"),
        ("  annotations: labels.csv\n", "", "small.yaml:4: data.annotations: this key is required "
         "and absent"),
    ],
)  # fmt: skip
def test_the_tag_of_a_kind_of_data_is_not_in_the_key(old: str, new: str, message: str) -> None:
    assert errors_of(replaced(old, new)) == [message]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{name: rai}", "executor.name: got 'rai'; expected one of 'slurm', 'ray', "
         "'local'"),
        ("{name: 3}", "executor.name: got '3'; expected one of 'slurm', 'ray', "
         "'local'"),
        ("3", "executor: got 3; expected a section of keys and values"),
        ("{workers: -1}", "executor.workers: got -1; expected greater than or equal to 0"),
        ("{name: ray, workers: 0}", "executor.workers: got 0; expected greater than or equal to 1"),
        ("{name: ray, adress: auto}", "executor.adress: unknown key; allowed here: address, "
         "cpus_per_worker, gpus_per_worker, memory_gb, name, worker_stall_seconds, workers; did "
         "you mean address?"),
        ("{address: auto}", "executor.address: unknown key; allowed here: name, "
         "worker_stall_seconds, workers"),
        ("{name: ray, gpus_per_worker: 1.5}", "executor.gpus_per_worker: got 1.5; expected a "
         "fraction of a GPU below 1, or a whole number of GPUs"),
    ],
)  # fmt: skip
def test_the_executors_name_says_which_keys_it_has(section: str, message: str) -> None:
    assert errors_of(SMALL + f"executor: {section}\n") == [f"small.yaml:26: {message}"]


@pytest.mark.parametrize(
    "address",
    [
        *["head", "head:", ":6379", "head:port", "head:6379/", "ray://", "ray://head:1/a"],
        *["head:0", "head:65536", "head:\u0661", "http://head:1", "a b:1", "", "AUTO"],
    ],
)
def test_an_address_of_a_cluster_has_a_port(address: str) -> None:
    section = f"{{name: ray, address: {json.dumps(address)}}}"
    assert errors_of(SMALL + f"executor: {section}\n") == [
        f"small.yaml:26: executor.address: got {address!r}; expected auto, host:port or "
        "ray://host:port; null starts a cluster on this machine"
    ]


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        *[("head:6379", "head", 6379), ("ray://head", "head", 10001)],
        *[("ray://head:1", "head", 1), ("[::1]:65535", "::1", 65535)],
    ],
)
def test_addresses_of_clusters_are_taken(address: str, host: str, port: int) -> None:
    section = RayExecutorConfig(name="ray", address=address)
    assert section.address == address
    assert host_and_port(address) == (host, port)
    assert RayExecutorConfig(name="ray", address="auto").address == "auto"


@pytest.mark.parametrize("gpus", ["0", "0.25", "1", "2", "2.0"])
def test_gpus_of_a_worker_are_fractions_or_whole(gpus: str) -> None:
    section = f"{{name: ray, gpus_per_worker: {gpus}}}"
    config = parse_config(SMALL + f"executor: {section}\n", [], source="small.yaml")
    assert isinstance(config.executor, RayExecutorConfig)
    assert config.executor.gpus_per_worker == float(gpus)


def test_an_executor_without_a_name_is_this_machine() -> None:
    config = parse_config(SMALL + "executor: {workers: 3}\n", [], source="small.yaml")
    assert config.executor == LocalExecutorConfig(workers=3)


def test_allowed_keys_are_those_of_the_kind_chosen() -> None:
    text = re.sub(r"data:\n(  .*\n)+", "data: {kind: toy_kitchen, folder: toy, sed: 3}\n", SMALL)
    assert errors_of(text) == [
        "small.yaml:4: data.sed: unknown key; allowed here: folder, kind, seed, train_segments, "
        "val_segments; did you mean seed?"
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: small", "name: 3", "small.yaml:1: name: got 3; expected a valid string"),
        ("name: small", "name: a/b", "small.yaml:1: name: got 'a/b'; string should match pattern"),
        ("weights_seed: 0", "weights_seed: '0'", "small.yaml:18: stages.noun.weights_seed: got "
         "'0'; expected a valid integer"),
        ("weights_seed: 0", "weights_seed: true", "small.yaml:18: stages.noun.weights_seed: got "
         "True; expected a valid integer"),
        ("weights_seed: 0", "weights_seed: 1.0", "small.yaml:18: stages.noun.weights_seed: got "
         "1.0; expected a valid integer"),
        ("weights_seed: 0", "weights_seed: -1", "small.yaml:18: stages.noun.weights_seed: got "
         "-1; expected greater than or equal to 0"),
        ("weights: verb.safetensors", "weights: 3", "small.yaml:14: stages.verb.weights: got 3; "
         "expected 'random' or a path"),
        ("    weights: verb.safetensors\n", "", "small.yaml:12: stages.verb.weights: this key is "
         "required and absent"),
        ("{name: faster_rcnn}", "3", "small.yaml:20: stages.objects.detector: got 3; expected a "
         "section of keys and values"),
        ("{name: faster_rcnn}", "{depth: 3}", "small.yaml:20: stages.objects.detector.name: this "
         "key is required and absent"),
        ("{name: faster_rcnn}", "{name: a, 3: 4}", "small.yaml:20: stages.objects.detector.3: got "
         "3; expected a key that is text"),
        ("{name: faster_rcnn}", "{name: '" + "x" * 500 + "', 3: 4}", "small.yaml:20: "),
        ("store:\n  path: stores/small", "store:", "small.yaml:2: store: got None; expected a "
         "section of keys and values"),
    ],
)  # fmt: skip
def test_wrong_values(old: str, new: str, message: str) -> None:
    (got,) = errors_of(replaced(old, new))
    assert got.startswith(message)
    assert len(got) < 200


@pytest.mark.parametrize("value", ["'1'", "true", "[1]", ".inf", ".nan", "0", "-1", "1e999"])
def test_a_rate_is_a_positive_finite_number(value: str) -> None:
    (message,) = errors_of(SMALL + f"train: {{learning_rate: {value}}}\n")
    assert message.startswith("small.yaml:26: train.learning_rate: got ")
    assert "; expected " in message or "; input should be" in message


def test_a_whole_number_will_do_for_a_float() -> None:
    config = parse_config(SMALL + "train: {learning_rate: 1}\n", source="small.yaml")
    assert config.train.learning_rate == 1.0
    assert type(config.train.learning_rate) is float


def test_all_errors_come_at_once() -> None:
    text = replaced("verbs: 3", "verb: 3").replace("name: small", "name: 7") + "trian: {}\n"
    assert errors_of(text) == [
        "small.yaml:1: name: got 7; expected a valid string",
        "small.yaml:4: data.verbs: this key is required and absent",
        "small.yaml:9: data.verb: unknown key; allowed here: annotations, flow, kind, nouns, "
        "only, verbs, videos; did you mean verbs?",
        "small.yaml:26: trian: unknown key; allowed here: data, device, engine, evaluate, "
        "executor, finetune, head, name, runs, stages, store, train, views; did you mean train?",
    ]


def test_long_values_are_cut() -> None:
    (message,) = errors_of(replaced("verbs: 3", "verbs: " + "x" * 10_000))
    assert len(message) < 300


def test_nothing_of_the_checker_shows() -> None:
    texts = [
        SMALL.replace("videos:\n    root: videos", "videos: 3"),
        SMALL.replace("stages:", "stages: 3\nrest:"),
        SMALL.replace("data:", "data: 3\nrest:"),
        SMALL.replace("verbs: 3", "verbs: {a: 1}"),
    ]
    for text in texts:
        with pytest.raises(ConfigError) as caught:
            parse_config(text, source="small.yaml")
        shown = str(caught.value)
        for word in ("csv.", "constrained", "Config", "dictionary", "instance", "tuple", "<class"):
            assert word not in shown, shown


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("5", ": got 5; expected a path"),
        ("{store: kept, sage: objects}", ".sage: unknown key; allowed here: key, stage, store; "
         "did you mean stage?"),
        ("{stage: objects}", ".store: this key is required and absent"),
        ("{store: 3}", ".store: got 3; expected a path"),
        ("{store: kept, key: xy}", ".key: got 'xy'; string should match pattern "
         "'^[0-9a-f]{1,64}$'"),
    ],
)  # fmt: skip
def test_boxes_are_a_path_or_a_section(boxes: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(SMALL, [f"stages.objects.boxes={boxes}"], source="small.yaml")
    assert str(caught.value) == f"--set: stages.objects.boxes{message}"
