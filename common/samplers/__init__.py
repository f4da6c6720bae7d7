"""Query strategies: which unlabelled images are worth their labels.

A strategy is a file with a subclass of `Sampler` that overrides `score`. Adding one is that file and its line in
`SAMPLERS`, under the name that `--sampler` takes.
"""

from common.samplers.base import Sampler
from common.samplers.discriminator import Discriminator
from common.samplers.entropy import Entropy
from common.samplers.random import Random
from common.samplers.teacher_confidence import TeacherConfidence
from common.samplers.vae import FeatureVAE, ImageVAE

__all__ = ["SAMPLERS", "Sampler", "build", "strategy"]

SAMPLERS: dict[str, type[Sampler]] = {
    "random": Random,
    "entropy": Entropy,
    "teacher_confidence": TeacherConfidence,
    "discriminator": Discriminator,
    "vae": FeatureVAE,
}


def strategy(args) -> type[Sampler]:
    """The class behind `--sampler` and, for a VAE, `--sampler_input`."""
    if args.sampler == "vae" and args.sampler_input == "images":
        return ImageVAE
    return SAMPLERS[args.sampler]


def build(args, round, student, targets=None) -> Sampler:
    """The round's sampler with fresh weights, on the student's device."""
    return strategy(args)(args, round, student, targets)
