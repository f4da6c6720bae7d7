"""Inference time of one image on this machine: Table II's ratio of student to teacher."""

import statistics
import time

import torch

from common.networks import PAIRS


@torch.inference_mode()
def ratio(model: str, classes: int, size: int, repeats: int = 50) -> float:
    """Median batch-1 forward time of the student divided by the teacher's, taken in turns. Weights do not matter.

    Images are size x size.
    """
    pair, image = PAIRS[model], torch.zeros(1, 3, size, size)
    nets = [pair.student(classes).eval(), pair.teacher(classes).eval()]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for net, taken in zip(nets, times, strict=True):
            started = time.perf_counter()
            net(image)
            taken.append(time.perf_counter() - started)
    student, teacher = map(statistics.median, times)
    return student / teacher
