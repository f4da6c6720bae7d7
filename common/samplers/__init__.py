"""Query strategies: which unlabelled images are worth their labels.

A strategy is a file with a subclass of `Sampler` that overrides `score`. Adding one is that file and its line in
`SAMPLERS`, under the name that `--sampler` takes.
"""

from common.samplers.base import Sampler
from common.samplers.encode import EnCoDe
from common.samplers.entropy import Entropy
from common.samplers.fdal import FDAL
from common.samplers.random import Random
from common.samplers.teacher_confidence import TeacherConfidence
from common.samplers.vaal import VAAL

__all__ = ["SAMPLERS", "Sampler", "build"]

SAMPLERS: dict[str, type[Sampler]] = {
    "random": Random,
    "entropy": Entropy,
    "teacher_confidence": TeacherConfidence,
    "discriminator": FDAL,
    "vae": EnCoDe,
}


def build(args, this_round, student, targets=None) -> Sampler:
    """The round's sampler with fresh weights; `--sampler_input images` makes the VAE VAAL's."""
    images = args.sampler == "vae" and args.sampler_input == "images"
    return (VAAL if images else SAMPLERS[args.sampler])(args, this_round, student, targets)
