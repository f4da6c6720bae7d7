"""How long a network takes for one image on this machine: Table II's ratio of student to teacher."""

import statistics
import time

import torch

from common.networks import PAIRS


@torch.inference_mode()
def ratio(model: str, repeats: int = 50) -> float:
    """Median time of the student's forward pass at batch 1 over the teacher's, in turns. Weights do not matter."""
    pair = PAIRS[model]
    image = torch.zeros(1, 3, pair.IMAGE_SIZE, pair.IMAGE_SIZE)
    nets = [pair.student(10).eval(), pair.teacher(10).eval()]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for net, taken in zip(nets, times, strict=True):
            started = time.perf_counter()
            net(image)
            taken.append(time.perf_counter() - started)
    student, teacher = map(statistics.median, times)
    return student / teacher
