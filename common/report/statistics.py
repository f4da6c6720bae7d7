"""What the runs support: intervals, areas, paired tests, penalties, label efficiency."""

import itertools

import numpy as np
import pandas as pd
from scipy import integrate, stats

from common.report import builds
from common.report.results import Results

LEVEL = 0.05
FEW = 3  # a t interval over fewer seeds is too wide to be useful
ROUNDING = 1e-9  # differences of accuracies (in hundredths) that vary by less are taken as constant


def interval(values) -> tuple[float, float]:
    """Mean and half width of its 95% interval (Student's t), the latter NaN for fewer than three values."""
    values = np.asarray(values, float)
    if len(values) < FEW:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of one setting by (label, seed) and percent."""
    table = rows.pivot_table(index=["label", "seed"], columns="percent", values="test_accuracy", sort=False)
    return table.sort_index(axis=1)


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """`accuracies` at the percents that all runs have, without runs that have one or fewer than half; empty below two.

    A run that lacks one of its row's percents, such as an unfinished one, is left out: all others would lose the
    percent.
    """
    table = accuracies(rows)
    of_its_row = table.notna().groupby(level="label", sort=False).transform("any")
    table = table[(table.notna() | ~of_its_row).all(axis=1)]
    table = table[table.notna().sum(axis=1) >= max(2, table.shape[1] / 2)].dropna(axis=1)
    return table if table.shape[1] > 1 else table.iloc[:0]


def span(rows: pd.DataFrame) -> tuple[list[float], dict[str, list[int]]]:
    """The percents that `areas` cover, and by row the seeds without an area."""
    table, kept = accuracies(rows), _curves(rows)
    without: dict[str, list[int]] = {}
    for label, seed in table.index.difference(kept.index, sort=False):
        without.setdefault(label, []).append(seed)
    return ([] if kept.empty else list(kept.columns)), without


def areas(rows: pd.DataFrame) -> pd.Series:
    """Area under the budget curve by (label, seed), divided by its width: mean accuracy over the budgets.

    Over the percents that all runs have, so that areas can be compared; `span` gives these, and the runs without an
    area.
    """
    table = _curves(rows)
    if table.empty:
        return pd.Series(dtype=float, index=table.index)
    percents = table.columns.to_numpy(float)
    return pd.Series(integrate.trapezoid(table.to_numpy(), percents, axis=1) / np.ptp(percents), table.index)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction, https://www.jstor.org/stable/4615733: p-values to compare with the level itself."""
    order, corrected = np.argsort(p_values), np.empty(len(p_values))
    stepped = np.arange(len(p_values), 0, -1) * np.take(p_values, order)  # smallest first
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, stepped))
    return corrected.tolist()


def paired_p(differences) -> float:
    """p of the paired t-test of these differences; NaN if it is undefined: there is only one, or they do not vary."""
    differences = np.asarray(differences, float)
    if len(differences) < 2 or np.ptp(differences) < ROUNDING:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0).pvalue)


def effect(differences) -> tuple[float, float]:
    """Half width of the mean's 95% interval, and Cohen's d: the mean in standard deviations of the differences.

    Both are NaN if there are fewer than three, or they do not vary.
    """
    differences = np.asarray(differences, float)
    if len(differences) < FEW or np.ptp(differences) < ROUNDING:
        return float("nan"), float("nan")
    return interval(differences)[1], float(differences.mean() / differences.std(ddof=1))


def paired_tests(found: Results, setting: tuple[str, str], mixed: bool = False) -> pd.DataFrame:
    """Paired t-tests of the areas over the seeds both rows have, for every pair of rows, Holm-corrected together.

    Columns: row, against, and what `_tested` adds.
    Raises InputError when two compared runs differ in commit, amp, teacher or images, unless `mixed`.
    """
    rows = found.of(setting)
    area = areas(rows)
    if area.empty:
        return pd.DataFrame()
    by_seed, percents, runs = area.unstack("label"), _curves(rows).columns, _runs(rows)
    labels = dict.fromkeys(area.index.get_level_values("label"))
    table = [
        ((a, b), *_difference(found, runs, (a, b), by_seed, percents, mixed))
        for a, b in itertools.combinations(labels, 2)
    ]
    return _tested(["row", "against"], table)


def contrasts(found: Results, setting: tuple[str, str], reference: str, mixed: bool = False) -> pd.DataFrame:
    """Paired t-tests of every row against `reference`, of the areas and at each budget, Holm-corrected together.

    If the reference is chosen beforehand there are few tests, and a difference is detected sooner than among all pairs.
    Columns: row, at (a percent, or "area"), and what `_tested` adds. Raises InputError like `paired_tests`.
    """
    rows = found.of(setting)
    if reference not in set(rows["label"]):
        return pd.DataFrame()
    area, runs = areas(rows), _runs(rows)
    values = {at: column.unstack("label") for at, column in accuracies(rows).items()}
    percents = {at: [at] for at in values}
    if not area.empty:
        values["area"], percents["area"] = area.unstack("label"), list(_curves(rows).columns)
    table = [
        ((label, at), *_difference(found, runs, (label, reference), by_seed, percents[at], mixed))
        for label, (at, by_seed) in itertools.product(dict.fromkeys(rows["label"]), values.items())
        if label != reference and {label, reference} <= set(by_seed)
    ]
    return _tested(["row", "at"], table)


def _difference(found: Results, runs: dict, rows: tuple[str, str], by_seed: pd.DataFrame, percents, mixed: bool):
    """The difference of two rows by common seed, and what a seed's two runs differ in (`_unlike`)."""
    a, b = rows
    difference = (by_seed[a] - by_seed[b]).dropna()
    pairs = [(runs[a, seed, at], runs[b, seed, at]) for seed in difference.index for at in percents]
    return difference, _unlike(found, pairs, mixed or len(difference) == 1)  # one seed is not a test


def _tested(names: list[str], table: list[tuple]) -> pd.DataFrame:
    """A line for each of (name, differences by seed, what a seed's two runs differ in).

    Columns: the `names`; difference (mean over n seeds, points), ± and d (`effect`), n, p, p_holm (NaN if the test is
    undefined); no more than: for a difference that is not significant, the largest one, in either direction, within its
    95% interval; unlike (`_unlike`).
    The correction counts identical tests once: two rows of the same runs, or a row's area over two budgets, at one of
    which the rows are equal: half its difference at the other. Rows proportional by chance are tested apart, and so
    are rows with the same differences at unlike budgets.
    """
    table = [line for line in table if len(line[1])]
    lines = [
        (*called, values.mean(), *effect(values), len(values), paired_p(values), unlike)
        for called, values, unlike in table
    ]
    tests = pd.DataFrame(lines, columns=[*names, "difference", "±", "d", "n", "p", "unlike"])
    known, first = [], {}  # identifies a test: by its differences, or by its row's first ones proportional to them
    for called, values, _ in table:
        row, scale = called[0] if "at" in names else called, values.abs().max() or 1
        if "at" not in names:  # of two rows in either order
            values = values * next((np.sign(value) for value in values if value), 1)
        at = called[1] if "at" in names else None
        known.append(first.setdefault((row, _numbers(values / scale)), (at, _numbers(values))))
    # a dictionary: pandas 2 cannot group or map tuples of unlike lengths
    once = {test: p for test, p in zip(known, tests["p"], strict=True) if not np.isnan(p)}
    corrected = dict(zip(once, holm(list(once.values())), strict=True))
    place = tests.columns.get_loc("unlike")
    tests.insert(place, "p_holm", [corrected.get(test, np.nan) for test in known])
    largest = tests["difference"].abs() + tests["±"]
    tests.insert(place + 1, "no more than", largest.where(tests["p_holm"] >= LEVEL))
    return tests


def _numbers(differences: pd.Series) -> tuple:
    return (*differences.index, *differences.round(6))


def penalties(found: Results, mixed: bool = False) -> tuple[pd.DataFrame, dict[tuple[str, str], frozenset[str]]]:
    """Pairwise penalty matrix of Ash et al. 2020, https://arxiv.org/abs/1906.03671, over all settings.

    For each setting and budget where row i is better than row j by a paired t-test over seeds (p < 0.05), entry (i, j)
    grows by one over the number of budgets at which the test is defined; NaN if there is none. The last row is each
    column's mean over the rows it was tested against: how often it is beaten.
    Returns the matrix, and what a seed's two runs differ in (`_unlike`) by (i, j).
    Raises InputError when that is the commit, amp, the teacher or the images, unless `mixed`.
    """
    rows = found.rows[~found.rows["oracle"]]  # an oracle cannot be used in practice
    labels = list(dict.fromkeys(rows["label"]))
    matrix = pd.DataFrame(float("nan"), labels, labels)
    unlike: dict[tuple[str, str], frozenset[str]] = {}
    for setting in found.settings():
        table, runs = accuracies(found.of(setting)), _runs(found.of(setting))
        there = dict.fromkeys(table.index.get_level_values("label"))
        for a, b in itertools.combinations([label for label in there if label in labels], 2):
            differences = [(table.loc[a][at] - table.loc[b][at]).dropna() for at in table.columns]
            tests = {at: values for at, values in zip(table.columns, differences, strict=True)
                     if not np.isnan(paired_p(values))}  # fmt: skip
            pairs = [(runs[a, seed, at], runs[b, seed, at]) for at, values in tests.items() for seed in values.index]
            words = _unlike(found, pairs, mixed)
            for row, column, sign in ((a, b, 1), (b, a, -1)):
                if tests:
                    won = sum(sign * values.mean() > 0 and paired_p(values) < LEVEL for values in tests.values())
                    matrix.loc[row, column] = np.nansum([matrix.loc[row, column], won / len(tests)])
                    unlike[row, column] = unlike.get((row, column), frozenset()) | words
    if not unlike:
        return pd.DataFrame(), unlike
    return pd.concat([matrix, matrix.mean().to_frame("mean").T]), unlike


def _runs(rows: pd.DataFrame) -> dict[tuple[str, int, float], tuple[str, str]]:
    """The run of each (label, seed, percent) and its student's updates; empty for a teacher or if unknown."""
    keys = zip(rows["label"], rows["seed"], rows["percent"], strict=True)
    updates = rows["updates"].astype(str).where(rows["network"] == "student", "")
    return dict(zip(keys, zip(rows["run"], updates, strict=True), strict=True))


def _unlike(found: Results, pairs: list, mixed: bool) -> frozenset[str]:
    """What differs between two of `_runs` in any of the pairs: `builds.compare`, and UPDATES."""
    words = builds.compare(found.made, [(first[0], second[0]) for first, second in pairs], mixed)
    other = any(len({first[1], second[1]} - {""}) > 1 for first, second in pairs)
    return words | {builds.UPDATES} if other else words


def label_efficiency(rows: pd.DataFrame) -> pd.DataFrame:
    """Percent of labels (interpolated) that each row needs for the accuracy another reaches at its highest percent.

    Empty for rows of one percent, which say nothing of other budgets.
    """
    means = rows.groupby(["label", "percent"], sort=False)["test_accuracy"].mean().unstack("percent").sort_index(axis=1)
    found = []
    for target in means.index if means.shape[1] > 1 else ():
        reached = means.loc[target].dropna()
        for row in means.index.drop(target):
            curve = means.loc[row].dropna()
            needed = _crossing(curve.index.to_numpy(float), curve.to_numpy(), reached.iloc[-1])
            found.append((row, target, reached.index[-1], reached.iloc[-1], needed))
    return pd.DataFrame(found, columns=["row", "reaches what", "has at percent", "accuracy", "with percent"])


def _crossing(percents: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    """Where the curve first reaches the target; NaN if it never does."""
    for number, value in enumerate(accuracy):
        if value >= target:
            if number == 0:
                return percents[0]
            share = (target - accuracy[number - 1]) / (value - accuracy[number - 1])
            return percents[number - 1] + share * (percents[number] - percents[number - 1])
    return float("nan")
