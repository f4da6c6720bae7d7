"""What may be claimed from the runs: intervals, areas, paired tests, penalties, label efficiency."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import integrate, stats

from common.files import write_text
from common.report import markdown
from common.report.results import Results

LEVEL = 0.05


def interval(values) -> tuple[float, float]:
    """Mean and half width of its 95% interval (Student's t); the half width of one value is NaN."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of one setting by (label, seed) and percent."""
    return rows.pivot_table(index=["label", "seed"], columns="percent", values="test_accuracy", sort=False).sort_index(
        axis=1
    )


def areas(rows: pd.DataFrame) -> pd.Series:
    """Area under the budget curve by (label, seed), divided by its width: mean accuracy over the budgets.

    Over the percents that all runs have, so that areas can be compared; a run of one, or fewer than half, has no area.
    """
    table = accuracies(rows)
    table = table[table.notna().sum(axis=1) >= max(2, table.shape[1] / 2)].dropna(axis=1)
    if table.shape[1] < 2:
        return pd.Series(dtype=float, index=table.index[:0])
    percents = table.columns.to_numpy(float)
    return pd.Series(integrate.trapezoid(table.to_numpy(), percents, axis=1) / np.ptp(percents), table.index)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction, https://www.jstor.org/stable/4615733: p-values to compare with the level itself."""
    order = np.argsort(p_values)
    corrected, highest = np.empty(len(p_values)), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected.tolist()


def paired_tests(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired t-tests of the areas over the seeds both rows have, every pair of rows, Holm-corrected together."""
    area = areas(rows)
    if area.empty:
        return pd.DataFrame()
    by_seed = area.unstack("label")
    found = []
    for a, b in itertools.combinations(dict.fromkeys(area.index.get_level_values("label")), 2):
        both = by_seed[[a, b]].dropna()
        difference = both[a] - both[b]
        if len(both) > 1 and difference.std() > 0:
            p = float(stats.ttest_rel(both[a], both[b]).pvalue)
            found.append({"row": a, "against": b, "difference": difference.mean(), "n": len(both), "p": p})
    table = pd.DataFrame(found)
    return table.assign(p_holm=holm(table["p"].tolist())) if found else table


def penalties(found: Results) -> pd.DataFrame:
    """Pairwise penalty matrix of Ash et al. 2020, https://arxiv.org/abs/1906.03671, over all settings.

    For each setting and budget where row i is better than row j by a paired t-test over seeds (p < 0.05), entry (i, j)
    grows by one over the number of budgets. The last row is each column's mean: how often the row's method is beaten.
    """
    labels = list(dict.fromkeys(found.rows["label"]))
    matrix = pd.DataFrame(0.0, labels, labels)
    compared = False
    for setting in found.settings():
        table = accuracies(found.of(setting))
        for a, b in itertools.permutations(dict.fromkeys(table.index.get_level_values("label")), 2):
            both = pd.concat([table.loc[a], table.loc[b]], axis=1, keys=["a", "b"], join="inner")
            budgets = [p for p in table.columns if both[[("a", p), ("b", p)]].dropna().shape[0] > 1]
            for percent in budgets:
                pair = both[[("a", percent), ("b", percent)]].dropna().to_numpy()
                difference = pair[:, 0] - pair[:, 1]
                compared = True
                if difference.mean() > 0 and (difference.std() == 0 or stats.ttest_rel(*pair.T).pvalue < LEVEL):
                    matrix.loc[a, b] += 1 / len(budgets)
    if not compared:
        return pd.DataFrame()
    return pd.concat([matrix, matrix.sum().div(max(len(labels) - 1, 1)).to_frame("mean").T])


def label_efficiency(rows: pd.DataFrame) -> pd.DataFrame:
    """Percent of labels each row needs for the mean accuracy another reaches with the most it has (interpolated)."""
    means = rows.groupby(["label", "percent"], sort=False)["test_accuracy"].mean().unstack("percent").sort_index(axis=1)
    found = []
    for target in means.index:
        reached = means.loc[target].dropna()
        for row in means.index.drop(target):
            curve = means.loc[row].dropna()
            needed = _crossing(curve.index.to_numpy(float), curve.to_numpy(), reached.iloc[-1])
            found.append(
                {
                    "row": row,
                    "reaches what": target,
                    "has at percent": reached.index[-1],
                    "accuracy": reached.iloc[-1],
                    "with percent": needed,
                }
            )
    return pd.DataFrame(found)


def _crossing(percents: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    """Where the curve first reaches the target; NaN if it never does."""
    for number, value in enumerate(accuracy):
        if value >= target:
            if number == 0:
                return percents[0]
            share = (target - accuracy[number - 1]) / (value - accuracy[number - 1])
            return percents[number - 1] + share * (percents[number] - percents[number - 1])
    return float("nan")


def write(found: Results, output: Path) -> list[Path]:
    """statistics.md: areas, paired tests, penalty matrix, label efficiency; what needs more seeds says so."""
    parts = []
    for setting in found.settings():
        rows, title = found.of(setting), f"{setting[0]} on {setting[1]}"
        area = areas(rows)
        summary = [
            {"row": label, "area": interval(values)[0], "±": interval(values)[1], "n": len(values)}
            for label, values in area.groupby(level="label", sort=False)
        ]
        parts += [f"## {title}", "Area under the budget curve divided by its width (mean accuracy over the budgets, %),"
                  " with its 95% interval:", _markdown(pd.DataFrame(summary), "needs runs with two budgets in common"),
                  "Paired t-tests of these areas over seeds, with Holm's correction:",
                  _markdown(paired_tests(rows), "needs two seeds of two rows"),
                  "Label efficiency: percent of labels (interpolated) with which a row reaches another's last accuracy;"
                  " blank where it does not:", _markdown(label_efficiency(rows), "needs two rows")]  # fmt: skip
    parts += ["## All settings", "Pairwise penalty matrix: how often, in settings, the row beats the column (paired "
              "t-test over seeds at each budget, p < 0.05). The lower a column's mean, the better.",
              _markdown(penalties(found), "needs two seeds of two rows", index=True)]  # fmt: skip
    path = output / "statistics.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return [path]


def _markdown(table: pd.DataFrame, lacking: str, index: bool = False) -> str:
    if table.empty:
        return f"({lacking})"
    table = table.reset_index(names="") if index else table
    return markdown.table([list(table.columns), *([_cell(value) for value in row] for row in table.to_numpy())])


def _cell(value) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
