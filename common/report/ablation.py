"""`--ablation`: validation and test accuracy of each row side by side, and its training time."""

from pathlib import Path

import numpy as np
import pandas as pd

from common import reading
from common.files import write_text
from common.report.markdown import Table
from common.report.results import Results, of
from common.report.statistics import interval
from common.report.style import percent
from common.report.tables import plain

NOTE = ("Mean ± half its 95% interval over n seeds. Choose by validation: what was chosen by its test accuracy looks "
        "better than it is. Seconds: the mean training time of the row's own network at this percent, on the machine "
        "of its runs; a teacher's comes to it.")  # fmt: skip


def cells(found: Results) -> pd.DataFrame:
    """A line for each row and percent of the runs.

    Columns: model, dataset, label, percent, n, validation, validation_half_width, test, test_half_width, seconds;
    NaN if there is no interval or no record.
    Raises InputError when a timing.csv is damaged.
    """
    rows = found.rows[found.rows["own"]]
    rows = rows.merge(_seconds(rows), on=["run", "round"], how="left")
    rows["validation"] = pd.to_numeric(rows["val_accuracy"]) if "val_accuracy" in rows else np.nan
    lines = []
    for (model, dataset, label, at), cell in rows.groupby(["model", "dataset", "label", "percent"], sort=False):
        validation = (np.nan, np.nan) if cell["validation"].isna().any() else interval(cell["validation"])
        seconds = cell["train_seconds"].mean()
        lines.append((model, dataset, label, at, len(cell), *validation, *interval(cell["test_accuracy"]), seconds))
    accuracies = ["validation", "validation_half_width", "test", "test_half_width"]
    return pd.DataFrame(lines, columns=["model", "dataset", "label", "percent", "n", *accuracies, "seconds"])


def tables(found: Results, lines: pd.DataFrame) -> list[Table]:
    """The `cells` for a reader: a table for each setting, fewest labels first."""

    def known(value: float, text: str) -> str:
        return "" if np.isnan(value) else text

    parts = []
    for setting in found.settings():
        part = of(lines, setting).sort_values("percent", kind="stable")
        head = [", ".join(setting), "labels", "n", "validation, %", "test, %", "seconds"]
        rows = []
        for row in part.itertuples():
            validation = known(row.validation, plain(row.validation, row.validation_half_width))
            test, seconds = plain(row.test, row.test_half_width), known(row.seconds, f"{row.seconds:.0f}")
            rows.append([row.label, percent(row.percent), str(row.n), validation, test, seconds])
        parts.append(Table("", head, rows, [NOTE]))
    return parts


def write(found: Results, output: Path) -> tuple[list[Table], list[Path]]:
    """Writes ablation.md and ablation.csv; returns the tables and these files."""
    lines = cells(found)
    parts, files = tables(found, lines), [output / "ablation.md", output / "ablation.csv"]
    write_text(files[0], "\n\n".join(line for part in parts for line in part.markdown()) + "\n")
    write_text(files[1], lines.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    return parts, files


def _seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns run, round and train_seconds, for the runs that have a timing.csv."""
    counts = rows["run"].value_counts(sort=False)
    found = [reading.details(Path(run), "timing", count).assign(run=run) for run, count in counts.items()]
    return pd.concat(found, ignore_index=True)[["run", "round", "train_seconds"]]
