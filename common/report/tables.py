"""Table I, as Markdown, LaTeX (booktabs) and CSV."""

import math
from pathlib import Path

import pandas as pd

from common.files import write_text
from common.report import builds, markdown
from common.report.results import Results, paper_accuracy
from common.report.statistics import interval

DAGGER = "† distilled from a teacher that was trained on every label, whatever the percent the student has."


def cells(found: Results) -> pd.DataFrame:
    """A row for each cell of Table I: model, dataset, label, percent, mean, half_width, n, paper, difference."""
    table = []
    for setting in found.settings():
        rows = found.of(setting)
        labels = rows["label"].astype(pd.CategoricalDtype(rows["label"].unique()))  # in this order, percents rising
        for (label, percent), cell in rows.groupby([labels, "percent"], observed=True):
            mean, half_width = interval(cell["test_accuracy"])
            theirs = paper_accuracy(found, setting, cell.iloc[0])
            difference = None if theirs is None else mean - theirs
            table.append((*setting, label, percent, mean, half_width, len(cell), theirs, difference))
    columns = ["model", "dataset", "label", "percent", "mean", "half_width", "n", "paper", "difference"]
    return pd.DataFrame(table, columns=columns).astype({"paper": float, "difference": float})


def write_table1(found: Results, output: Path) -> list[Path]:
    """table1.md, table1.tex and table1.csv: mean ± 95% interval (n), the paper's number, the difference.

    The first two end with what the runs were made with.
    """
    table = cells(found)
    texts, latex = [], []
    for setting in found.settings():
        part = table[(table["model"] == setting[0]) & (table["dataset"] == setting[1])]
        percents = sorted(part["percent"].unique())
        labels = list(dict.fromkeys(part["label"]))
        grid = {(row.label, row.percent): row for row in part.itertuples()}
        lines = [[f"{setting[0]}, {setting[1]}: test accuracy, %", *(f"{percent:.3g}%" for percent in percents)]]
        lines += [[label, *(_markdown(grid.get((label, percent))) for percent in percents)] for label in labels]
        texts.append(markdown.table(lines))
        latex.append(_latex_table(setting, percents, labels, grid))
    notes = ["mean ± half its 95% interval over n seeds (no ± for one) [the paper's number, ours less the paper's]"]
    if table["label"].str.endswith("†").any():
        notes.append(DAGGER)
    footnote = builds.footnote(found.rows, found.made)
    notes.append("\n".join(footnote))
    latex.append("\n".join(f"% {line}" for line in footnote))
    files = [output / "table1.md", output / "table1.tex", output / "table1.csv"]
    write_text(files[0], "\n\n".join([*texts, *notes]) + "\n")
    write_text(files[1], "\n\n".join(latex) + "\n")
    write_text(files[2], table.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    return files


def plain(mean: float, half_width: float) -> str:
    return f"{mean:.2f}" + ("" if math.isnan(half_width) else f" ± {half_width:.2f}")


def _markdown(cell) -> str:
    if cell is None:
        return ""
    text = f"{plain(cell.mean, cell.half_width)} (n={cell.n})"
    return text if math.isnan(cell.paper) else f"{text} [{cell.paper:.2f}, {cell.difference:+.2f}]"


def _latex_table(setting: tuple[str, str], percents: list[float], labels: list[str], grid: dict) -> str:
    """A booktabs table: the mean with its interval, below it the paper's number where there is one."""
    lines = [f"% {setting[0]} on {setting[1]}; needs \\usepackage{{booktabs}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * len(percents)}}}", "\\toprule"]
    lines += [" & ".join(["labels", *(f"{percent:.3g}\\%" for percent in percents)]) + " \\\\", "\\midrule"]
    for label in labels:
        row = [grid.get((label, percent)) for percent in percents]
        name = label.replace("_", "\\_").replace("†", "$^\\dagger$")
        lines.append(" & ".join([name, *(_latex(cell) for cell in row)]) + " \\\\")
        if any(cell is not None and not math.isnan(cell.paper) for cell in row):
            theirs = ["" if cell is None or math.isnan(cell.paper) else f"{cell.paper:.2f}" for cell in row]
            lines.append(" & ".join(["\\quad paper", *theirs]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _latex(cell) -> str:
    if cell is None:
        return ""
    return f"${cell.mean:.2f}" + ("$" if math.isnan(cell.half_width) else f" \\pm {cell.half_width:.2f}$")
