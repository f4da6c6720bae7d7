"""Names of the tables' rows: the paper's name for what was trained, and what distinguishes it from the others."""

import json
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import InputError
from common.experiments import DISTILLED
from common.recipes import STUDENTS, TEACHERS, student
from common.runs import ELSEWHERE, OTHER, TRAIN_DATA
from common.samplers import SAMPLERS
from common.schema import BEFORE, VARIANTS

# The rows of the paper's Table I and those of all labels, in the order shown, by what results.csv says was trained.
NAMES = {
    ("Single", "teacher"): "Single teacher",
    ("Random", "teacher"): "Baseline",
    ("Single", "student"): "Single",
    ("Random", "student"): "CM",
    ("KD", "student"): "CM+KD",
    ("EnCoDe", "student"): "EnCoDe",
}
ORACLES = [name for name, kind in SAMPLERS.items() if kind.oracle]  # these read the labels that they query
# Keys of config.json that may differ within a cell: where and with what a run was made, and which cells it has.
OWN = ELSEWHERE | {"expt", "seed", "rounds", "teacher", "percents", "initial_budget", "budget", "data", "dataset"}
OWN |= {"made_with", "teacher_sha256", "pool"}
RECIPES = ["own", *STUDENTS, *TEACHERS]  # of --recipe: names omit the first one that a row has
# Flags other than --teacher_* that a fair teacher depends on.
TEACHER = {"num_images", "num_val", "num_classes", "image_size", "take", "extra", "flip", "val_labels"}


def labeled(rows: pd.DataFrame, configs: dict[str, dict], ablation: bool, given: dict[str, str]) -> pd.DataFrame:
    """`named`, but with the `given` names, by run folder, for the networks of some runs; daggers stay."""
    own = rows["own"] & rows["run"].isin(given)
    parts = [named(part, configs, ablation) for part in (rows[~own], rows[own]) if len(part)]
    rows = pd.concat(parts).sort_index()
    dagger = rows["label"].str.endswith("†").map({True: "†", False: ""})
    rows.loc[own, "label"] = rows["run"].map(given)[own] + dagger[own]
    return rows


def named(rows: pd.DataFrame, configs: dict[str, dict], ablation: bool = False) -> pd.DataFrame:
    """The rows with `shared_teacher` (whether all rounds had one teacher), `oracle` and `label`.

    A row's name in the tables is the paper's, what distinguishes the row, the file of its logits, and a dagger for a
    teacher that saw every label, or some that its student did not buy. A missing value, as in files older than its
    column, counts as the usual one.

    Args:
        rows: results.csv of all runs, with `run`, and `own`: not a row of KD's fair teacher.
        configs: run folder -> config.json.
        ablation: names omit what most runs of a row have and give all other flags; without it they omit the usual
            choices of VARIANTS, and beyond VARIANTS distinguish only recipes.
    Raises InputError when a method trains no such network.
    """
    values, mentioned = _choices(rows, ablation)
    columns_of = {
        value: [name for name in VARIANTS if (mentioned[name] == value).any()]
        for value in set(mentioned.to_numpy().ravel())
    }
    names = []
    for number, pair in enumerate(zip(rows["method"], rows["network"], strict=True)):
        if pair not in NAMES:
            raise InputError(f"{Path(rows['run'].iloc[number]) / 'results.csv'}: {pair[0]} trains no {pair[1]}; "
                             "Single and Random do")  # fmt: skip
        apart = [(name, value) for name, value in mentioned.iloc[number].items() if value]
        alone = {name: len(columns_of[value]) == 1 and (name == "sampler" or not ablation) for name, value in apart}
        apart = [_said(name, value, alone[name]) for name, value in apart]
        names.append(_added(NAMES[pair], apart))
    logits = rows["run"].map(lambda run: logits_file(configs[run])).where(rows["method"].isin(DISTILLED), "")
    shared = rows["method"].isin(DISTILLED) & (values["teacher_labels"] == "all")
    names = [_added(name, [file] if file else []) for name, file in zip(names, logits, strict=True)]
    rows = rows.assign(shared_teacher=shared, oracle=rows["sampler"].isin(ORACLES), label=names)
    rows["label"] = _teachers_apart(rows, configs)
    rows["label"] = _runs_apart(rows, configs) if ablation else _recipes_apart(rows, configs)
    more = shared & _saw_more(rows, configs, unknown=logits == "")
    rows["label"] += more.groupby(rows["run"]).transform("any").map({True: "†", False: ""})
    return rows


def _choices(rows: pd.DataFrame, ablation: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each row's choices of VARIANTS, and those that its name mentions: empty for the ones it omits."""
    values, mentioned = rows[list(VARIANTS)].copy(), pd.DataFrame("", rows.index, list(VARIANTS))
    alike = ["method", "network", *(("model", "dataset") if ablation else ())]
    for name, choices in VARIANTS.items():
        for _, group in values.groupby([rows[name] for name in alike], sort=False):
            there = set(group[name])
            usual = [choice for choice in choices if choice in there][-1:] or choices[:1]
            if name == "sampler":  # a choice that is not random, or not EnCoDe's own, is always named
                usual = ["vae" if rows.loc[group.index[0], "method"] == "EnCoDe" else "random"]
            filled = group[name].replace("", usual[0])
            if ablation and name != "sampler":
                usual = [most(filled[~rows.loc[group.index, "run"].duplicated()], choices)]
            values.loc[group.index, name] = filled
            if filled.nunique() > 1 or name == "sampler":
                mentioned.loc[group.index, name] = filled.replace(usual[0], "")
    oracle = rows["sampler"].isin(ORACLES)
    mentioned.loc[oracle, "sampler"] = "oracle: " + rows.loc[oracle, "sampler"]  # whatever the other rows have
    return values, mentioned


def row_named(rows: pd.DataFrame, reference: str) -> str:
    """The label of `--against`, which may omit the dagger (few keyboards have it). Raises InputError for no row."""
    labels = list(dict.fromkeys(rows["label"]))
    label = next((name for name in (reference, f"{reference}†") if name in labels), None)
    if label is None:
        raise InputError(f"--against {reference!r}: no such row; there are {', '.join(labels)}")
    return label


def logits_file(config: dict) -> str:
    """The name of the file of another network's logits that taught (`--teacher FILE.npz`); empty without one.

    Teachers of one row's runs share this name; their content may differ from seed to seed.
    """
    return name if (name := Path(config.get("teacher", "")).name).endswith(".npz") else ""


def flags(config: dict) -> dict:
    """The flags that runs of one cell share. For runs without a record of amp, it is one of them."""
    own = OWN | ({TRAIN_DATA} if config.get("labels") else set())  # which then holds file names instead of labels
    kept = {name: value for name, value in config.items() if name not in own}
    return kept | ({"amp": config["amp"]} if "amp" in config and "made_with" not in config else {})


def shared(config: dict, own: bool) -> dict:
    """What runs of one cell share, of networks of their `own` or of fair teachers: flags, and the data's SHA-256."""
    found = flags(config)
    return found if own else teacher_flags(config) | {name: found[name] for name in OTHER if name in found}


def teacher_flags(config: dict) -> dict:
    """The flags of a KD run that its fair teachers depend on."""
    means = config.get("targets") == "mean" and config.get("teacher_pool") == "self_training"
    names = TEACHER | ({"views", "shift"} if means else set())
    found = {name: value for name, value in flags(config).items() if name in names or name.startswith("teacher_")}
    unused = {"teacher_seed"}  # belongs to the teacher that saw every label
    unused |= {"teacher_more_epochs"} if config.get("teacher_start") == "anew" else set()
    unused |= {"teacher_pool_epochs"} if config.get("teacher_pool") == "none" else set()
    return {name: _number(value) for name, value in found.items() if name not in unused}


def _saw_more(rows: pd.DataFrame, configs: dict[str, dict], unknown: pd.Series) -> pd.Series:
    """Did a row's teacher see labels beyond its student's, or all labels? `unknown` where no file says."""
    if "labels_in_all" not in rows:
        return unknown

    def held_out(run: str) -> int:
        """Validation images whose labels count in addition to the bought ones."""
        config = BEFORE | configs[run]
        return config.get("num_val", 0) if config["keep"] == "best" and config["val_labels"] == "extra" else 0

    counted = pd.to_numeric(rows["labels_in_all"], errors="coerce")
    images = rows["run"].map(lambda run: configs[run].get("num_images", np.inf) - configs[run].get("num_val", 0))
    own = pd.to_numeric(rows["labeled"], errors="coerce") + rows["run"].map(held_out)
    # of all rounds: in the last one, also a student's own labels may be all
    everything = (counted >= images).groupby(rows["run"]).transform("all")
    return (counted > own) | everything | (unknown & counted.isna())


def most(values: Iterable[str], usual: tuple[str, ...] = ()) -> str:
    """The most frequent value; among equals, a `usual` one, else the first."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value in usual))


def _teachers_apart(rows: pd.DataFrame, configs: dict[str, dict]) -> pd.Series:
    """The labels; those of KD runs' teachers also have the flags in which they differ, which no student's name has."""
    labels = rows["label"].copy()
    for _, group in rows[~rows["own"]].groupby(["model", "dataset", "label"]):
        found = {run: teacher_flags(BEFORE | configs[run]) for run in group["run"].unique()}
        said = texts(found)
        differing = sorted(name for name in said if len(set(said[name].values())) > 1)
        for row, label, run in group[["label", "run"]].itertuples():
            labels[row] = _added(label, [_said(name, str(found[run][name]), alone=False) for name in differing])
    return labels


def _recipes_apart(rows: pd.DataFrame, configs: dict[str, dict]) -> pd.Series:
    """The labels; those of runs with another recipe than the row's first one also have the recipe's name."""
    labels = rows["label"].copy()
    for _, group in rows[rows["own"]].groupby(["model", "dataset", "label"]):
        recipe = group.apply(lambda row: _recipe(row, BEFORE | configs[row["run"]]), axis="columns")
        usual = min(recipe, key=RECIPES.index)
        for row, name in recipe[recipe != usual].items():
            labels[row] = _added(labels[row], [name])
    return labels


def _recipe(row: pd.Series, config: dict) -> str:
    """The one of RECIPES with the most flags whose flags a run has, given by `--recipe` or one by one; the first of
    equals: for the student alone, a recipe added to STUDENTS is `fair`."""

    def has(recipe: dict) -> bool:
        return all(name in config and _number(config[name]) == _number(value) for name, value in recipe.items())

    made = {"own": {}}
    if row["network"] == "teacher":
        made |= {name: flags_of(row["model"]) for name, flags_of in TEACHERS.items()}
    else:
        made |= {name: student(name, row["method"], row["model"]) for name in STUDENTS}
    return max((name for name, recipe in made.items() if has(recipe)), key=lambda name: len(made[name]))


def _runs_apart(rows: pd.DataFrame, configs: dict[str, dict]) -> pd.Series:
    """The labels; those of runs also have the flags in which they differ from most runs of the method.

    A choice of VARIANTS, which the label may have already, is compared with the runs of the label.
    """
    labels = rows["label"].copy()
    before = {name: (json.dumps(_number(value)),) for name, value in BEFORE.items()}
    for _, method in rows[rows["own"]].groupby(["model", "dataset", "method", "network"]):
        configured = {run: flags(BEFORE | configs[run]) for run in method["run"].unique() if configs[run]}
        for each in configured.values():
            each.pop(TRAIN_DATA, None)  # not a flag: runs on other images are refused
        for _, group in method.groupby("label"):
            found = {run: configured[run] for run in group["run"].unique() if run in configured}
            said, usual = texts(found), {}
            for name, values in said.items():
                others = [json.dumps(_number(each[name])) for each in configured.values() if name in each]
                usual[name] = most(values.values() if name in VARIANTS else others, before.get(name, ()))
            for row, label, run in group[["label", "run"]].itertuples():
                unusual = [name for name in sorted(usual) if run in found and said[name][run] != usual[name]]
                labels[row] = _added(label, [_said(name, str(found[run][name]), alone=False) for name in unusual])
    return labels


def texts(found: dict[Hashable, dict]) -> dict[str, dict[Hashable, str]]:
    """Flag -> run (or other key) -> its value as text, for the flags that all of them have."""
    shared = set.intersection(*map(set, found.values())) if found else set()
    return {name: {run: json.dumps(_number(each[name])) for run, each in found.items()} for name in shared}


def _number(value):
    """A recipe's 80 and the command line's 80.0 as one value."""
    return float(value) if type(value) is int else value


def _added(label: str, apart: list[str]) -> str:
    """A name followed by what distinguishes it, in parentheses."""
    if not apart:
        return label
    more = ", ".join(apart)
    return f"{label[:-1]}, {more})" if label.endswith(")") else f"{label} ({more})"


def _said(name: str, value: str, alone: bool) -> str:
    """A flag's value in a row's name; with the flag if it is a number, or is not `alone` in having this value."""
    if name == "teacher_labels" and value == "labeled":  # "labeled" usually means what is distilled on
        return "fair"
    try:
        return f"{name} {float(value):g}"
    except ValueError:
        return value if alone else f"{name} {value}"
