"""Run folders as a report finds them, made of text."""

import csv
import json

import numpy as np
import pytest

from common.errors import InputError
from common.report import results, summary
from common.schema import EXPORT

ALEXNET = ("AlexNet", "cifar10")
COMMITS = ("0123456789" + "a" * 30, "fedcba9876" + "b" * 30)
TEACHERS = ("1111111111" + "c" * 54, "2222222222" + "d" * 54)
EXPORTED = {"model": "AlexNet", "dataset": "cifar10", "cpu": "a CPU", "busy": "False", "repeats": "500", "threads": "1"}
HEADER = "model,dataset,method,network,sampler,distill_on,logit_loss,teacher_labels,seed,round,percent,test_accuracy"


def run(folder, method, seed, accuracies, network="student", sampler="random", dataset="cifar10", **config):
    """A run's text files: test accuracies by percent, a history of two epochs, three queries a round."""
    folder.mkdir(parents=True)
    distilled = "labeled,mse,all" if method in ("KD", "EnCoDe") else ",,"
    lines = [
        f"AlexNet,{dataset},{method},{network},{sampler},{distilled},{seed},{n},{percent},{accuracy}"
        for n, (percent, accuracy) in enumerate(accuracies.items())
    ]
    (folder / "results.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    epochs = [f"{n},{epoch},0.5,{40 + epoch}" for n in range(len(accuracies)) for epoch in (1, 2)]
    (folder / "history.csv").write_text("\n".join(["round,epoch,loss,val_accuracy", *epochs]) + "\n")
    queried = [f"{n},{index},,{index % 2}" for n in range(len(accuracies)) for index in (0, 1, 3)]
    (folder / "queries.csv").write_text("\n".join(["round,index,score,label", *queried]) + "\n")
    (folder / "config.json").write_text(json.dumps({"seed": seed, "train_epochs": 2, "dataset": dataset} | config))
    return folder


def sitting(commit=COMMITS[0], **changes):
    """One record of config.json's made_with."""
    record = {"commit": commit, "dirty": False, "torch": "2.14.1", "machine": "AMD EPYC 7B13", "device": "cpu"}
    return record | {"threads": 2, "amp": "off", "fast": "auto"} | changes


def made(folder, **config):
    """Adds keys such as made_with and teacher_sha256 to a run's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def edit(folder, name, old, new):
    """Changes a run's text file."""
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    return folder


def claims(found):
    """The text of statistics.md for these runs."""
    return summary.text(summary.tables(found), found)


def refused(*folders):
    """The one-line message with which the report refuses these runs."""
    with pytest.raises(InputError) as caught:
        results.read(list(folders))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def predictions(folder, number, predicted, labels):
    """Saves a round's predictions for the test images in the format of a run."""
    columns = {"predicted": np.array(predicted, np.uint8), "labels": np.array(labels, np.uint8)}
    np.savez_compressed(folder / f"predictions_{number:02d}.npz", **columns)


def export(folder, number, times, accuracies, **changes):
    """Writes a round's export.csv: (student, int8, teacher) in ms, (student, int8, teacher) in percent."""
    kinds = (("student", "fp32", 2_400_000), ("student", "int8", 600_000), ("teacher", "fp32", 228_000_000))
    with open(folder / "export.csv", "w", newline="") as file:
        table = csv.DictWriter(file, EXPORT, restval="")
        table.writeheader()
        for (network, precision, size), ms, accuracy in zip(kinds, times, accuracies, strict=True):
            row = EXPORTED | {"seed": 1, "round": number, "percent": [10, 60, 100][number], "network": network}
            row |= {"precision": precision, "file_bytes": size, "latency_ms": ms, "latency_ms_p95": 2 * ms}
            table.writerow(row | {"parameters": 1, "macs": 1, "accuracy": accuracy} | changes)
    return folder
