"""Exports a run's student for a device: ONNX in float32 and in 8 bits, checked and measured.

    pip install onnx onnxscript onnxruntime
    python -m common.export runs/encode-seed2023 --data_dir data

Writes into the run's folder

    student.onnx       input `image` (batch, S, S, 3) uint8, output `logits` (batch, classes); normalization is inside
    student.int8.onnx  the same, weights and activations in 8 bits, calibrated on training images alone
    export.csv         the student in both and the pair's teacher: size, cost, accuracy, latency

S is the image size of the run; resize to it as `common.predict` does. Both files carry S, the classes and the row of
results.csv as metadata. student.onnx is compared with torch on the whole test set, and refused if it differs by more
than rounding. Times are ONNX Runtime's on one thread of this CPU.
"""

import json
import os
import tempfile
from pathlib import Path

import torch

from common import console, networks, provenance, recorded, startup
from common.errors import InputError
from common.evaluation import OTHER_NETWORK
from common.experiments import ROOT
from common.export import graph, int8, measure
from common.files import replacing, write_csv
from common.networks import PAIRS
from common.parsing import COUNT, COUNT0, Parser
from common.predict import OnPixels, Student, load_student
from common.schema import EXPORT


def write(
    run: Path,
    number: int | None = None,
    data_dir: Path = ROOT / "data",
    dataset: str = "",
    calibration: int = int8.CALIBRATION,
    full_range: bool = False,
    repeats: int = measure.REPEATS,
) -> list[dict]:
    """Exports a round's student into the run's folder; returns the rows of export.csv.

    Args:
        number: the round, from 0; None takes the last.
        data_dir, dataset: where the run's images are, as `recorded.images` takes them.
        calibration, full_range: as `int8.quantize` takes them.
        repeats: timed forward passes of each network, on one image.
    Raises InputError when a package is missing, the run has no such round or trained the teacher, its images are
    missing, or ONNX Runtime's logits differ from torch's.
    """
    graph.need()
    student = load_student(run, number)
    record, folder = student.record, student.path.parent
    if record.get("network", "student") != "student":
        raise InputError(f"{run}: trained a teacher; what is exported is a student: name a run that trained one")
    images, _ = recorded.images(folder, data_dir, dataset)
    net, expected = student.on_pixels(), graph.torch_logits(student.on_pixels(), images.test)
    calibrated_on = int8.calibration_images(images, record["seed"], calibration)
    files = {"fp32": folder / "student.onnx", "int8": folder / "student.int8.onnx"}
    with replacing(files["fp32"]) as fp32, replacing(files["int8"]) as quantized:
        graph.write(net, student.image_size, fp32)
        int8.quantize(fp32, calibrated_on, quantized, full_range)
        for path in (fp32, quantized):
            graph.describe(path, _about(student))
        sessions = {"fp32": graph.session(fp32), "int8": graph.session(quantized)}
        found = {name: graph.logits(session, images.test) for name, session in sessions.items()}
        graph.check(found["fp32"], expected)
        with tempfile.TemporaryDirectory() as temporary:
            if has_teacher(record, student.image_size):
                # only its cost is needed: the weights do not matter, and the file is not kept
                path = Path(temporary) / "teacher.onnx"
                teacher = OnPixels(PAIRS[record["model"]].teacher(len(student.classes)), **student.normalization).eval()
                graph.write(teacher, student.image_size, path)
                sessions["teacher"], teacher_bytes = graph.session(path), path.stat().st_size
            taken = measure.latencies(sessions, images.test[:1], repeats)
    shared = {name: record[name] for name in ("model", "dataset", "method", "seed", "round", "percent")} | {
        "repeats": repeats,
        "threads": 1,
        "cpu": provenance.machine(torch.device("cpu")),
        "busy": startup.BUSY,
        "onnxruntime": graph.version(),
    }
    rows = []
    for precision, bytes_each in (("fp32", 4), ("int8", 1)):
        rows.append(shared | _cost(student, "student") | taken[precision] | {
            "precision": precision,
            "file": files[precision].name,
            "file_bytes": files[precision].stat().st_size,
            "peak_activation_bytes": measure.peak_activations(net, student.image_size, bytes_each),
            **graph.compare(found[precision], expected, images.test_labels),
        })  # fmt: skip
    if "teacher" in sessions:
        rows.append(shared | _cost(student, "teacher") | taken["teacher"] | {
            "precision": "fp32",
            "file_bytes": teacher_bytes,
            "peak_activation_bytes": measure.peak_activations(teacher, student.image_size, 4),
            "accuracy": record.get("teacher_accuracy", ""),
        })  # fmt: skip
    write_csv(folder / "export.csv", [EXPORT, *([row.get(name, "") for name in EXPORT] for row in rows)])
    return rows


def has_teacher(record: dict, image_size: int) -> bool:
    """Is a round's student compared with the pair's teacher? Not if another network's logits taught it, whose cost is
    unknown here, nor if the images are too small for the pair's teacher.
    """
    return record.get("teacher") != OTHER_NETWORK and image_size >= networks.smallest_image(record["model"], "teacher")


def _about(student: Student) -> dict:
    """An ONNX file's metadata: what it says about itself, by name."""
    record = {name: value for name, value in student.record.items() if value != "" and name not in Student._fields}
    return record | {
        "classes": json.dumps(student.classes),
        "image_size": student.image_size,
        "input": "uint8 RGB (batch, height, width, 3); normalization is inside",
    }


def _cost(student: Student, network: str) -> dict:
    parameters, macs = networks.cost(student.record["model"], network, len(student.classes), student.image_size)
    return {"network": network, "parameters": parameters, "macs": macs}


def show(rows: list[dict]) -> str:
    """The rows of `write` as text for a reader."""
    fp32, quantized, *teacher = rows
    lines = [
        f"student.onnx: {fp32['accuracy']}% of the test set, as torch; the largest difference of a logit is "
        f"{fp32['largest_logit_difference']}",
        f"student.int8.onnx: {quantized['accuracy']}%; {quantized['agreement']}% of the images get the class that "
        f"float32 gives; the largest difference of a logit is {quantized['largest_logit_difference']}",
    ]
    for name, row in (("student", fp32), ("student, int8", quantized), *(("teacher", row) for row in teacher)):
        lines.append(
            f"{name}: {row['file_bytes'] / 1e6:.3g} MB, {row['macs'] / 1e6:.3g} M multiply-accumulates, "
            f"{row['peak_activation_bytes'] / 1024:.3g} KB of activations, {row['latency_ms']} ms an image "
            f"(95% within {row['latency_ms_p95']})"
        )
    lines.append(f"times: median of {fp32['repeats']} on one thread of {fp32['cpu']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run that trained a student")
    parser.add_argument("--round", type=COUNT0, help="round of the student, from 0; default: the last one")
    add_data_flags(parser)
    parser.add_argument("--repeats", type=COUNT, default=measure.REPEATS, help="timed passes of each network")
    args = parser.parse_args(argv)
    rows = write(args.run, args.round, args.data_dir, args.dataset, args.calibration, args.full_range, args.repeats)
    print(show(rows))
    if startup.BUSY:
        console.note("other processes were busy on this machine; repeat the timing on a quiet one")


def add_data_flags(parser: Parser) -> None:
    """Adds the flags that `export` and `export.study` share: where the images are, and how int8 uses them."""
    parser.add_argument("--data_dir", type=os.path.expanduser, default=ROOT / "data", help="where data sets are kept")
    parser.add_argument("--dataset", default="", help="where the run's .npz or folder is now, if it has moved")
    parser.add_argument(
        "--calibration", type=COUNT, default=int8.CALIBRATION, help="training images to calibrate int8's ranges on"
    )
    parser.add_argument(
        "--full_range",
        action="store_true",
        help="8-bit weights instead of 7-bit, for ARM and for x86 with VNNI; without VNNI, x86 sums saturate",
    )
