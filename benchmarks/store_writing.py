"""Writing all rows with all commits, beside one file of the same bytes with one fsync."""

from collections.abc import Callable
from statistics import median

from figures import Figures
from store_cases import (
    KEY,
    STAGE,
    VARIANTS,
    Effort,
    Material,
    Task,
    Variant,
    median_ratio,
    take_turns,
    write_raw,
    write_store,
)


def bench_writing(figures: Figures, effort: Effort, material: Material) -> None:
    """Write every variant in turns; the stores and the raw file of the last round stay."""

    def write_variant(variant: Variant) -> Task:
        rows = material.rows_for(variant, effort)
        return lambda: write_store(material, variant, rows) / len(rows)

    tasks: dict[str, Callable[[], float]] = {
        "raw": lambda: write_raw(material) / len(material.rows),
        **{variant.name: write_variant(variant) for variant in VARIANTS},
    }
    times = take_turns(effort.write_rounds, tasks)
    case, row_nbytes = material.case.name, material.row_nbytes
    figures.add(f"raw_{case}_write_speed", row_nbytes / median(times["raw"]) / 1e6, "MB/s")
    for variant in VARIANTS:
        name = f"{variant.name}_{case}"
        ratio = median_ratio(times["raw"], times[variant.name])
        target = (">=", 0.60) if variant.compression == "none" else None
        figures.add(f"{name}_write_ratio", ratio, "of_write_and_fsync", target)
        if variant.compression != "none":
            count = len(material.rows_for(variant, effort))
            figures.add(f"{name}_size_ratio", count * row_nbytes / _nbytes(material, variant), "x")


def _nbytes(material: Material, variant: Variant) -> int:
    with variant.open(material.folder) as store:
        return sum(i.nbytes for i in store.generations() if (i.stage, i.key) == (STAGE, KEY))
