"""Class by class: how accurate the rows are, and which classes their samplers query."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from common.files import write_text
from common.report import style
from common.report.figures import at_half
from common.report.results import Results, of

WRITTEN = 20  # up to this many classes, numbers are written into the cells


def class_accuracy(found: Results, output: Path) -> list[Path]:
    """classes.csv: test accuracy of each class in each round, mean over n seeds; a figure at half of the labels."""
    if found.classes.empty:
        return []
    keys = ["model", "dataset", "label", "percent", "class"]
    table = found.classes.groupby(keys, sort=False)["accuracy"].agg(["mean", "count"]).reset_index()
    table = table.rename(columns={"mean": "accuracy", "count": "n"}).sort_values(keys, kind="stable")
    files = [_csv(_named(found, table), output / "classes.csv", "%.4g")]
    half = at_half(found.classes)

    def grid(setting) -> pd.DataFrame:
        here = of(half, setting)
        rows = here.pivot_table(index=["label", "percent"], columns="class", values="accuracy", sort=True)
        rows = rows.reindex(sorted(rows.index, key=lambda key: style.order(here["label"]).index(key[0])))
        rows.index = [f"{label}, {style.percent(percent)}" for label, percent in rows.index]
        return rows

    grids = {setting: grid(setting) for setting in found.settings()}
    scale = {"cmap": "cividis", "vmin": 0, "vmax": 100}
    return files + _heatmaps(found, grids, output / "classes", "test accuracy of the class (%)", "{:.0f}", scale)


def class_balance(found: Results, output: Path) -> list[Path]:
    """queries.csv: images of each class queried in each round, mean over seeds; a figure of their share.

    If a row's percents come from several runs, each has its own round 0.

    The figure leaves out the initial labels, which no strategy chose, and a round that takes all that is left. It shows
    each class's share of the queried images minus its share of the pool, in points.
    """
    if found.queries.empty:
        return []
    keys = ["model", "dataset", "label", "round", "percent", "class"]
    counts = found.queries.groupby(keys, sort=False).size().rename("images").reset_index()
    runs = found.queries.groupby(keys[:-1])["run"].nunique()  # including those that queried none of the class
    counts["images"] = counts["images"] / runs.loc[pd.MultiIndex.from_frame(counts[keys[:-1]])].to_numpy()
    files = [_csv(_named(found, counts.sort_values(keys)), output / "queries.csv", "%.5g")]
    grids = {setting: _imbalance(found, setting) for setting in found.settings()}
    most = max([1.0, *(grid.abs().to_numpy().max() for grid in grids.values() if not grid.empty)])
    scale = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    title = "share of the queried images less the pool's (points)"
    return files + _heatmaps(found, grids, output / "queries", title, "{:+.1f}", scale)


def _imbalance(found: Results, setting: tuple[str, str]) -> pd.DataFrame:
    """Share of each class in what a row's samplers chose, minus its share of the pool, in points, mean over runs."""
    queries = of(found.queries, setting)
    chosen = queries[(queries["round"] > 0) & (queries["percent"] < 100)]
    if chosen.empty:
        return pd.DataFrame()
    classes = range(max(int(queries["class"].max()) + 1, *(len(found.pools[run]) for run in queries["run"].unique())))
    shares = {}
    for (label, run), group in chosen.groupby(["label", "run"], sort=False):
        pool = np.array(list(found.pools[run].values()) or [0] * len(classes), float)
        if not pool.sum():  # no record: the initial labels are a random sample of the pool
            initial = queries[(queries["run"] == run) & (queries["round"] == 0)]
            pool = np.bincount(initial["class"], minlength=len(classes)).astype(float)
        pool = np.pad(pool, (0, len(classes) - len(pool)))
        taken = np.bincount(group["class"], minlength=len(classes))
        shares.setdefault(label, []).append(100 * (taken / taken.sum() - pool / max(1, pool.sum())))
    rows = {label: np.mean(shares[label], axis=0) for label in style.order(shares)}
    return pd.DataFrame.from_dict(rows, "index", columns=classes)


def _heatmaps(found: Results, grids: dict, path: Path, title: str, form: str, scale: dict) -> list[Path]:
    """A map for each setting, one above the other: rows of the tables by classes, numbers in the cells."""
    grids = {setting: grid for setting, grid in grids.items() if not grid.empty}
    if not grids:
        return []
    heights = [0.34 * len(grid) + 1.3 for grid in grids.values()]
    width = max(6.5, 2.4 + 0.46 * min(WRITTEN, max(grid.shape[1] for grid in grids.values())))
    figure, panels = plt.subplots(len(grids), figsize=(width, sum(heights) + 0.7), squeeze=False, height_ratios=heights)
    for axes, (setting, grid) in zip(panels[:, 0], grids.items(), strict=True):
        mesh = axes.pcolormesh(grid.to_numpy(float), edgecolors=style.PAPER, linewidth=0.6, **scale)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize="small")
        axes.set_yticks(np.arange(len(grid)) + 0.5, grid.index)
        names = found.class_names(setting[1], max(grid.columns) + 1)
        step = -(-grid.shape[1] // WRITTEN)
        ticks = np.arange(0, grid.shape[1], step)
        axes.set_xticks(ticks + 0.5, [names[grid.columns[tick]] for tick in ticks])
        if max(len(names[column]) for column in grid.columns) > 4:
            plt.setp(axes.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
        axes.set_title(" on ".join(setting), fontsize="medium")
        if step == 1:
            _write(axes, mesh, grid.to_numpy(float), form)
    figure.colorbar(mesh, ax=panels[:, 0].tolist(), location="bottom", label=title, aspect=40, shrink=0.7)
    return style.save(figure, path)


def _write(axes, mesh, values: np.ndarray, form: str) -> None:
    """Each cell's number, dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = mesh.cmap(mesh.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        axes.text(column + 0.5, row + 0.5, form.format(value), ha="center", va="center", fontsize="x-small",
                  color="#fefefe" if dark else "#010101")  # fmt: skip


def _named(found: Results, table: pd.DataFrame) -> pd.DataFrame:
    """The table with each class's name after its number."""
    most = table.groupby("dataset")["class"].max() + 1
    names = {dataset: found.class_names(dataset, count) for dataset, count in most.items()}
    column = [names[dataset][number] for dataset, number in zip(table["dataset"], table["class"], strict=True)]
    table = table.copy()
    table.insert(table.columns.get_loc("class") + 1, "name", column)
    return table


def _csv(table: pd.DataFrame, path: Path, form: str) -> Path:
    write_text(path, table.to_csv(index=False, float_format=form, lineterminator="\n"))
    return path
