"""Curves, class balance and contact sheets, as PNG and SVG."""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from common import datasets
from common.errors import InputError
from common.report.results import Results
from common.report.statistics import interval

# Okabe & Ito's palette: told apart by colour-blind readers too; markers and labels say it again.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "osD^vPX"
EPOCHS_AT = 50  # percent of labels at which the paper shows accuracy against epochs
plt.rcParams["svg.hashsalt"] = "encode"  # the same bytes for the same numbers


def curves(found: Results, output: Path) -> list[Path]:
    """Test accuracy against percent of labels, mean and 95% interval, a panel for each model and data set."""

    def panel(axes, setting) -> None:
        for style, (label, group) in zip(_styles(), found.of(setting).groupby("label", sort=False), strict=False):
            _band(axes, group, "percent", "test_accuracy", f"{label} (n={group['seed'].nunique()})", style)
        axes.set(xlabel="labelled images (% of training images)", ylabel="test accuracy (%)")

    return _panels(found, panel, output / "curves")


def epochs(found: Results, output: Path) -> list[Path]:
    """Validation accuracy against epochs in the round with about half of the labels, as the paper's figure."""
    if found.history.empty:
        return []

    def panel(axes, setting) -> None:
        history = found.of(setting, "history")
        for style, (label, group) in zip(_styles(), history.groupby("label", sort=False), strict=False):
            at = min(group["percent"].unique(), key=lambda percent: abs(percent - EPOCHS_AT))
            name = f"{label}, {at:g}% (n={group['seed'].nunique()})"
            _band(axes, group[group["percent"] == at], "epoch", "val_accuracy", name, style | {"marker": ""})
        axes.set(xlabel="epoch", ylabel="validation accuracy (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _panels(found, panel, output / "epochs")


def class_balance(found: Results, output: Path) -> list[Path]:
    """queries.csv: images of each class queried in each round, mean over seeds; a figure of each class's share."""
    if found.queries.empty:
        return []
    counts = found.queries.groupby(["model", "dataset", "label", "round", "class", "run"], sort=False).size()
    counts = counts.groupby(level=[0, 1, 2, 3, 4], sort=False).mean().rename("images").reset_index()
    path = output / "queries.csv"
    counts.sort_values(["model", "dataset", "label", "round", "class"]).to_csv(
        path, index=False, float_format="%.5g", lineterminator="\n"
    )

    def panel(axes, setting) -> None:
        here = counts[(counts["model"] == setting[0]) & (counts["dataset"] == setting[1])]
        chosen = here[here["round"] > 0]
        shares = chosen.pivot_table(index="label", columns="class", values="images", aggfunc="sum", sort=False)
        if shares.empty:
            return
        shares = 100 * shares.fillna(0).div(shares.sum(axis=1), axis=0)
        picture = axes.imshow(shares, cmap="cividis", aspect="auto", vmin=0)
        axes.set_yticks(range(len(shares)), shares.index)
        axes.set_xticks(range(shares.shape[1]), shares.columns)
        axes.set(xlabel="class")
        axes.figure.colorbar(picture, ax=axes, label="share of the queried images (%)")

    return [path, *_panels(found, panel, output / "queries", legend=False)]


def contact_sheets(found: Results, data_dir: Path, output: Path, each: int = 10) -> list[Path]:
    """The first queried images of each class in each round, a sheet for each run: rows rounds, columns classes."""
    files = []
    for run, queries in found.queries.groupby("run", sort=False):
        config = found.configs[run]
        if not isinstance(config.get("dataset"), str):
            raise InputError(f"{run}: has no config.json whose dataset says which images were queried")
        options = {"data_source": "auto", "extra": False, **config, "data_dir": str(data_dir)}
        source = datasets.load(argparse.Namespace(**options))
        if queries["index"].max() >= len(source.x_train):
            raise InputError(f"{Path(run) / 'queries.csv'}: there is no image {queries['index'].max()}; "
                             f"--dataset {config['dataset']} has {len(source.x_train)}, counted from 0")  # fmt: skip
        rounds = sorted(queries["round"].unique())
        size, classes = source.x_train.shape[1], len(source.classes)
        sheet = np.full((len(rounds) * (size + 4), classes * (each * size + 8), 3), 255, np.uint8)
        for row, number in enumerate(rounds):
            index = queries.loc[queries["round"] == number, "index"].to_numpy()
            for column in range(classes):
                chosen = index[source.y_train[index] == column][:each]
                for place, image in enumerate(source.x_train[chosen]):
                    top, left = row * (size + 4), column * (each * size + 8) + place * size
                    sheet[top : top + size, left : left + size] = image
        figure, axes = plt.subplots(figsize=(2.4 * classes, 0.4 * len(rounds) + 0.8), layout="constrained")
        axes.imshow(sheet)
        axes.set_xticks([(each * size + 8) * (column + 0.5) for column in range(classes)], source.classes)
        axes.set_yticks([(size + 4) * (row + 0.5) for row in range(len(rounds))], rounds)
        axes.set(xlabel=f"class (the first {each} of each)", ylabel="round of the query")
        axes.set_title(Path(run).name)
        path = output / f"queried-{Path(run).name}.png"
        figure.savefig(path, dpi=150)
        plt.close(figure)
        files.append(path)
    return files


def _styles():
    return ({"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)]} for n in range(100))


def _band(axes, group: pd.DataFrame, x: str, y: str, label: str, style: dict) -> None:
    """Mean of y at each x, with the band of its 95% interval where there are several seeds."""
    points = [(at, *interval(values)) for at, values in group.groupby(x)[y]]
    at, mean, half = (np.array(column, float) for column in zip(*points, strict=True))
    axes.plot(at, mean, label=label, **style)
    if np.isfinite(half).any():
        half = np.nan_to_num(half)
        axes.fill_between(at, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0)


def _panels(found: Results, draw: Callable, path: Path, legend: bool = True) -> list[Path]:
    settings = found.settings()
    figure, panels = plt.subplots(1, len(settings), figsize=(6 * len(settings), 4), layout="constrained", squeeze=False)
    for axes, setting in zip(panels[0], settings, strict=True):
        draw(axes, setting)
        axes.set_title(" on ".join(setting))
        if legend:
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize="small")
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(files[0], dpi=200)
    figure.savefig(files[1], metadata={"Date": None})
    plt.close(figure)
    return files
