"""Results of many runs -> the paper's tables, curves and statistics, next to the paper's own numbers.

    python -m common.report runs/encode-seed2023 runs/kd-seed2023 --output runs/report

Reads the runs' text files and predictions. Rows are what was trained, columns percent of labels, cells the mean test
accuracy in percent with its 95% interval over n seeds. Runs of one seed are tested against each other only if they have
the same build (commit, amp, teacher) and split; --mixed tests and marks the others too. report.html has all of it on
one page. The contact sheets of queried images also need the data set.
"""

import argparse
import os
import sys
from pathlib import Path

from common import console
from common.errors import InputError
from common.parsing import Parser
from common.report import (
    ablation,
    commands,
    deployment,
    figures,
    heatmaps,
    inference,
    page,
    results,
    sheets,
    summary,
    tables,
)


def write(
    folders: list[Path],
    output: Path,
    time_inference: bool = True,
    data_dir: Path | None = None,
    mixed: bool = False,
    reference: str = "",
    ablated: bool = False,
    names: dict[Path, str] | None = None,
) -> list[Path]:
    """Writes every table and figure that the runs have data for; returns the files, the main table first.

    Args:
        folders: the runs' folders.
        output: folder for tables and figures, created if missing.
        time_inference: time teacher and student here, for Table II.
        data_dir: where the data sets are; draws the queried images.
        mixed: also test, and mark, runs of one seed that differ in commit, amp, teacher or images.
        reference: a row's name; the others are tested against it at each budget.
        ablated: runs of one cell with different flags become separate rows, named by the flags.
        names: the row names given to some of `folders`.
    Raises InputError when a folder is not a run, `reference` is not a row, runs of one cell were configured differently
    (unless `ablated`), runs that a test compares were made differently (unless `mixed`), or `output` cannot be written.
    """
    found = results.read(folders, ablated, names)
    for run in found.unfinished():
        console.note(f"{run}: no finished round yet; the report leaves it out")
    if (output / "config.json").exists():
        raise InputError(f"--output {output}: is a run's folder, some of whose files would be replaced; name another")
    claims = summary.tables(found, mixed, reference)  # first: nothing is written if runs may not be compared
    try:
        # before the folder is created: images that have moved are refused
        drawn = [] if data_dir is None else sheets.contact_sheets(found, data_dir, output)
        output.mkdir(parents=True, exist_ok=True)
        files = tables.write_table1(found, output)
        pairs = set(zip(found.rows["model"], found.rows["run"], strict=True)) if time_inference else ()
        keys = {(model, *found.shape(run, model)) for model, run in pairs}
        ratios = {key: inference.ratio(*key) for key in sorted(keys)}
        second, lines = deployment.table2(found, ratios)
        files += deployment.write(found, second, lines, output)
        files += summary.write(summary.text(claims, found), output) + commands.write(found, output)
        changes, more = ablation.write(found, output) if ablated else ([], [])
        files += more
        for draw in (figures.curves, figures.labels, figures.epochs, figures.losses, figures.macs):
            files += draw(found, output)
        files += heatmaps.class_accuracy(found, output) + heatmaps.class_balance(found, output)
        files += drawn
        files += page.write(found, second, changes, claims, files, output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from None
    return files


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    parser.add_argument("--output", type=Path, default=Path("report"), help="folder for tables and figures")
    parser.add_argument(
        "--inference",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time teacher and student at batch 1 on this machine, for Table II",
    )
    parser.add_argument(
        "--data_dir", type=Path, help="where data sets are kept; adds sheets of the queried images, by class"
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="test runs of one seed even if they differ in commit, amp, teacher or images, and mark them",
    )
    parser.add_argument(
        "--against", default="", help="name of a row, e.g. 'CM+KD': test the other rows against it at each budget"
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="make runs of one row that differ in flags rows of their own, named by what most runs do not have; adds "
        "a table of validation accuracy, test accuracy and seconds",
    )
    parser.add_argument(
        "--name",
        nargs="+",
        action="append",
        default=[],
        metavar=("ROW", "RUN"),
        help="name of a row and the further runs that make it up, for runs configured differently from budget to "
        "budget; can be repeated",
    )
    args = parser.parse_args(argv)
    names: dict[Path, str] = {}
    for row, *runs in args.name:
        if not runs:
            parser.error(f"--name {row}: names no run; use --name ROW RUN ...")
        for run in map(Path, runs):
            if names.setdefault(run, row) != row:
                parser.error(f"--name {row} {run}: was named {names[run]} before; a run has one name")
    if not args.runs and not names:
        parser.error("name the run folders")
    folders = [*args.runs, *(run for run in names if run not in args.runs)]  # a glob may have named all of them
    files = write(folders, args.output, args.inference, args.data_dir, args.mixed, args.against, args.ablation, names)
    _show("\n".join([files[0].read_text(encoding="utf-8"), *(str(file.resolve()) for file in files)]))


def _show(text: str) -> None:
    """Prints what the terminal's encoding has, ? for the rest, and stops when the reader is gone, as with `| head`."""
    if sys.stdout is None:  # closed from the start
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except BrokenPipeError:  # Python flushes once more at exit and needs somewhere to write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
