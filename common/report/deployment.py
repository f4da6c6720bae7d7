"""Table II and its figure: each network's cost on a device and its accuracy, from the runs' export.csv."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import EngFormatter, NullFormatter

from common import networks
from common.errors import InputError
from common.files import write_text
from common.report import style
from common.report.markdown import Table
from common.report.naming import logits_file
from common.report.results import PAPER_NETWORK, Results, of
from common.report.statistics import FEW, interval
from common.report.tables import DAGGER, plain
from common.schema import EXPORT

SLACK = 0.5  # points of test accuracy between torch and ONNX Runtime; one image of a test set of 200
PAPER_PERCENT = 60  # Table II gives EnCoDe at 60% of the labels
TEACHERS = ("Baseline", "Single teacher", "teacher")  # rows that are compared with the paper's teachers
NUMBERS = ("seed", "round", "percent", "file_bytes", "parameters", "macs", "latency_ms", "accuracy")
HEAD = {
    "row": "row",
    "model": "model",
    "dataset": "dataset",
    "precision": "precision",
    "percent": "labels, %",
    "accuracy": "accuracy, %",
    "n": "n",
    "ms": "ms an image",
    "ratio": "time, teacher 1",
    "paper": "the paper's",
    "megabytes": "file, MB",
    "parameters": "parameters, M",
    "macs": "MACs, M",
}


def exports(found: Results) -> pd.DataFrame:
    """The lines of the runs' export.csv that belong to their rows, with `label`, `run` and `ratio`, the time divided by
    the teacher's in the same file (NaN if it has none).

    Raises InputError when a file is damaged or names a round that the run does not have.
    """
    tables = [_read(Path(run)) for run in dict.fromkeys(found.rows["run"]) if (Path(run) / "export.csv").exists()]
    if not tables:
        return pd.DataFrame(columns=[*EXPORT, "label", "run", "ratio"])
    table = pd.concat(tables, ignore_index=True)
    keys = found.rows.loc[found.rows["own"], ["run", "round", "label", "test_accuracy"]]
    joined = table.merge(keys, on=["run", "round"], how="left")
    for line in joined[joined["label"].isna()].itertuples():
        raise InputError(f"{Path(line.run) / 'export.csv'}: is of round {line.round}, which results.csv does not have; "
                         "export the run again")  # fmt: skip
    # ONNX Runtime's logits equal torch's up to rounding: at most an image or two may get another class
    of_student = (joined["network"] == "student") & (joined["precision"] == "fp32")
    apart = (joined["accuracy"] - joined["test_accuracy"]).abs() > SLACK
    for line in joined[of_student & apart].itertuples():
        raise InputError(
            f"{Path(line.run) / 'export.csv'}: is of a network with {line.accuracy:g}% test accuracy, round "
            f"{line.round} has {line.test_accuracy:g}%; export the run again"
        )
    return joined


def _read(run: Path) -> pd.DataFrame:
    path = run / "export.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); export the run again") from None
    if missing := [column for column in EXPORT if column not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; export the run again")
    for column in NUMBERS:
        try:
            table[column] = pd.to_numeric(table[column])  # an empty cell is NaN: the accuracy of an unknown teacher
        except ValueError as error:
            raise InputError(
                f"{path}: {column} holds a value that is not a number ({error}); export the run again"
            ) from None
    teacher = table.loc[table["network"] == "teacher", "latency_ms"]
    if len(teacher) > 1 or not (table["latency_ms"] > 0).all():
        raise InputError(f"{path}: holds several lines of a teacher, or no times; export the run again")
    return table.assign(run=str(run), ratio=table["latency_ms"] / (math.nan if teacher.empty else teacher.iloc[0]))


def lines(found: Results, exported: pd.DataFrame, ratios: dict[tuple, float]) -> pd.DataFrame:
    """A row for each network of Table II: HEAD's columns (numbers), half_width.

    A row whose runs were exported shows what was measured then (`exported`, from `exports`), in float32 and int8, at
    the exported percents. Any other row shows its highest percent (EnCoDe: the paper's 60 if it has it), and the time
    from `ratios`, by model, number of classes and image size.
    """
    table, of_teachers = [], teachers(found)
    for setting in found.settings():
        ours, rows = of(exported, setting), found.of(setting)
        teacher = ours[ours["network"] == "teacher"]
        if of_teachers.isdisjoint(rows["label"]) and not teacher.empty:
            which = [_teacher(found, line) for line in teacher.itertuples()]
            which = pd.DataFrame(which, teacher.index, ["sha256", "at"])
            for percent, part in teacher.groupby(which["at"], dropna=False):
                values = part.loc[~which["sha256"][part.index].duplicated(), "accuracy"].dropna()
                table.append(_line(found, setting, "teacher", "fp32", percent, values, part))
        for label, row in rows.groupby("label", sort=False):
            here = ours[(ours["label"] == label) & (ours["network"] == "student")]
            for (percent, precision), part in here.groupby(["percent", "precision"], sort=True):
                table.append(_line(found, setting, label, precision, percent, part["accuracy"], part))
            if here.empty:
                at = _percent(label, row)
                values = row.loc[row["percent"] == at, "test_accuracy"]
                line = _line(found, setting, label, "fp32", at, values, teacher if label in of_teachers else here)
                run = row["run"].iloc[0]
                if label not in of_teachers and not logits_file(found.configs[run]):  # another's time is unknown
                    line["ratio"] = ratios.get((setting[0], *found.shape(run, setting[0])), math.nan)
                table.append(line)
    return pd.DataFrame(table)


def _teacher(found: Results, line) -> tuple[str, float]:
    """Which teacher a line of export.csv is of, as runs may share one: its SHA-256, or its accuracy if there is no
    record; and its percent if each round has its own."""
    known = found.made[line.run].teachers
    fair = found.configs[line.run].get("teacher_labels") == "labeled"
    return known[min(line.round, len(known) - 1)] if known else str(line.accuracy), line.percent if fair else math.nan


def teachers(found: Results) -> set[str]:
    """The rows that are teachers: Baseline and its variants, Single's teacher, `teacher` of an export."""
    return {"teacher", *found.rows.loc[found.rows["network"] == "teacher", "label"]}


def _percent(label: str, row: pd.DataFrame) -> float:
    if label.startswith("EnCoDe") and (row["percent"] == PAPER_PERCENT).any():
        return PAPER_PERCENT
    return row["percent"].max()


def _line(found: Results, setting: tuple, label: str, precision: str, percent, accuracies, measured) -> dict:
    """One row. `measured`: its lines of export.csv; without any, time and size are missing."""
    mean, half_width = interval(accuracies) if len(accuracies) else (math.nan, math.nan)
    part = "teacher" if label in teachers(found) else "student"
    runs = found.of(setting)
    own = runs[runs["label"] == label]  # empty for an export's teacher, which belongs to all rows
    shape = found.shape((runs if own.empty else own)["run"].iloc[0], setting[0])
    parameters, macs = networks.cost(setting[0], part, *shape)
    same_cpu = measured["cpu"].nunique() == 1  # milliseconds of two machines cannot be averaged
    return {
        "model": setting[0],
        "dataset": setting[1],
        "row": label,
        "precision": precision,
        "percent": percent,
        "accuracy": mean,
        "half_width": half_width,
        "n": len(accuracies),
        "ms": measured["latency_ms"].median() if same_cpu else math.nan,
        "ratio": 1.0 if part == "teacher" else measured["ratio"].dropna().median(),
        "paper": _paper_ratio(setting, label) if precision == "fp32" else math.nan,
        "megabytes": measured["file_bytes"].median() / 1e6,
        "parameters": parameters / 1e6,
        "macs": macs / 1e6,
    }


def _paper_ratio(setting: tuple[str, str], label: str) -> float:
    """The paper's Table II: inference time relative to the teacher's; NaN if it has none. It has CIFAR-10 and SVHN."""
    table = pd.read_csv(Path(__file__).with_name("table2.csv")).set_index("network")["inference_time_ratio"]
    network, label = PAPER_NETWORK.get(setting[0], setting[0]), label.removesuffix("†")
    theirs = {"Single": "Comp", "CM": "Comp", "EnCoDe": "Encode"} | dict.fromkeys(TEACHERS, "")
    known = label in theirs and setting[1] in ("cifar10", "svhn")
    return float(table.get(theirs[label] + network, math.nan)) if known else math.nan


def table2(found: Results, ratios: dict[tuple, float]) -> tuple[Table, pd.DataFrame]:
    """Table II with its notes, and its `lines`.

    Args:
        ratios: student's time relative to teacher's, by model, number of classes and image size, for rows that were
            not exported.
    Raises InputError when an export.csv is damaged.
    """
    exported = exports(found)
    table = lines(found, exported, ratios)
    rows = [[_text(line, column) for column in HEAD] for _, line in table.iterrows()]
    dagger = [DAGGER] if table["row"].str.endswith("†").any() else []
    return Table("", list(HEAD.values()), rows, _notes(exported, bool(ratios)) + dagger), table


def write(found: Results, second: Table, table: pd.DataFrame, output: Path) -> list[Path]:
    """Writes table2.md, table2.csv and, if a run was exported, deployment.png and .svg, from `table2`; returns them."""
    files = [output / "table2.md", output / "table2.csv"]
    write_text(files[0], "\n\n".join(second.markdown()) + "\n")
    frame = pd.DataFrame(second.rows, columns=second.head)
    write_text(files[1], frame.to_csv(index=False, lineterminator="\n"))
    timed = table[table["ms"].notna() & (table["n"] > 0)]
    return files + (figure(found, timed, output / "deployment") if len(timed) else [])


def _text(line: pd.Series, column: str) -> str:
    value = line[column]
    if line["n"] == 0 and column in ("accuracy", "n"):  # a teacher from elsewhere: its accuracy is unknown
        return ""
    if column == "accuracy":
        return plain(value, line["half_width"])
    if isinstance(value, str) or column == "n":
        return str(value)
    return "" if math.isnan(value) else f"{value:.3g}"


def _notes(exported: pd.DataFrame, timed: bool) -> list[str]:
    notes = []
    if not exported.empty:
        cpus = ", ".join(dict.fromkeys(exported["cpu"]))
        notes.append(
            f"Rows with milliseconds: ONNX Runtime, one image, one thread of {cpus}; median of "
            f"{', '.join(dict.fromkeys(exported['repeats']))} passes (`python -m common.export`). Their accuracy is "
            "that of the n runs which were exported."
        )
        if busy := list(dict.fromkeys(exported.loc[exported["busy"] == "True", "run"])):
            notes.append(f"Timed while other processes were busy, to be taken again: {', '.join(busy)}.")
    if timed:
        notes.append("Other times: median of 50 forward passes of one image in torch on this machine's CPU, float32.")
    return notes


def figure(found: Results, timed: pd.DataFrame, path: Path) -> list[Path]:
    """Accuracy against latency and against multiply-accumulates: a point for each row, hollow for int8.

    Bars are 95% intervals over three or more seeds.

    Args:
        timed: the `lines` with a measured time and an accuracy.
    """
    settings = [key for key, _ in timed.groupby(["model", "dataset"], sort=False)]
    looks = {"teacher": {"color": style.INK}, **style.styles(found)}
    shape = {"figsize": (11, 3.6 * len(settings)), "squeeze": False, "sharey": "row"}
    figure, panels = plt.subplots(len(settings), 2, **shape)
    for axes, setting in zip(panels, settings, strict=True):
        here = of(timed, setting)
        for axis, column, title in zip(axes, ("ms", "macs"), ("ms an image, one thread", "MACs"), strict=True):
            for line in here.itertuples():
                half = line.half_width if line.n >= FEW else 0
                color = looks[line.row]["color"]
                axis.errorbar(
                    [line.ms if column == "ms" else 1e6 * line.macs],
                    [line.accuracy],
                    [[min(half, line.accuracy)], [min(half, 100 - line.accuracy)]],
                    color=color,
                    marker="s" if line.row in teachers(found) else "o",
                    markerfacecolor="none" if line.precision == "int8" else color,
                    capsize=2 if half else 0,
                    linestyle="",
                    label=f"{line.row}{'' if math.isnan(line.percent) else f', {line.percent:.3g}%'}, {line.precision} "
                    f"(n={line.n})",
                )
            axis.set(xscale="log", xlabel=title)
            axis.xaxis.set_major_formatter((lambda at, _: f"{at:g}") if column == "ms" else EngFormatter(sep=" "))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.margins(x=0.15, y=0.15)
            axis.grid(alpha=0.3)
        low, high = axes[0].get_ylim()
        axes[0].set(ylabel="test accuracy (%)", ylim=(max(low, 0), min(high, 100)), title=" on ".join(setting))
        axes[1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return style.save(figure, path)
