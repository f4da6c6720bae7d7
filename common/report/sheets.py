"""Contact sheets of queried images, sized to fit a page."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from common import datasets, recorded
from common.errors import InputError
from common.report import style
from common.report.results import Results

SIDE = 3  # images across and down in the cell of a class and round
ROUNDS, CLASSES = 10, 10  # rows and columns of one sheet
CELL = 0.72  # inches: ten classes with their labels are as wide as A4 or letter paper within its margins


def contact_sheets(found: Results, data_dir: Path, output: Path) -> list[Path]:
    """The first nine queried images of each class in each round, sheets for each run: rounds down, classes across.

    Raises InputError when a run's images are missing or have changed.
    """
    files, names = [], _names(found.queries["run"].unique())
    for run, queries in found.queries.groupby("run", sort=False):
        config = found.configs[run]
        if not isinstance(config.get("dataset"), str):
            raise InputError(f"{run}: has no config.json whose dataset says which images were queried")
        options = {"data_source": "auto", "extra": False, **config, "data_dir": str(data_dir)}
        try:
            source = datasets.load(argparse.Namespace(**options))
        except InputError as error:
            raise InputError(f"{run}: its images cannot be loaded ({error}); put them there again, or leave out "
                             "--data_dir, which draws them") from None  # fmt: skip
        if "data" in config:
            recorded.images(Path(run), data_dir, source=source)  # refuses other images than the run's
        if queries["index"].max() >= len(source.x_train):
            raise InputError(f"{Path(run) / 'queries.csv'}: there is no image {queries['index'].max()}; "
                             f"--dataset {config['dataset']} has {len(source.x_train)}, counted from 0")  # fmt: skip
        rounds, classes = sorted(queries["round"].unique()), list(range(len(source.classes)))
        pages = [(rounds[row : row + ROUNDS], classes[column : column + CLASSES])
                 for row in range(0, len(rounds), ROUNDS) for column in range(0, len(classes), CLASSES)]  # fmt: skip
        percents = queries.groupby("round")["percent"].first()
        output.mkdir(parents=True, exist_ok=True)
        for number, (down, across) in enumerate(pages, 1):
            sheet = _sheet(source, queries, down, across)
            name = names[run] + (f"-{number}" if len(pages) > 1 else "")
            labels = [f"{round_}\n{style.percent(percents[round_])}" for round_ in down]
            path = output / f"queried-{name}.png"
            _draw(sheet, labels, [source.classes[column] for column in across], name, path)
            files.append(path)
    return files


def _names(runs: Iterable[str]) -> dict[str, str]:
    """The name of each run's sheets: its folder, preceded by parent folders as far as names coincide."""
    folders = {run: Path(os.path.abspath(run)) for run in runs}
    depth = 1
    while len({folder.parts[-depth:] for folder in folders.values()}) < len(set(folders.values())):
        depth += 1
    return {run: "-".join(folder.parts[-depth:]).lstrip("/-") for run, folder in folders.items()}


def _sheet(source, queries, rounds: list[int], classes: list[int]) -> np.ndarray:
    """The sheet's pixels, with white between the cells."""
    height, width = source.x_train.shape[1:3]
    thin = max(1, width // 16)  # between images; the gap between cells is wider
    gap, tall, wide = 4 * thin, height + thin, width + thin  # an image with its margin
    sheet = np.full((len(rounds) * (SIDE * tall + gap), len(classes) * (SIDE * wide + gap), 3), 255, np.uint8)
    for row, number in enumerate(rounds):
        asked = queries[queries["round"] == number]
        for column, label in enumerate(classes):
            # by the labels that the run used: the `--labels` file may have moved
            index = asked.loc[asked["class"] == label, "index"].to_numpy()[: SIDE**2]
            for place, image in enumerate(source.x_train[index]):
                top = row * (SIDE * tall + gap) + gap // 2 + place // SIDE * tall
                left = column * (SIDE * wide + gap) + gap // 2 + place % SIDE * wide
                sheet[top : top + height, left : left + width] = image
    return sheet


def _draw(sheet: np.ndarray, rounds: list[str], classes: list[str], title: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(CELL * max(4, len(classes)) + 0.8, CELL * len(rounds) + 1.0))
    axes.imshow(sheet, extent=(0, len(classes), len(rounds), 0), interpolation="nearest")
    axes.set_xticks(np.arange(len(classes)) + 0.5, [name[:12] for name in classes], fontsize="x-small")
    axes.set_yticks(np.arange(len(rounds)) + 0.5, rounds, fontsize="x-small")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_ylabel("round of the query, labels then", fontsize="small")
    axes.set_title(f"{title}: the first {SIDE**2} of each class", fontsize="small")
    figure.savefig(path, dpi=200, facecolor=style.PAPER)
    plt.close(figure)
