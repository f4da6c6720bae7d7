"""The export: counts and comparisons by hand, and whole exports of a toy student if the packages are installed.

`pip install onnx onnxscript onnxruntime` for the second half, which is skipped without them.
"""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from common import augment, data, export, networks, predict, recorded, runs
from common.errors import InputError
from common.export import graph, int8, measure, study
from common.schema import EXPORT

from . import toys
from .conftest import TOY, parse, run


class Pixels(nn.Module):
    """Layers after the normalization of 8x8 pixels."""

    def __init__(self, *layers, add=False):
        super().__init__()
        self.first, self.second = layers[0], nn.Sequential(*layers[1:])
        self.add = add

    def forward(self, image):
        z = self.first((image.float() - 127.5).permute(0, 3, 1, 2))
        return self.second(z) + z if self.add else self.second(z)


def test_peak_activations_by_hand():
    wide, narrow = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    # the image has 192 values, a map of four channels 256: the first convolution has both
    plain = Pixels(wide, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)).eval()
    assert measure.peak_activations(plain, 8, 1) == 192 + 256
    assert measure.peak_activations(plain, 8, 4) == 4 * (192 + 256)
    # the image is uint8 even if activations have four bytes: with one output channel the cast is the peak
    assert measure.peak_activations(Pixels(nn.Conv2d(3, 1, 8)).eval(), 8, 4) == 192 + 4 * 192
    # what an addition needs later stays alive: input and output of the second convolution, and z between
    residual = Pixels(wide, narrow, nn.BatchNorm2d(4), nn.ReLU(), narrow, add=True).eval()
    assert measure.peak_activations(residual, 8, 1) == 3 * 256
    assert measure.peak_activations(Pixels(wide, nn.Sigmoid(), narrow, add=True).eval(), 8, 1) == 3 * 256
    # but an elementwise operation overwrites what is not read again, and a view takes no memory
    quiet = Pixels(wide, nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Sigmoid(), nn.Flatten()).eval()
    assert measure.peak_activations(quiet, 8, 1) == 192 + 256


def test_peak_activations_of_alexnets_student():
    net = predict.OnPixels(networks.PAIRS["AlexNet"].student(10), **augment.NORMALIZATION).eval()
    assert measure.peak_activations(net, 64, 1) == 64 * 64 * 3 + 8 * 15 * 15  # the first convolution
    assert measure.peak_activations(net, 64, 4) == 64 * 64 * 3 * (1 + 4)  # the cast to float32


def test_latencies_are_taken_in_turns_and_warm(monkeypatch):
    clock, order = [0.0], []

    def session(name, seconds):
        def passed(outputs, feed):
            assert feed["image"].shape == (1, 8, 8, 3)
            cold = order[-measure.WARM :] != [name] * measure.WARM
            order.append(name)
            clock[0] += 1.0 if cold else seconds * (1 + 9 * (order.count(name) > 55))

        return SimpleNamespace(run=passed)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    sessions = {"student": session("student", 0.001), "teacher": session("teacher", 0.02)}
    found = measure.latencies(sessions, torch.zeros(1, 8, 8, 3, dtype=torch.uint8), repeats=60)
    # 49 of 60 passes (55 less two turns' 3 untimed ones) are quick, the rest ten times slower
    assert found["student"] == {"latency_ms": "1", "latency_ms_p95": "10"}
    assert found["teacher"] == {"latency_ms": "20", "latency_ms_p95": "200"}
    turns = [order[n] for n in range(len(order)) if n == 0 or order[n] != order[n - 1]]
    assert turns == ["student", "teacher"] * 3 and order.count("student") == 60 + 3 * measure.WARM


def test_missing_packages_are_named_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(graph.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"^onnxscript: not installed.* pip install onnx onnxscript onnxruntime$"):
        export.main([str(tmp_path)])


def test_logits_that_rounding_does_not_explain_are_refused():
    expected = np.array([[0.0, 50.0], [3.0, -2.0]], np.float32)
    graph.check(expected + 0.04, expected)
    with pytest.raises(InputError, match=r"differ from torch's by up to 0\.06, rounding explains 0\.05"):
        graph.check(expected + np.float32(0.06), expected)
    with pytest.raises(InputError, match="up to nan"):
        graph.check(np.full_like(expected, np.nan), expected)


def test_what_is_compared():
    expected = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = np.array([[1.0, 0.5], [0.2, 0.4], [0.0, 1.0]])
    compared = graph.compare(found, expected, torch.tensor([0, 1, 0]))
    assert compared == {"accuracy": "66.67", "agreement": "66.67", "largest_logit_difference": "0.8"}


def test_calibration_sees_the_pool_alone():
    images = toys.images()
    images.pool, images.val = torch.tensor([1, 3, 4, 6, 7]), torch.tensor([0, 2, 5])
    kept = int8.calibration_images(images, seed=1, count=99)
    assert sorted(kept[:, 0, 0, 0].tolist()) == [16 * index for index in (1, 3, 4, 6, 7)]
    drawn = [int8.calibration_images(images, seed, 3)[:, 0, 0, 0].tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 3


def test_calibration_sees_no_bought_validation_image():
    images = toys.images()
    images.pool = torch.tensor([6, 7, 1, 3])  # with --val_labels bought the first are validation images
    kept = int8.calibration_images(images, seed=1, count=3)
    assert sorted(kept[:, 0, 0, 0].tolist()) == [16, 48]


def test_gains_are_paired_by_seed():
    rows = [("CM", 1, 60, 59), ("CM", 2, 62, 61), ("CM", 3, 64, 63)]
    rows += [("EnCoDe", 1, 65, 63), ("EnCoDe", 2, 66, 64), ("EnCoDe", 3, 70, 68), ("EnCoDe", 4, 90, 90)]
    table = pd.DataFrame(rows, columns=["label", "seed", "fp32", "int8"])
    text = study.summary(table.assign(model="AlexNet", dataset="cifar10", percent=10.0139), "CM")
    cm, encode = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:6])
    # t(0.975, 2) = 4.3027: 60, 62 and 64 have the standard error 2 / sqrt(3)
    assert cm == ["CM", "10", "3", "62.00 ± 4.97", "61.00 ± 4.97", "-1.00 ± 0.00", "", ""]
    assert encode[:3] == ["EnCoDe", "10", "4"]
    # seeds 1 to 3, which both have: 5, 4 and 6, then 4, 3 and 5; the standard error is 1 / sqrt(3)
    assert encode[6:] == ["+5.00 ± 2.48 (n=3)", "+4.00 ± 2.48 (n=3)"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ResNet-8 of one epoch on digits: it has a batch norm to fold."""
    folder = tmp_path_factory.mktemp("trained")
    run("Single", *TOY, "--train_epochs", "1", "--lr_task", "0.1", "--save_path", str(folder), model="ResNet")
    return folder / "single-seed5"


def test_a_run_gives_its_own_images_again(trained, tmp_path):
    found, expected = recorded.images(trained, tmp_path)[0], data.load(parse("Single", model="ResNet"))
    assert torch.equal(found.pool, expected.pool) and torch.equal(found.test, expected.test)
    config = runs.read_config(trained / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(config | {"test_data": "0" * 64}))
    with pytest.raises(InputError, match="was made with other test images or class names"):
        recorded.images(tmp_path, tmp_path)
    with pytest.raises(InputError, match="--dataset nowhere"):
        recorded.images(trained, tmp_path, "nowhere.npz")


def test_runs_without_a_student_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "need", lambda: None)
    with pytest.raises(InputError, match="no finished round"):
        export.write(tmp_path)
    with pytest.raises(InputError, match=r"--round 3: .* has finished the rounds 0, from 0"):
        export.write(trained, 3)
    with torch.device("meta"):
        net = networks.PAIRS["ResNet"].teacher(2).to_empty(device="cpu")
    use = {"classes": ["a", "b"], "image_size": 32, "normalization": augment.NORMALIZATION}
    runs.save_weights(tmp_path / "round_00.pt", net, model="ResNet", network="teacher", **use)
    with pytest.raises(InputError, match="trained a teacher; what is exported is a student"):
        export.write(tmp_path)


@pytest.fixture(scope="module")
def exported(trained):
    """The toy run's folder after `python -m common.export`."""
    for package in graph.PACKAGES:
        pytest.importorskip(package, reason="the export's own packages: pip install onnx onnxscript onnxruntime")
    export.main([str(trained), "--repeats", "2", "--calibration", "64"])
    return trained


def test_the_graphs_take_pixels_in_any_batch(exported):
    student, images = predict.load_student(exported), data.load(parse("Single", model="ResNet"))
    with torch.no_grad():
        expected = student.net(augment.pixels(images.test, augment.View(torch.arange(7)))).numpy()
    for name, tolerance in (("student.onnx", 1e-5), ("student.int8.onnx", 0.1)):
        session = graph.session(exported / name)
        for batch in (7, 1):
            found = session.run(["logits"], {"image": images.test[:batch].numpy()})[0]
            assert np.abs(found - expected[:batch]).max() < tolerance * np.abs(expected).max(), name


def test_int8_has_weights_of_seven_bits_for_each_channel(exported):
    import onnx

    model = onnx.load(exported / "student.int8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert "QuantizeLinear" in kinds and "DequantizeLinear" in kinds and "BatchNormalization" not in kinds
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [node.input for node in model.graph.node if node.op_type == "DequantizeLinear"]
    weights = [
        [tensors[name] for name in inputs] for inputs in weights if tensors.get(inputs[0], np.empty(0)).ndim == 4
    ]
    assert len(weights) == 9  # the convolutions: a stem, two in each stage, two shortcuts
    for weight, scale, _ in weights:
        assert weight.dtype == np.int8 and np.abs(weight.astype(int)).max() <= 64 and scale.shape == (len(weight),)
    activations = [node.input for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert activations and all(tensors[inputs[2]].dtype == np.uint8 for inputs in activations)


def test_an_onnx_file_says_what_it_is_and_not_where_it_was_made(exported):
    import onnx

    for name in ("student.onnx", "student.int8.onnx"):
        model = onnx.load(exported / name)
        about = {item.key: item.value for item in model.metadata_props}
        assert json.loads(about["classes"]) == list("0123456789") and about["image_size"] == "32"
        assert (about["model"], about["method"], about["round"]) == ("ResNet", "Single", "0")
        assert str(predict.__file__).encode() not in model.SerializeToString()


def test_the_table_of_an_export(exported):
    with open(exported / "export.csv", newline="") as file:
        table = csv.DictReader(file)
        fp32, quantized, teacher = table
    assert table.fieldnames == EXPORT
    record = predict.load_student(exported).record
    assert fp32["accuracy"] == record["test_accuracy"] and fp32["agreement"] == "100.00"
    assert abs(float(quantized["accuracy"]) - float(fp32["accuracy"])) < 5 and float(quantized["agreement"]) > 90
    costs = [networks.cost("ResNet", part, 10, 32) for part in ("student", "student", "teacher")]
    for row, cost, part in zip((fp32, quantized, teacher), costs, ("student", "student", "teacher"), strict=True):
        assert (int(row["parameters"]), int(row["macs"])) == cost and row["network"] == part
        assert float(row["latency_ms_p95"]) >= float(row["latency_ms"]) > 0 and row["threads"] == "1" and row["cpu"]
        assert row["repeats"] == "2" and row["onnxruntime"] == graph.version()
    assert [row["precision"] for row in (fp32, quantized, teacher)] == ["fp32", "int8", "fp32"]
    for row in (fp32, quantized):
        assert int(row["file_bytes"]) == (exported / row["file"]).stat().st_size
    assert int(quantized["peak_activation_bytes"]) * 4 == int(fp32["peak_activation_bytes"])
    assert not list(exported.glob(".*.tmp"))


def test_an_interrupted_export_leaves_the_one_before(exported, monkeypatch):
    """Regression: the networks were new and export.csv, which describes them, was not."""
    names = ("student.onnx", "student.int8.onnx", "export.csv")
    before = [((exported / name).read_bytes(), (exported / name).stat().st_ino) for name in names]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "latencies", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.write(exported, calibration=32)
    assert [((exported / name).read_bytes(), (exported / name).stat().st_ino) for name in names] == before


def test_a_student_of_smaller_images_than_the_teacher_takes_is_exported_without_it(tmp_path, capsys):
    """Regression: it raised a traceback."""
    for package in graph.PACKAGES:
        pytest.importorskip(package, reason="the export's own packages: pip install onnx onnxscript onnxruntime")
    run("Single", *TOY, "--train_epochs", "1", "--image_size", "32", "--save_path", str(tmp_path))
    export.main([str(tmp_path / "single-seed5"), "--repeats", "2", "--calibration", "8"])
    with open(tmp_path / "single-seed5" / "export.csv", newline="") as file:
        assert [row["network"] for row in csv.DictReader(file)] == ["student", "student"]
    assert "student, int8: " in (said := capsys.readouterr().out) and "teacher" not in said


@pytest.mark.slow
def test_a_study_of_rounds(exported, tmp_path, capsys):
    study.main([str(exported), "--against", "Single", "--output", str(tmp_path), "--calibration", "64"])
    with open(tmp_path / "int8.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    with open(exported / "export.csv", newline="") as file:
        fp32, quantized, _ = csv.DictReader(file)
    assert (float(line["fp32"]), float(line["int8"])) == (float(fp32["accuracy"]), float(quantized["accuracy"]))
    assert (tmp_path / "int8.md").read_text().strip() in capsys.readouterr().out
    with pytest.raises(InputError, match="--percents 40: no run has a student's round of that"):
        study.main([str(exported), "--percents", "40", "100", "--output", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["AlexNet", "VGG"])
def test_adaptive_pooling_is_exported(model, tmp_path):
    for package in graph.PACKAGES:
        pytest.importorskip(package, reason="the export's own packages: pip install onnx onnxscript onnxruntime")
    pair = networks.PAIRS[model]
    net = predict.OnPixels(pair.student(3), **augment.NORMALIZATION).eval()
    size = pair.IMAGE_SIZE
    images = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    graph.write(net, size, tmp_path / "net.onnx")
    found, expected = graph.logits(graph.session(tmp_path / "net.onnx"), images), graph.torch_logits(net, images)
    assert np.abs(found - expected).max() < 1e-5


def test_a_row_that_is_not_there_is_refused_before_anything_is_exported(monkeypatch, tmp_path):
    rows = pd.DataFrame({"label": ["CM+KD†", "EnCoDe†"], "network": "student", "percent": 10.0})
    monkeypatch.setattr(study.graph, "need", lambda: None)
    monkeypatch.setattr(study.results, "read", lambda runs: SimpleNamespace(rows=rows))
    asked = []

    def measure(rows, *_):
        raise ValueError("measured")

    monkeypatch.setattr(study, "measure", measure)
    monkeypatch.setattr(study, "summary", lambda measured, against: asked.append(against) or "")
    with pytest.raises(InputError, match="--against 'Nonsense': no such row; there are CM"):
        study.main(["runs/x", "--against", "Nonsense", "--output", str(tmp_path)])
    monkeypatch.setattr(study, "measure", lambda rows, *_: rows)
    study.main(["runs/x", "--against", "CM+KD", "--output", str(tmp_path)])
    study.main(["runs/x", "--output", str(tmp_path)])
    assert asked == ["CM+KD†", ""]


def test_without_a_row_to_gain_over_there_are_no_gains():
    table = pd.DataFrame([("EnCoDe", 1, 65.0, 63.0)], columns=["label", "seed", "fp32", "int8"])
    text = study.summary(table.assign(model="AlexNet", dataset="cifar10", percent=10.0), "")
    assert [line.count("|") for line in text.splitlines()[2:]] == [7, 7, 7]
