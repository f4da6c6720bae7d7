"""Table I, as Markdown, LaTeX (booktabs) and CSV."""

import json
import math
from pathlib import Path

import pandas as pd

from common.files import write_text
from common.losses import WITH_LABELS
from common.report import builds, latex, naming
from common.report.markdown import Table
from common.report.results import Results, of, paper_curve
from common.report.statistics import interval
from common.report.style import percent as percent_text
from common.runs import OTHER
from common.schema import BEFORE

DAGGER = "† distilled from a teacher that saw every label, or some that its student did not buy."
NONE = " (its teacher's: the student itself learned no label)"


def cells(found: Results) -> pd.DataFrame:
    """A row for each cell of Table I: model, dataset, label, percent, mean, half_width, n, paper, difference."""
    table = []
    for setting in found.settings():
        rows = found.of(setting)
        labels = rows["label"].astype(pd.CategoricalDtype(rows["label"].unique()))  # in this order, percents ascending
        for (label, percent), cell in rows.groupby([labels, "percent"], observed=True):
            mean, half_width = interval(cell["test_accuracy"])
            theirs = paper_curve(found, setting, label).get(percent)
            table.append((*setting, label, percent, mean, half_width, len(cell), theirs))
    columns = ["model", "dataset", "label", "percent", "mean", "half_width", "n", "paper"]
    table = pd.DataFrame(table, columns=columns).astype({"paper": float})
    return table.assign(difference=table["mean"] - table["paper"])


def table1(found: Results, table: pd.DataFrame) -> list[Table]:
    """Table I from its `cells`, one per setting: mean ± 95% interval (n) [the paper's, the difference]."""
    parts = []
    for setting in found.settings():
        percents, labels, grid = _grid(table, setting)
        head = [f"{setting[0]}, {setting[1]}: test accuracy, %", *map(percent_text, percents)]
        rows = [[label, *(_markdown(grid.get((label, percent))) for percent in percents)] for label in labels]
        parts.append(Table("", head, rows))
    return parts


def notes1(found: Results, table: pd.DataFrame) -> list[str]:
    """The notes below Table I."""
    notes = ["mean ± half its 95% interval over n seeds (none for n < 3) [the paper's number, ours less the paper's]"]
    notes += [DAGGER] if table["label"].str.endswith("†").any() else []
    return notes + other_flags(found) + labels_counted(found)


def other_flags(found: Results) -> list[str]:
    """The flags in which a row's cells differ from percent to percent; those within a cell are alike."""
    lines = []
    for setting in found.settings():
        for label, row in found.of(setting).groupby("label", sort=False):
            own = row["own"].all()
            runs = row.drop_duplicates("percent").set_index("percent")["run"].sort_index()
            known = {percent: found.configs[run] for percent, run in runs.items() if found.configs[run]}
            said = naming.texts({percent: naming.shared(BEFORE | config, own) for percent, config in known.items()})
            sizes = len(set(said.get("image_size", {}).values()))  # test_data has the size, too
            for name in sorted(said.keys() & OTHER.keys()):
                if len(set(said[name].values())) > 1 and (name != "test_data" or sizes < 2):
                    at = " ".join(map(percent_text, said[name]))
                    lines.append(f"- {' on '.join(setting)}, {label}: {OTHER[name]}, from percent to percent of {at}")
            for name in sorted(said.keys() - OTHER.keys()):
                at: dict[str, list[str]] = {}
                for percent, value in said[name].items():
                    at.setdefault(value, []).append(percent_text(percent))
                if len(at) > 1:
                    parts = [f"{_value(text)} at {' '.join(percents)}" for text, percents in at.items()]
                    lines.append(f"- {' on '.join(setting)}, {label}: --{name} {', '.join(parts)}")
    head = "Flags that differ along a row; its curve, and its area where that goes over them, join several settings:"
    return ["\n".join([head, *lines])] if lines else []


def _value(text: str) -> str:
    """A flag's value, from JSON, as on a command line."""
    value = json.loads(text)
    return f"{value:g}" if isinstance(value, float) else str(value)


def labels_counted(found: Results) -> list[str]:
    """The number of labels behind each cell, teacher and validation included; empty if no run has a record."""
    if "labels_in_all" not in found.rows:
        return []
    lines = []
    for setting in found.settings():
        for label, row in found.of(setting).groupby("label", sort=False):
            counts = ", ".join(_counted(cell) for _, cell in row.groupby("percent")["labels_in_all"])
            lines.append(f"{' on '.join(setting)}, {label}: {counts}{NONE if _learned_none(row).all() else ''}")
    head = "Labels that any network of a cell saw, each counted once, the teacher's and those that chose an epoch too:"
    return ["\n".join([head, *(f"- {line}" for line in lines)])]


def _learned_none(rows: pd.DataFrame) -> pd.Series:
    """Are these rows' networks students that saw labels only through their teacher?"""
    labels = rows["logit_loss"].isin(WITH_LABELS) & (rows["distill_on"] != "pool")  # whose batches have no labels
    return (pd.to_numeric(rows["ce_wt"], errors="coerce") == 0) & ~labels


def _counted(cell: pd.Series) -> str:
    """The labels behind one cell; the fewest and the most if seeds differ, as when each draws its own images."""
    if not all(str(count).isdigit() for count in cell):
        return "unknown"
    counts = sorted({int(count) for count in cell})
    return f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")


def write_table1(found: Results, output: Path) -> list[Path]:
    """Writes table1.md, table1.tex and table1.csv: mean ± 95% interval (n), the paper's number, the difference.

    The first two end with the runs' builds.
    """
    table = cells(found)
    footnote = builds.footnote(found.rows, found.made)
    texts = [line for part in table1(found, table) for line in part.markdown()]
    tex = [latex.table(found, setting, *_grid(table, setting)) for setting in found.settings()]
    tex.append("\n".join(f"% {line}" for line in footnote))
    files = [output / "table1.md", output / "table1.tex", output / "table1.csv"]
    write_text(files[0], "\n\n".join([*texts, *notes1(found, table), "\n".join(footnote)]) + "\n")
    write_text(files[1], "\n\n".join(tex) + "\n")
    write_text(files[2], table.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    return files


def _grid(table: pd.DataFrame, setting: tuple[str, str]) -> tuple[list[float], list[str], dict]:
    """Percents, labels and cells by (label, percent) of one setting."""
    part = of(table, setting)
    grid = {(row.label, row.percent): row for row in part.itertuples()}
    return sorted(part["percent"].unique()), list(dict.fromkeys(part["label"])), grid


def plain(mean: float, half_width: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f}" + ("" if math.isnan(half_width) else f" ± {half_width:.2f}")


def _markdown(cell) -> str:
    if cell is None:
        return ""
    text = f"{plain(cell.mean, cell.half_width)} (n={cell.n})"
    return text if math.isnan(cell.paper) else f"{text} [{cell.paper:.2f}, {cell.difference:+.2f}]"
