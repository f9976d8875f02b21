"""Settings of Slurm jobs: what is taken, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config_slurm import SlurmExecutorConfig


def make(**settings: Any) -> SlurmExecutorConfig:
    return SlurmExecutorConfig.model_validate({"name": "slurm", **settings})


def test_the_name_is_enough() -> None:
    config = make()
    assert (config.cluster, config.wait, config.gpus_per_task) == ("slurm", True, None)


def test_everything_may_be_said() -> None:
    config = make(
        tasks=4,
        max_running=2,
        partition="gpu",
        account="lab",
        qos="low",
        time_minutes=90,
        gpus_per_task=0,
        cpus_per_task=6,
        mem_gb=24,
        setup=["module load cuda", ". env/bin/activate"],
        extra={"constraint": "a100|h100", "exclusive": True, "nice": 100},
        grace_seconds=60,
        wait=False,
        cluster="local",
    )
    assert config.setup == ("module load cuda", ". env/bin/activate")
    assert config.extra == {"constraint": "a100|h100", "exclusive": True, "nice": 100}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": 0}, "greater than or equal to 1"),
        ({"partition": "a\nb"}, "match pattern"),
        ({"setup": ["echo a\necho b"]}, "match pattern"),
        ({"extra": {"nice": "1\n#SBATCH --uid=0"}}, "match pattern"),
        ({"extra": {"nice\n": 1}}, "expected the name of an option"),
        ({"extra": {"--nice": 1}}, "expected the name of an option"),
        ({"extra": {"time": 10}}, "set time_minutes instead"),
        ({"extra": {"gpus_per_node": 1}}, "set gpus_per_task instead"),
        ({"extra": {"output": "a"}}, "which is set by this program"),
        ({"time_minutes": 2, "grace_seconds": 120}, "less than time_minutes, which is 120 seconds"),
        ({"nodes": 2}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make(**settings)
