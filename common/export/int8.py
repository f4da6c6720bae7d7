"""An ONNX network in 8 bits: ONNX Runtime's static quantization (QDQ, per channel, U8 activations, S8 weights)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from common.data import Images
from common.seeds import generator

CALIBRATION = 512  # images whose activations determine the ranges


def calibration_images(images: Images, seed: int, count: int = CALIBRATION) -> Tensor:
    """Up to `count` images (B, S, S, 3) of the pool, labelled or not, drawn by the seed; no validation images."""
    pool = images.pool[~torch.isin(images.pool, images.val)]  # with `--val_labels bought` these are the pool's first
    drawn = torch.randperm(len(pool), generator=generator(seed, "calibration"))[:count]
    return images.train[pool[drawn]]


def quantize(source: Path, images: Tensor, target: Path, full_range: bool = False) -> None:
    """Writes the ONNX file `source` to `target` with 8-bit weights and activations.

    Args:
        images: (B, S, S, 3) uint8; an activation's range is its smallest to largest value over them.
        full_range: weights from -127 to 127, not from -64 to 64. x86 CPUs without VNNI multiply 8-bit numbers in pairs
            and add them in 16 bits, which the full range overflows: on such a machine a logit was off by 2.8 with it
            and by 0.17 without. ARM, and x86 with VNNI, add in 32 bits.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "prepared.onnx"  # batch norm folded, shapes known
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not full_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


class _Reader:
    """Hands out calibration batches as ONNX Runtime's CalibrationDataReader does: one at a time, None at the end."""

    def __init__(self, images: Tensor):
        self._batches: Iterator[Tensor] = iter(images.split(64))

    def get_next(self) -> dict | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch.numpy()}
