"""Curves: accuracy against labels, epochs and multiply-accumulates, and the losses against epochs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from common import networks
from common.report import style
from common.report.results import Results, of, paper_curve
from common.report.statistics import FEW, interval
from common.schema import LOSSES

HALF = 50  # percent of labels at which the paper shows accuracy against epochs
GUESSING = {"disc": np.log(2)}  # the loss of a discriminator that guesses


class Labels(NamedTuple):
    """The x axis of the budget curves: a column of results.csv."""

    column: str
    title: str
    highest: float | None = None
    paper: bool = False  # whether the paper's curves have this axis
    of: str = ""  # the column whose equal values form one point, if not `column`


PERCENT = Labels("percent", "labelled images (% of training images)", 100, paper=True)


def curves(
    found: Results, output: Path, x: Labels = PERCENT, name: str = "curves", looks: dict[str, dict] | None = None
) -> list[Path]:
    """Test accuracy against labels, the paper's dashed in the row's color, a panel for each model and data set.

    Args:
        looks: each row's colour, marker and line, if `found` is only part of what the other figures show.
    """
    looks = looks or style.styles(found)

    def panel(axes, setting) -> None:
        rows = found.of(setting)
        for label in style.order(rows["label"]):
            group = rows[rows["label"] == label]
            style.curve(axes, group, x.column, "test_accuracy", looks[label], label, of=x.of)
            theirs = paper_curve(found, setting, label) if x.paper else pd.Series(dtype=float)
            if len(theirs) > 1 and not label.startswith("Single"):
                axes.plot(theirs.index, theirs, "--", color=looks[label]["color"], linewidth=1, clip_on=False)
        axes.set(xlabel=x.title, ylabel="test accuracy (%)", xlim=(0, x.highest))
        style.limit(axes)

    handles = [Line2D([], [], color="#7F7F7F", linestyle="--", linewidth=1, label="the paper's")]
    drawn = any(len(paper_curve(found, setting, "CM")) for setting in found.settings()) and x.paper
    return _panels(found, found.rows, panel, output / name, handles if drawn else [], looks)


def labels(found: Results, output: Path) -> list[Path]:
    """Test accuracy against all labels that a row's networks saw, teacher and validation included.

    Nothing is drawn if no run has a record of them.
    """
    if "labels_in_all" not in found.rows:
        return []
    counts = pd.to_numeric(found.rows["labels_in_all"], errors="coerce")
    known = replace(found, rows=found.rows.assign(labels_in_all=counts)[counts > 0])
    if known.rows.empty:
        return []
    title = "labels that any network saw, teacher included"
    return curves(known, output, Labels("labels_in_all", title, of="percent"), "labels", style.styles(found))


def epochs(found: Results, output: Path) -> list[Path]:
    """Validation accuracy against epochs in the round with about half of the labels, as in the paper's figure."""
    history, looks = at_half(found.history), style.styles(found)
    history = history.dropna(subset="val_accuracy")  # runs of --num_val 0 have none
    if history.empty:
        return []

    def panel(axes, setting) -> None:
        here = of(history, setting)
        for label in style.order(here["label"]):
            group = here[here["label"] == label]
            style.curve(axes, group, "epoch", "val_accuracy", looks[label] | {"marker": ""}, label)
        axes.set(xlabel="epoch", ylabel="validation accuracy (%)", xlim=(1, max(2, here["epoch"].max())))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.limit(axes)

    return _panels(found, history, panel, output / "epochs")


def losses(found: Results, output: Path) -> list[Path]:
    """Each term of the objective and of the samplers, with its weight, against epochs at half of the labels."""
    history, looks = at_half(found.history), style.styles(found)
    terms = [term for term in ("loss", *LOSSES) if term in history and history[term].notna().any()]
    if not terms:
        return []
    columns, settings = min(3, len(terms)), found.settings()
    lines = -(-len(terms) // columns)
    figure = plt.figure(figsize=(max(6.5, 2.6 * columns + 0.4), (2.2 * lines + 0.5) * len(settings) + 0.6))
    parts = figure.subfigures(len(settings), squeeze=False)[:, 0]
    for part, setting in zip(parts, settings, strict=True):
        part.suptitle(" on ".join(setting), fontsize="medium")
        part.supxlabel("epoch", fontsize="small")
        here = of(history, setting)
        for number, term in enumerate(terms):
            axes = part.add_subplot(lines, columns, number + 1)
            for label in style.order(here["label"]):
                group = here[(here["label"] == label) & here[term].notna()]
                if not group.empty:
                    bare = looks[label] | {"marker": "" if group["epoch"].nunique() > 1 else looks[label]["marker"]}
                    style.curve(axes, group, "epoch", term, bare, label, highest=np.inf)
            if term in GUESSING and axes.lines:
                axes.axhline(GUESSING[term], color="#7F7F7F", linestyle=":", linewidth=1)
            axes.set_title({"loss": "all terms"}.get(term, term), fontsize="small")
            axes.set_xlim(1, max(2, here["epoch"].max()))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            axes.tick_params(labelsize="x-small")
            axes.grid(alpha=0.3)
            style.limit(axes, high=np.inf)
    _legend(figure, looks, history, _shares(history), marker="")
    return style.save(figure, output / "losses")


def macs(found: Results, output: Path) -> list[Path]:
    """Test accuracy at each row's highest percent against multiply-accumulates: a panel for each data set."""
    looks, datasets = style.styles(found), list(dict.fromkeys(found.rows["dataset"]))
    figure, panels = _grid(len(datasets))
    for axes, dataset in zip(panels, datasets, strict=True):
        rows, costs = found.rows[found.rows["dataset"] == dataset], []
        for model, here in rows.groupby("model", sort=False):
            shapes = here["run"].map(lambda run, model=model: found.shape(run, model))
            for (part, shape), group in here.groupby([here["network"], shapes], sort=False):
                labels = style.order(group["label"])
                cost = networks.cost(model, part, *shape)[1]
                costs.append(cost)
                for place, label in enumerate(labels):
                    # spread out: rows of one network have the same cost
                    at = cost * 1.12 ** (place - (len(labels) - 1) / 2)
                    most = group[group["label"] == label]
                    most = most[most["percent"] == most["percent"].max()]
                    look = looks[label] | {"linestyle": ""}
                    _point(axes, at, most["test_accuracy"].to_numpy(float), look, label)
                size = "" if shapes.nunique() == 1 else f", {shape[1]} px"
                named = f"{model} {part}{size}\n{cost / 1e6:.3g} M"
                axes.annotate(named, (cost, 0), xycoords=("data", "axes fraction"),
                              xytext=(0, 4), textcoords="offset points", ha="center", fontsize="x-small")  # fmt: skip
        axes.set(xscale="log", xlabel="multiply-accumulates for one image", ylabel="test accuracy (%)", title=dataset)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(costs) / 4, max(costs) * 4)
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom - 0.2 * (top - bottom), top)  # room for the networks' names
        axes.grid(alpha=0.3)
        style.limit(axes)
    rows = found.rows
    last = rows[rows["percent"] == rows.groupby(["model", "dataset", "label"])["percent"].transform("max")]
    _legend(figure, looks, found.rows, _shares(last), linestyle="")
    return style.save(figure, output / "macs")


def at_half(table: pd.DataFrame) -> pd.DataFrame:
    """For each row of the tables, the part in the round with about half of the labels."""
    kept = []
    for _, group in table.groupby(["model", "dataset", "label"], sort=False):
        at = min(group["percent"].unique(), key=lambda percent: (abs(percent - HALF), percent))
        kept.append(group[group["percent"] == at])
    return pd.concat(kept) if kept else table


def _point(axes, at: float, values: np.ndarray, look: dict, label: str) -> None:
    mean, half = interval(values)
    error = half if len(values) >= FEW else 0
    low, high = min(error, mean), min(error, 100 - mean)
    axes.errorbar([at], [mean], yerr=[[low], [high]], capsize=2 if error else 0, label=label, **look)
    if 1 < len(values) < FEW:
        axes.scatter([at] * len(values), values, s=14, color=look["color"], alpha=0.6, linewidth=0)


def _panels(
    found: Results, table: pd.DataFrame, draw: Callable, path: Path, more: Sequence = (), looks: dict | None = None
) -> list[Path]:
    """A panel for each setting above a shared legend: a row has one colour in all of them."""
    looks = looks or style.styles(found)
    settings = [setting for setting in found.settings() if not of(table, setting).empty]
    figure, panels = _grid(len(settings))
    for axes, setting in zip(panels, settings, strict=True):
        draw(axes, setting)
        axes.set_title(" on ".join(setting))
        axes.grid(alpha=0.3)
    whole = table is found.rows
    _legend(figure, looks, table, {} if whole else _shares(table), more, **({} if whole else {"marker": ""}))
    return style.save(figure, path)


def _grid(count: int) -> tuple[Figure, list]:
    """`count` panels, two in a row."""
    columns, lines = min(2, count), -(-count // 2)
    figure = plt.figure(figsize=(6 * columns, 3.6 * lines + 1.0))
    return figure, [figure.add_subplot(lines, columns, number + 1) for number in range(count)]


def _shares(table: pd.DataFrame) -> dict[str, str]:
    """The percents of labels at which each row is shown."""
    return {
        label: f", {' or '.join(style.percent(value) for value in sorted(group.unique()))}"
        for label, group in table.groupby("label")["percent"]
    }


def _legend(
    figure: Figure, looks: dict[str, dict], table: pd.DataFrame, at: dict[str, str], more: Sequence = (), **changes: str
) -> None:
    """Below the panels: each row's colour, its percent of labels, and its number of seeds."""
    handles = []
    for label in style.order(table["label"]):
        seeds = table[table["label"] == label].groupby(["model", "dataset", "percent"])["seed"].nunique()
        n = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
        text = f"{label}{at.get(label, '')} (n={n})"
        handles.append(Line2D([], [], linewidth=1.5, label=text, **(looks[label] | changes)))
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=2, frameon=False, fontsize="small")
