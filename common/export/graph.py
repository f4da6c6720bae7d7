"""A network as an ONNX graph: written by torch's exporter, run by ONNX Runtime, compared with torch."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import InputError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3  # relative to the largest logit: how much float32 sums in two orders may differ
BATCH = 250


def need() -> None:
    """Raises InputError, with the command that installs them, when a package is missing that only the export needs."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not installed, and the export needs it; pip install {' '.join(PACKAGES)}"
        )


def version() -> str:
    """ONNX Runtime's version."""
    import onnxruntime

    return onnxruntime.__version__


def write(net: nn.Module, size: int, path: Path) -> None:
    """Writes a network in eval mode on uint8 images (batch, size, size, 3) as one ONNX file; any batch is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own changes
        torch.onnx.export(
            net,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            path,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,  # one file, also for a teacher
            verbose=False,
        )


def describe(path: Path, about: dict) -> None:
    """Writes `about` into an ONNX file as metadata, replacing the exporter's, which names this machine's folders."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, {name: str(value) for name, value in about.items()})
    onnx.save(model, path)


def session(path: Path):
    """An ONNX Runtime session of a file on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits(session, images: Tensor) -> np.ndarray:
    """ONNX Runtime's logits (N, classes) of uint8 images (N, S, S, 3)."""
    return np.concatenate([session.run(None, {"image": part.numpy()})[0] for part in images.split(BATCH)])


@torch.no_grad()
def torch_logits(net: nn.Module, images: Tensor) -> np.ndarray:
    """The same, from the network itself."""
    return torch.cat([net(part) for part in images.split(BATCH)]).numpy()


def check(found: np.ndarray, expected: np.ndarray) -> None:
    """Raises InputError when ONNX Runtime's logits differ from torch's by more than rounding."""
    most, allowed = np.abs(found - expected).max(), TOLERANCE * np.abs(expected).max()
    if not most <= allowed:  # false for NaN, too
        raise InputError(
            f"student.onnx: its logits differ from torch's by up to {most:.3g}, rounding explains {allowed:.3g}; it is "
            "not written. Try another version of torch, onnxscript or onnxruntime, and report this"
        )


def compare(found: np.ndarray, expected: np.ndarray, labels: Tensor) -> dict[str, str]:
    """Accuracy and agreement with torch's class, in percent, and the largest difference of a logit."""
    named = found.argmax(1)
    return {
        "accuracy": f"{100 * (named == labels.numpy()).mean():.2f}",
        "agreement": f"{100 * (named == expected.argmax(1)).mean():.2f}",
        "largest_logit_difference": f"{np.abs(found - expected).max():.3g}",
    }
