"""The look of all figures: one colour per row everywhere, axes limited to possible values, PNG and SVG."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from common.report.naming import NAMES
from common.report.results import Results
from common.report.statistics import FEW, interval

# Okabe & Ito's colour-blind-safe palette without yellow and black, which are lost on a light or a dark page; markers
# and labels are redundant with colours.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46", "#7F7F7F"]
MARKERS = "oD^svPX*"
LINES = ("-", "-.", (0, (4, 1, 1, 1, 1, 1)))  # for when the colours are used up; dashed is the paper's
OWN = {"CM": 0, "CM+KD": 1, "EnCoDe": 2, "Baseline": 3, "Single": 6, "Single teacher": 7}  # the same in every report
INK, PAPER = "#1b1e23", "#ffffff"  # text and lines, and their background: the page replaces them with its own

plt.rcParams["svg.hashsalt"] = "encode"  # same numbers, same bytes
plt.rcParams["text.parse_math"] = False  # a class may be named $5
plt.rcParams.update(
    dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK)
)
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})


def styles(found: Results) -> dict[str, dict]:
    """Colour, marker and line of each row, by its label. The paper's rows have fixed ones, others what is left."""
    labels = list(dict.fromkeys(found.rows["label"]))
    own: dict[str, int] = {}
    for label in labels:  # of a row and its namesake with a dagger, the first has the fixed ones
        number = OWN.get(label.removesuffix("†"))
        if number is not None and number not in own.values():
            own[label] = number
    others = [label for label in labels if label not in own]
    free = [number for number in range(len(COLORS)) if number not in own.values()] or [len(COLORS) - 1]
    numbers = own | {label: free[place % len(free)] for place, label in enumerate(others)}
    turns = {label: place // len(free) for place, label in enumerate(others)}
    looks = {}
    for label, number in numbers.items():
        turn = turns.get(label, 0)
        marker = MARKERS[(number + turn) % len(MARKERS)]
        looks[label] = {"color": COLORS[number], "marker": marker, "linestyle": LINES[turn % len(LINES)]}
    return looks


def order(labels: Iterable[str]) -> list[str]:
    """Labels in the tables' order: the paper's rows first, each followed by its variants; then those named by hand."""
    names = list(NAMES.values())
    heads = {label: label.removesuffix("†").split(" (")[0] for label in dict.fromkeys(labels)}
    return sorted(heads, key=lambda label: names.index(heads[label]) if heads[label] in names else len(names))


def percent(value: float) -> str:
    """28.5714 -> 28.6%"""
    return f"{value:.3g}%"


def curve(axes, points, x: str, y: str, style: dict, label: str, highest: float = 100, of: str = "") -> None:
    """Mean of y at each x, with its 95% interval, or with the points themselves if they are few.

    Args:
        points: a frame with the columns x, y and seed.
        style: of the line; with marker "", few seeds are drawn as lines too.
        highest: upper limit of y, which no band passes.
        of: the column whose equal values form one point, at their mean x; x itself by default.
    """
    groups = [(part[x].mean(), part[y].to_numpy(float)) for _, part in points.groupby(of or x)]
    at = np.array([at for at, _ in groups], float)
    mean = np.array([values.mean() for _, values in groups])
    axes.plot(at, mean, label=label, clip_on=False, zorder=3, **style)
    many = np.array([len(values) >= FEW for _, values in groups])
    if many.any():
        half = np.array([interval(values)[1] if len(values) >= FEW else 0 for _, values in groups])
        low, high = np.clip(mean - half, 0, highest), np.clip(mean + half, 0, highest)
        axes.fill_between(at, low, high, where=many, color=style["color"], alpha=0.15, linewidth=0)
    few = [(at, values) for at, values in groups if 1 < len(values) < FEW]
    if few and style["marker"]:
        scattered = np.array([(at, value) for at, values in few for value in values]).T
        axes.scatter(*scattered, s=14, color=style["color"], alpha=0.6, linewidth=0, clip_on=False, zorder=2)
    elif few:
        for _, seed in points[points[x].isin([at for at, _ in few])].groupby("seed"):
            axes.plot(seed[x], seed[y], color=style["color"], alpha=0.4, linewidth=0.7)


def limit(axes, high: float = 100) -> None:
    """Limits the y axis to a little beyond the data, never below 0 or above `high`."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(0, bottom), min(high, top))


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes `path` as .png and .svg, and closes the figure."""
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(files[0], dpi=200, facecolor=PAPER)
    figure.savefig(files[1], metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]), facecolor=PAPER)
    plt.close(figure)
    return files
