"""Who may import whom, read from the sources: layers, adapters of libraries, an instant `cli`.

An import counts wherever it stands, inside a function or at the top. Imports for the type checker
alone (``if TYPE_CHECKING:``) are left out of the rules about what is loaded, not of the layers.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("cli", "pipeline", "extractors", "heads", "stores")

# Modules of ours that each package may import besides its own.
MAY_IMPORT = {
    "cli": ("pipeline",),
    "pipeline": ("extractors", "heads", "stores"),
    "extractors": (),
    "heads": ("stores.base",),
    "stores": (),
}
# Libraries that only these files may name; patterns are of paths from the root.
ADAPTERS = {
    "decord": ("extractors/decord_reader.py",),
    "av": ("extractors/pyav_*.py", "pipeline/toy_*.py"),
    "torchvision.models.detection": ("extractors/faster_rcnn.py",),
    "torchvision.models.video": ("extractors/torchvision_video.py",),
    "torchvision.models.optical_flow": ("extractors/flow_raft.py",),
    "cv2": ("extractors/flow_tvl1.py",),
    "detectron2": ("extractors/detectron2_*.py",),
    "submitit": ("pipeline/executor_slurm.py", "pipeline/slurm_task.py"),
    "zarr": ("stores/zarr_*.py",),
    "h5py": ("stores/hdf5_*.py",),
    "ray": ("pipeline/executor_ray.py", "pipeline/ray_*.py"),
}
FREE_OF_TORCH = ("stores",)
# What `symbio --help` loads: these modules, and at their top these libraries.
INSTANT = (
    "cli",
    "pipeline.cli_support",
    "pipeline.head_cli",
    "pipeline.run_cli",
    "pipeline.store_cli",
)
ONLY_AT_TOP_OF_INSTANT = {"click", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Import:
    """One imported name, ``from a import b`` being a.b, since b may be a module."""

    name: str
    line: int
    at_top: bool
    for_types: bool


def imports_of(source: str) -> list[Import]:
    """Every import of a module."""
    return list(_imports(ast.parse(source), at_top=True, for_types=False))


def _imports(node: ast.AST, *, at_top: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for name in _names(child):
                yield Import(name, child.lineno, at_top, for_types)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), at_top=at_top, for_types=True)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), at_top=at_top, for_types=for_types)
        else:
            # A class body runs when the module is imported; a function's does not.
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, at_top=at_top and not inside, for_types=for_types)


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    dots = "." * node.level
    return [f"{dots}{node.module or ''}.{alias.name}" for alias in node.names]


def _is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def violations(path: str, source: str) -> list[str]:
    """What a file imports and must not; ``path`` is from the root, such as ``heads/saoa.py``."""
    package = path.removesuffix(".py").split("/")[0]
    found = []
    for item in imports_of(source):
        reasons = [
            *_layer_reasons(package, item),
            *_adapter_reasons(path, item),
            *_torch_reasons(package, item),
            *_instant_reasons(path, item),
        ]
        found += [f"{path}:{item.line}: {item.name}: {reason}" for reason in reasons]
    return found


def _layer_reasons(package: str, item: Import) -> Iterator[str]:
    if item.name.startswith("."):
        yield "write absolute imports, so that layers can be read off"
        return
    owner = item.name.split(".")[0]
    allowed = any(_is_inside(item.name, name) for name in MAY_IMPORT[package])
    if owner in OURS and owner != package and not allowed:
        yield f"{package} may import {', '.join(MAY_IMPORT[package]) or 'nothing of ours'}"


def _adapter_reasons(path: str, item: Import) -> Iterator[str]:
    for library, files in ADAPTERS.items():
        if _is_inside(item.name, library) and not any(Path(path).match(f) for f in files):
            yield f"{library} belongs to {', '.join(files)}"


def _torch_reasons(package: str, item: Import) -> Iterator[str]:
    if package in FREE_OF_TORCH and item.name.split(".")[0].startswith("torch"):
        yield f"{package} knows no torch"


def _instant_reasons(path: str, item: Import) -> Iterator[str]:
    if not item.at_top or item.for_types:
        return
    if path == "pipeline/__init__.py":
        yield "it is loaded with every module of the pipeline, and some have to be instant"
    module = path.removesuffix(".py").replace("/", ".")
    ours = any(_is_inside(item.name, name) for name in INSTANT)
    if module in INSTANT and not ours and item.name.split(".")[0] not in ONLY_AT_TOP_OF_INSTANT:
        yield "import it inside the command: `symbio --help` is instant"


def _is_inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def sources() -> list[str]:
    """Every module of ours, as paths from the root."""
    packages = [name for name in OURS if name != "cli"]
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in (*files, ROOT / "cli.py"))


def test_all_packages_are_looked_at() -> None:
    assert {path.removesuffix(".py").split("/")[0] for path in sources()} == set(OURS)


@pytest.mark.parametrize("path", sources())
def test_rules_hold(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pipeline/run.py", "import cli"),
        ("pipeline/run.py", "from cli import main"),
        ("cli.py", "def run():\n    from stores.registry import open_store"),
        ("cli.py", "def run():\n    import extractors.video"),
        ("extractors/video.py", "from pipeline.errors import PipelineError"),
        ("extractors/video.py", "from stores.base import ArraySpec"),
        ("heads/table.py", "from stores.registry import open_store"),
        ("heads/table.py", "import stores"),
        ("heads/table.py", "from stores import open_store"),
        ("heads/table.py", "def f():\n    from extractors.roi import roi_align"),
        ("stores/base.py", "from heads.base import Head"),
        ("stores/base.py", "import torch"),
        ("stores/base.py", "def f():\n    from torch import Tensor"),
        ("stores/base.py", "import torchvision"),
        ("stores/base.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import heads"),
        ("stores/base.py", "from . import layout"),
        ("extractors/video.py", "import decord"),
        ("extractors/video.py", "def f():\n    from decord import VideoReader"),
        ("extractors/video.py", "import av.container"),
        ("pipeline/unit.py", "try:\n    import av\nexcept ImportError:\n    pass"),
        ("extractors/given_boxes.py", "from torchvision.models import detection"),
        ("extractors/roi.py", "from torchvision.models.detection import faster_rcnn"),
        ("extractors/i3d.py", "from torchvision.models import video"),
        ("extractors/faster_rcnn.py", "import detectron2"),
        ("stores/base.py", "import zarr"),
        ("pipeline/run.py", "def f():\n    import h5py"),
        ("pipeline/run.py", "def f():\n    import ray"),
        ("cli.py", "import yaml"),
        ("cli.py", "import torch"),
        ("cli.py", "from pipeline.run import run_experiment"),
        ("cli.py", "try:\n    import rich\nexcept ImportError:\n    rich = None"),
        ("cli.py", "class Lazy:\n    import numpy"),
        ("cli.py", "if TYPE_CHECKING:\n    import click\nelse:\n    import rich"),
        ("pipeline/store_cli.py", "import yaml"),
        ("pipeline/store_cli.py", "from pipeline.store_commands import verify_store"),
        ("pipeline/store_cli.py", "from stores.registry import open_store"),
        ("pipeline/cli_support.py", "from rich.console import Console"),
        ("pipeline/cli_support.py", "from pipeline.errors import PipelineError"),
        ("pipeline/__init__.py", "import os"),
    ],
)
def test_a_violation_is_seen(path: str, source: str) -> None:
    found = violations(path, source)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pipeline/run.py", "from stores.registry import open_store\nimport torch, extractors.roi"),
        ("heads/table.py", "from stores.base import FeatureReader\nimport heads.base, torch"),
        ("extractors/roi.py", "from extractors.base import OutputSpec\nimport torchvision.ops"),
        ("extractors/decord_reader.py", "def f():\n    import decord"),
        ("extractors/pyav_probe.py", "import av"),
        ("pipeline/toy_kitchen.py", "def f():\n    import av"),
        ("extractors/faster_rcnn.py", "from torchvision.models import detection"),
        ("stores/zarr_format.py", "import zarr"),
        ("pipeline/ray_cluster.py", "def f():\n    import ray"),
        ("cli.py", "import os\nimport click\nfrom click.shell_completion import ShellComplete"),
        ("cli.py", "from pipeline.cli_support import errors\nimport pipeline.store_cli"),
        ("pipeline/store_cli.py", "import click\nfrom pipeline.cli_support import errors"),
        ("pipeline/store_cli.py", "def f():\n    from stores.registry import open_store"),
        ("pipeline/cli_support.py", "if TYPE_CHECKING:\n    from rich.console import Console"),
        ("cli.py", "def run():\n    import rich\n    from pipeline.run import run_experiment"),
        ("cli.py", "if TYPE_CHECKING:\n    from rich.console import Console"),
        ("pipeline/average.py", "import avro"),
    ],
)
def test_what_is_allowed_is_let_through(path: str, source: str) -> None:
    assert violations(path, source) == []
