"""Does int8 keep what distillation gained? Rounds of many runs, in float32 and in 8 bits, on the whole test set.

    python -m common.export.study runs/table1/AlexNet-CIFAR10-{Random,KD,EnCoDe}-*seed* --percents 10 40 100

Each round's student is exported and quantized as `common.export` does, in a temporary folder; nothing is timed. Writes
int8.csv, a line for each round of each run, and int8.md: for each row of Table I and percent of labels the accuracy in
float32 and in int8, how int8 changes it, and what the row gains over --against in each. Differences are taken seed by
seed; ± is half a 95% interval over the n seeds.
"""

import tempfile
from pathlib import Path

import pandas as pd

from common import entry, recorded
from common.errors import InputError
from common.export import add_data_flags, graph, int8
from common.files import write_text
from common.parsing import RATE, Parser
from common.predict import load_student
from common.report import markdown, naming, results
from common.report.statistics import interval
from common.report.tables import plain

KEY = ["model", "dataset", "label", "percent"]


def measure(rows: pd.DataFrame, data_dir: Path, dataset: str, calibration: int, full_range: bool) -> pd.DataFrame:
    """Test accuracy of the student of each row of `results.Results.rows`, as columns fp32, int8 and agreement."""
    found = []
    for run, part in rows.groupby("run", sort=False):
        images = None
        for row in part.itertuples():
            student = load_student(run, row.round)
            images = images or recorded.images(student.path.parent, data_dir, dataset)[0]
            net = student.on_pixels()
            expected = graph.torch_logits(net, images.test)
            with tempfile.TemporaryDirectory() as folder:
                fp32, quantized = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
                graph.write(net, student.image_size, fp32)
                graph.check(graph.logits(graph.session(fp32), images.test), expected)
                drawn = int8.calibration_images(images, row.seed, calibration)
                int8.quantize(fp32, drawn, quantized, full_range)
                logits = graph.logits(graph.session(quantized), images.test)
            plain, small = (graph.compare(values, expected, images.test_labels) for values in (expected, logits))
            accuracies = {"fp32": plain["accuracy"], "int8": small["accuracy"], "agreement": small["agreement"]}
            found.append({"run": run, "seed": row.seed, **{name: getattr(row, name) for name in KEY}, **accuracies})
            print(f"{run}, {row.percent:g}%: {plain['accuracy']}, int8 {small['accuracy']}", flush=True)
    return pd.DataFrame(found).astype({"fp32": float, "int8": float, "agreement": float})


def summary(measured: pd.DataFrame, against: str) -> str:
    """The table of int8.md, from `measure`'s columns; without `against` it has no gains."""
    head = ["row", "labels, %", "n", "float32", "int8", "int8 less float32"]
    head += [f"gain over {against}, float32", "int8"] if against else []
    texts = []
    for (model, dataset), setting in measured.groupby(["model", "dataset"], sort=False):
        lines = [head]
        for (label, percent), cell in setting.groupby(["label", "percent"], sort=False):
            of = cell.set_index("seed")[["fp32", "int8"]]
            base = setting[(setting["label"] == against) & (setting["percent"] == percent)].set_index("seed")
            gain = of - base[["fp32", "int8"]]  # over common seeds; empty on the base's own line
            gain = gain.dropna() if label != against else gain[:0]
            values = of["fp32"], of["int8"], of["int8"] - of["fp32"], gain["fp32"], gain["int8"]
            signed = zip(values, ("", "", "+", "+", "+"), strict=True)
            said = ["" if column.empty else plain(*interval(column), sign) for column, sign in signed]
            if 0 < len(gain) < len(of):
                said[3:] = [f"{text} (n={len(gain)})" for text in said[3:]]
            lines.append([label, f"{percent:.3g}", str(len(of)), *said][: len(head)])
        texts.append(f"{model} on {dataset}, test accuracy in percent\n\n{markdown.table(lines)}")
    return "\n\n".join(texts)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that trained students, with round_NN.pt")
    parser.add_argument("--percents", nargs="+", type=RATE, help="percents of the rounds to measure; default: all")
    parser.add_argument("--against", help="row that gains are measured against; default: CM, if there is one")
    parser.add_argument("--output", type=Path, default=Path("int8"), help="folder for int8.csv and int8.md")
    add_data_flags(parser)
    args = parser.parse_args(argv)
    graph.need()
    rows = results.read(args.runs).rows
    rows = rows[rows["network"] == "student"]
    if args.percents:
        # results.csv may have 10.0139 for 10
        near = {asked: (rows["percent"] - asked).abs() < 0.5 for asked in args.percents}
        if none := [f"{asked:g}" for asked in near if not near[asked].any()]:
            raise InputError(
                f"--percents {' '.join(none)}: no run has a student's round of that; see their results.csv"
            )
        rows = rows[pd.DataFrame(near).any(axis=1)]
    if rows.empty:
        raise InputError(f"{', '.join(map(str, args.runs))}: trained no student; name runs that did")
    if args.against is None:
        args.against = "CM" if "CM" in set(rows["label"]) else ""
    else:  # refuse it before an hour of exports
        args.against = naming.row_named(rows, args.against)
    measured = measure(rows, args.data_dir, args.dataset, args.calibration, args.full_range)
    args.output.mkdir(parents=True, exist_ok=True)
    write_text(args.output / "int8.csv", measured.to_csv(index=False, lineterminator="\n"))
    text = summary(measured, args.against)
    write_text(args.output / "int8.md", text + "\n")
    print(text)


if __name__ == "__main__":
    entry.run(main)
