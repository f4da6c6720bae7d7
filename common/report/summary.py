"""statistics.md, and the same tables for the page: areas, paired tests, label efficiency, penalties."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.files import write_text
from common.report import builds, naming, statistics
from common.report.markdown import Table
from common.report.results import Results
from common.report.style import percent

AREA = "Area under the budget curve divided by its width (mean accuracy over the budgets, %), with its 95% interval:"
TESTS = ("Paired t-tests of these areas over seeds, with Holm's correction; ± is half the difference's 95% interval, d "
         "the difference in its standard deviations. Blank where there are too few seeds or they do not vary. No more "
         "than: the largest difference that a test without significance leaves possible.")  # fmt: skip
AGAINST = "Paired t-tests of each row against {}, of the areas and at each percent of labels, corrected together:"
EFFICIENCY = ("Label efficiency: percent of labels (interpolated) with which a row reaches the last accuracy of a "
              "column's, ≤ where its fewest suffice; blank where it does not, blank lines left out:")  # fmt: skip
PENALTIES = ("Pairwise penalty matrix: how often, in settings, the row beats the column (paired t-test over seeds at "
             "each budget, p < 0.05); blank where no test can be made, without rows that have none. The lower a "
             "column's mean, the better.")  # fmt: skip


def tables(found: Results, mixed: bool = False, reference: str = "") -> dict[str, list[Table]]:
    """The statistics' tables, by heading: each setting, and all of them. The others are tested against row `reference`.

    Raises InputError when a test would compare runs that were made differently, unless `mixed`, which marks it.
    """
    parts = {}
    for setting in found.settings():
        rows = found.of(setting)
        areas = [
            [label, *map(_cell, statistics.interval(values)), str(len(values))]
            for label, values in statistics.areas(rows).groupby(level="label", sort=False)
        ]
        parts[f"{setting[0]} on {setting[1]}"] = [
            Table(AREA, ["row", "area", "±", "n"], areas, _over(rows), "needs runs with two budgets in common"),
            _tests(TESTS, statistics.paired_tests(found, setting, mixed)),
            *([_against(found, setting, reference, mixed)] if reference else []),
            _efficiency(statistics.label_efficiency(rows), rows.groupby("label")["percent"].min().to_dict()),
        ]
    parts["All settings"] = [_penalties(*statistics.penalties(found, mixed))]
    return parts


def text(parts: dict[str, list[Table]], found: Results) -> str:
    """The `tables` in Markdown, followed by what the runs were made with."""
    lines = []
    for heading, group in parts.items():
        lines += [f"## {heading}", *(line for table in group for line in table.markdown())]
    return "\n\n".join([*lines, "\n".join(builds.footnote(found.rows, found.made))]) + "\n"


def write(content: str, output: Path) -> list[Path]:
    """Writes the `text` to statistics.md."""
    path = output / "statistics.md"
    write_text(path, content)
    return [path]


def _against(found: Results, setting: tuple[str, str], reference: str, mixed: bool) -> Table:
    """The tests against one row."""
    label = naming.row_named(found.rows, reference)
    tests = statistics.contrasts(found, setting, label, mixed)
    if not tests.empty:
        tests["at"] = [at if at == "area" else percent(at) for at in tests["at"]]
    return _tests(AGAINST.format(label), tests)


def _over(rows: pd.DataFrame) -> list[str]:
    """The percents that the areas cover, and the runs without an area."""
    percents, without = statistics.span(rows)
    if not percents:
        return []
    left_out = "; ".join(f"{label} ({builds.ranges(set(seeds))})" for label, seeds in without.items())
    line = f"Over {', '.join(map(percent, percents))}, which all of these runs have."
    return [
        f"{line} No area, with fewer percents than their row or than half of all: {left_out}." if left_out else line
    ]


def _tests(title: str, tests: pd.DataFrame) -> Table:
    """A table of paired tests, with the meaning of its marks."""
    if tests.empty:
        return Table(title, [], [], lacking="takes two common seeds of two rows, and differences that vary")
    marked = [_cell(at) + builds.mark(words) for at, words in zip(tests["difference"], tests["unlike"], strict=True)]
    shown = tests.assign(difference=marked).drop(columns="unlike")
    rows = [[_cell(value) for value in row] for row in shown.to_numpy()]
    return Table(title, list(shown.columns), rows, builds.explain(frozenset().union(*tests["unlike"])))


def _efficiency(found: pd.DataFrame, least: dict[str, float]) -> Table:
    """Rows reach columns: the long table of `label_efficiency` as a matrix without blank rows and columns.

    `least` is each row's first percent: an accuracy it has there may need fewer labels.
    """
    lacking = "needs two budgets, and two rows of which one reaches the other's last accuracy"
    reached = found.dropna(subset="with percent")
    if reached.empty:
        return Table(EFFICIENCY, [], [], lacking=lacking)
    labels = list(dict.fromkeys(found["reaches what"]))
    cells = {
        (row, target): ("≤ " if needed == least[row] else "") + percent(needed)
        for row, target, needed in reached[["row", "reaches what", "with percent"]].itertuples(index=False)
    }
    last = reached.drop_duplicates("reaches what").set_index("reaches what")
    targets = [label for label in labels if label in last.index]
    head = [f"{label}: {last['accuracy'][label]:.2f} at {percent(last['has at percent'][label])}" for label in targets]
    rows = [
        [label, *(cells.get((label, target), "") for target in targets)]
        for label in labels
        if label in set(reached["row"])
    ]
    return Table(EFFICIENCY, ["row", *head], rows)


def _penalties(matrix: pd.DataFrame, unlike: dict[tuple[str, str], frozenset[str]]) -> Table:
    """The penalty matrix, with the meaning of its marks."""
    if matrix.empty:
        return Table(PENALTIES, [], [], lacking="takes two common seeds of two rows, and differences that vary")
    tested = matrix.notna().any() | matrix.notna().drop("mean").any(axis=1)
    kept = [label for label in matrix.columns if tested[label]]
    shown = matrix.loc[[*kept, "mean"], kept].map(_cell)
    for (row, column), words in unlike.items():
        shown.loc[row, column] += builds.mark(words)
    rows = [[label, *cells] for label, cells in zip(shown.index, shown.to_numpy().tolist(), strict=True)]
    return Table(PENALTIES, ["", *shown.columns], rows, builds.explain(frozenset().union(*unlike.values())))


def _cell(value) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
