"""Can a discriminator learn anything? Separates a finished run's labelled from its unlabelled images.

    python -m common.analysis.separability runs/encode-seed2023 --data_dir data

For each round, a linear classifier and a network with one hidden layer learn from the student's features which images
of the pool were labelled, and are tested on held-out images (5 folds); guessing has an area under the ROC curve of 0.5.
A discriminator that does better than these has memorized single images, not learned how the pools differ. Beside the
areas is the student's accuracy in percent on labelled, unlabelled and next queried images: a strategy that finds what
the student cannot do yet queries images on which it is less accurate than on the unlabelled pool. Areas are blank where
a pool has fewer than ten images.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common import augment, entry, networks, predict, reading, recorded
from common.augment import View
from common.data import Images
from common.errors import InputError
from common.experiments import ROOT
from common.parsing import Parser

MOST, FEWEST = 5000, 10  # images of each pool: at most, and at least, as one of five folds may lack a class
CLASSIFIERS = {
    "linear": LogisticRegression(C=0.1, max_iter=300),
    "network": MLPClassifier(128, early_stopping=True, max_iter=30, random_state=0),
}


def separability(labeled: np.ndarray, unlabeled: np.ndarray) -> dict[str, float]:
    """Each classifier's area under the ROC curve on held-out rows of the features (N, D) and (M, D)."""
    x, y = np.concatenate([labeled, unlabeled]), np.repeat([1, 0], [len(labeled), len(unlabeled)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is intended
        return {
            name: cross_val_score(make_pipeline(StandardScaler(), model), x, y, scoring="roc_auc").mean()
            for name, model in CLASSIFIERS.items()
        }


@torch.no_grad()
def look(net: networks.SplitNet, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """The pool's features (N, D), and which of its images `net` classifies correctly (N,), in the pool's order."""
    parts = []
    for index in images.pool.split(1000):
        z = net.features(augment.pixels(images.train, View(index)))
        parts.append((z.flatten(1).cpu(), (net.classifier(z).argmax(1) == images.labels[index]).cpu()))
    features, correct = map(torch.cat, zip(*parts, strict=True))
    return features.numpy(), correct.numpy()


def _fill(images: Images, queries: pd.DataFrame, folder: Path) -> None:
    """Fills in the labels that the run used, wherever its `--labels` file is now."""
    places = images.places()
    for index, label in zip(queries["index"], queries["label"], strict=True):
        if index not in places:
            raise InputError(f"{folder / 'queries.csv'}: there is no image {index} in the run's data; put a copy of "
                             "the file back")  # fmt: skip
        images.labels[places[index]] = label


def rounds(folder: Path, data_dir: Path) -> list[dict[str, float]]:
    """A row for each of the run's rounds that left some of the pool unlabelled.

    An accuracy is missing where the label of any of its images is, as with `--labels`: over the labelled ones alone it
    would be another quantity.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: not the folder of a run, there is no config.json in it")
    images, _ = recorded.images(folder, data_dir)
    finished = reading.results(folder).set_index("round")
    queries = reading.details(folder, "queries", len(finished), len(images.classes))
    _fill(images, queries, folder)
    asked = pd.read_csv(folder / "queries.csv", usecols=["round", "index"])  # `details` omits those not yet labelled
    origin = images.origin[images.pool.cpu()].numpy()
    known = (images.labels[images.pool] >= 0).cpu().numpy()
    held_out = torch.isin(images.pool, images.val).cpu().numpy()  # with --val_labels bought: never trained on
    drawn = np.random.default_rng(0).permutation(len(origin))
    rows = []
    for number in predict.rounds(folder):
        bought = np.isin(origin, queries.loc[queries["round"] <= number, "index"])
        count = finished["labeled"][number] if "labeled" in finished else ""  # older runs do not say
        if count != "" and int(count) != bought.sum():
            raise InputError(f"{folder / 'queries.csv'}: has {bought.sum()} images of the pool up to round {number}, "
                             f"results.csv has {count}; put a copy of the file back")  # fmt: skip
        labeled = bought & ~held_out
        if bought.all():
            break
        features, correct = look(predict.load_student(folder, number).net, images)
        queried = np.isin(origin, asked.loc[asked["round"] == number + 1, "index"])
        pools = drawn[labeled[drawn]], drawn[~bought[drawn]]
        most = min(MOST, *map(len, pools))
        row = {"labels": bought.sum()} | dict.fromkeys(CLASSIFIERS, float("nan"))
        if most >= FEWEST:
            row |= separability(*(features[pool[:most]] for pool in pools))
        groups = {"labeled": labeled, "unlabeled": ~bought, "queried": queried}
        groups = {name: group for name, group in groups.items() if group.any() and known[group].all()}
        rows.append(row | {name: 100 * correct[group].mean() for name, group in groups.items()})
    if not rows:
        raise InputError(f"{folder}: has no finished round, with its round_NN.pt, that left images unlabelled")
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of Random, KD or EnCoDe runs, with round_NN.pt")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data")
    args = parser.parse_args(argv)
    for folder in args.runs:
        table = pd.DataFrame(rounds(folder, args.data_dir))
        print(f"{folder}\n{table.to_string(index=False, float_format='%.3f', na_rep='')}", flush=True)


if __name__ == "__main__":
    entry.run(main)
