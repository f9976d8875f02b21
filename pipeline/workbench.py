"""What a worker has in front of it: networks, built once, and what it needs to do units of work.

Every way of running ends here. A worker writes shard files and nothing else; what it yields is for
whoever may commit it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from extractors.base import ClipExtractor, FrameExtractor
from extractors.heap import Heap
from pipeline.decode_limits import DecodeLimits
from pipeline.decoder import Decoder, create_decoder, default_processes, usable_cores
from pipeline.errors import ConfigError
from pipeline.generations import create_network
from pipeline.identity import has_sha256
from pipeline.patience import Patience
from pipeline.stage_work import StageWork
from pipeline.stages import VideoStage
from pipeline.unit import UnitWork, run_units
from pipeline.work import Finished, Progress, Unit
from stores.base import ShardWriter

__all__ = ["Setup", "Workbench", "check_weights", "replaced_weights"]


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to know; can be pickled.

    Attributes:
        stages: those with work, by name.
        writers: of the stages' generations, by name.
        rows_per_shard: of full shards, by stage.
        weights: file → sha256 of the content that the stages' keys stand for.
        device: where the networks run.
        cores: CPU cores the worker may use; None is all of the process.
        cpu_threads: of networks on a CPU; None is one for each core.
        decode_processes: None is one beside a network on the CPU, else one for each core but one.
        decode_limits: of each decode process.
        commit_seconds, storage_seconds: see ``engine`` in the config.
    """

    stages: Mapping[str, VideoStage]
    writers: Mapping[str, ShardWriter]
    rows_per_shard: Mapping[str, int]
    weights: Mapping[Path, str]
    device: str
    cores: int | None
    cpu_threads: int | None
    decode_processes: int | None
    decode_limits: DecodeLimits
    commit_seconds: float
    storage_seconds: float


class Workbench:
    """A worker's networks and decode processes.

    Args:
        setup: what to build.

    Raises:
        ConfigError: weights do not fit, cannot be read, or are not those that were planned with.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._decoder = _create_decoder(setup)  # a process starts while networks are built
        try:
            self._networks = self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the decode processes."""
        self._decoder.close()

    def _build(self) -> dict[str, ClipExtractor | FrameExtractor]:
        setup = self._setup
        threads = setup.cpu_threads or setup.cores
        if threads is not None:
            torch.set_num_threads(threads)
        networks = {
            name: create_network(stage, setup.device) for name, stage in setup.stages.items()
        }
        check_weights(setup.weights)  # after they were read: nobody exchanged them meanwhile
        return networks

    def run(
        self, units: Iterable[Unit | None], stop: threading.Event
    ) -> Iterator[Progress | Finished | None]:
        """Do units; see `run_units`. Once, as the decode processes end with it.

        Raises:
            OSError: a shard cannot be written.
        """
        on_cpu = all(network.device.type == "cpu" for network in self._networks.values())
        return run_units(
            units,
            self._begin,
            decoder=self._decoder,
            geometries={name: stage.decoded_geometry for name, stage in self._setup.stages.items()},
            heap=Heap() if on_cpu else None,
            stop=stop,
        )

    def _begin(self, unit: Unit) -> UnitWork:
        setup = self._setup
        works = {
            name: StageWork(
                stage,
                self._networks[name],
                setup.writers[name],
                rows_per_shard=setup.rows_per_shard[name],
                shard_numbers=unit.shards[name],
                commit_seconds=setup.commit_seconds,
                early_shards=unit.early_shards,
            )
            for name, stage in setup.stages.items()
            if name in unit.shards
        }
        return UnitWork(unit, works, Patience(setup.storage_seconds))


def _create_decoder(setup: Setup) -> Decoder:
    cores = setup.cores or usable_cores()
    processes = setup.decode_processes
    if processes is None:
        processes = default_processes(setup.device, cores)
    return create_decoder(
        processes,
        {name: stage.batch_nbytes for name, stage in setup.stages.items()},
        limits=setup.decode_limits,
        cores=cores,
    )


def check_weights(weights: Mapping[Path, str]) -> None:
    """Refuse weights that are not those that rows are to be named after.

    Args:
        weights: file → expected sha256.

    Raises:
        ConfigError: a file is gone or has another content; names it.
    """
    for path in replaced_weights(weights):
        raise ConfigError(
            f"{path}: got other weights than when the run was planned, expected a file that "
            "stays as it is; what is finished is kept. Run again to extract with the new ones"
        )


def replaced_weights(weights: Mapping[Path, str]) -> list[Path]:
    """Files that are gone or whose content has another sha256 than expected; reads all of them."""
    return [path for path, expected in weights.items() if not has_sha256(path, expected)]
