"""Results of many runs -> one table and one figure.

    python -m common.report runs/encode-seed2023 runs/kd-seed2023 --output runs/report

Reads the runs' results.csv and nothing else. Rows are what was trained, columns percent of labels, cells the mean
test accuracy in percent and, for more than one seed, n.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from common import cli
from common.errors import InputError

CONFIGURATION = ["model", "dataset", "method", "network", "sampler", "distill_on", "logit_loss", "teacher_labels"]
# Okabe & Ito's palette: told apart by colour-blind readers too.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "osD^vPX"


def read(folders: list[Path]) -> pd.DataFrame:
    """The rows of all runs' results.csv. Raises InputError when a folder has none, or none has a finished round."""
    frames = []
    for folder in folders:
        path = folder / "results.csv"
        try:
            frame = pd.read_csv(path, dtype=dict.fromkeys(CONFIGURATION, str), keep_default_na=False)
            frame[["percent", "test_accuracy"]] = frame[["percent", "test_accuracy"]].astype(float)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not a run's results ({error})") from None
        frames.append(frame)
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        raise InputError(f"{', '.join(map(str, folders))}: no finished round yet")
    return rows.assign(label=_labels(rows))


def _labels(rows: pd.DataFrame) -> pd.Series:
    """A name for each row's configuration: method, network, and of the rest what is not the same in all rows."""
    varying = [name for name in CONFIGURATION if name not in ("method", "network") and _differs(rows, name)]

    def name(row: pd.Series) -> str:
        head = row["method"] if row["network"] == "student" else f"{row['method']} {row['network']}"
        return " ".join([head, *(row[part] for part in varying if row[part])])

    return rows.apply(name, axis=1)


def _differs(rows: pd.DataFrame, name: str) -> bool:
    """Does a flag take two values within one method? Between methods, the method's name says it."""
    return bool((rows.groupby(["method", "network"])[name].nunique() > 1).any())


def table(rows: pd.DataFrame) -> str:
    """Mean test accuracy by row label and percent, as Markdown; cells without a run are blank."""
    order = list(dict.fromkeys(rows["label"]))
    grouped = rows.groupby(["label", "percent"])["test_accuracy"].agg(["mean", "count"])
    several = grouped["count"].max() > 1
    cells = grouped.apply(lambda c: f"{c['mean']:.2f}" + (f" (n={c['count']:.0f})" if several else ""), axis=1)
    pivot = cells.unstack().reindex(order).fillna("")
    lines = [["test accuracy, %", *(f"{percent:.3g}%" for percent in pivot.columns)]]
    lines += [[label, *values] for label, values in zip(pivot.index, pivot.to_numpy(), strict=True)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def curves(rows: pd.DataFrame, path: Path) -> None:
    """Test accuracy against percent of labels, a line for each row label, saved as PNG."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, (label, group) in enumerate(rows.groupby("label", sort=False)):
        means = group.groupby("percent")["test_accuracy"].mean()
        style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
        axes.plot(means.index, means, label=f"{label} (n={group['seed'].nunique()})", linestyle="-", **style)
    axes.set(xlabel="labelled images (% of training images)", ylabel="test accuracy (%)")
    axes.set_title(", ".join(rows[["model", "dataset"]].drop_duplicates().agg(" on ".join, axis=1)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--output", type=Path, default=Path("report"), help="folder for table.md and curves.png")
    args = parser.parse_args(argv)
    rows = read(args.runs)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "table.md").write_text(table(rows) + "\n", encoding="utf-8")
        curves(rows, args.output / "curves.png")
    except OSError as error:
        raise InputError(f"--output {args.output}: cannot be written ({error.strerror})") from None
    print(table(rows))
    print(f"\ntable  {(args.output / 'table.md').resolve()}\ncurves {(args.output / 'curves.png').resolve()}")
    print("runs   " + "\n       ".join(str(run.resolve()) for run in args.runs))


if __name__ == "__main__":
    cli.start(main)
