"""rows.csv: what each row of the arrays is, for people without this program.

Rewritten whole when the store is closed, at most once a minute while rows are committed, and
when the store is opened for writing after a crash left it behind.
"""

import csv
import dataclasses
import io

from stores.durable import replace_file
from stores.layout import GenerationLayout
from stores.manifest import Manifest
from stores.records import RowInfo

ROWS_FILE = "rows.csv"
HEADER = (
    "row",
    "row_key",
    *(field.name for field in dataclasses.fields(RowInfo)),
    "status",
)


def write_rows_csv(layout: GenerationLayout, manifest: Manifest) -> None:
    """Write one line per row in the order of the arrays, then one per failure.

    `row` is the index along the arrays' first axis, empty for failures; `status` is "ok" or
    the failure's error class and message.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(HEADER)
    for row in manifest.rows(layout.stage, layout.key):
        number = row.shard * layout.rows_per_shard + row.slot
        lines.writerow([number, row.row_key, *row.info.to_json(), "ok"])
    blank = [""] * (len(HEADER) - 5)
    for failure in manifest.failures(layout.stage, layout.key):
        status = f"failed: {failure.error_class}: {failure.message}"
        lines.writerow(["", failure.row_key, failure.clip_id, failure.video_id, *blank, status])
    replace_file(layout.path / ROWS_FILE, text.getvalue().encode(), durable=False)
