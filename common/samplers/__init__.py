"""Query strategies: which unlabelled images are worth their labels.

A strategy is a file with a subclass of `Sampler` that overrides `score`, or `choose` if it selects a set jointly.
To add one, write that file and list it in `SAMPLERS`, under the name that `--sampler` takes.
"""

from common.samplers.badge import BADGE
from common.samplers.balanced import Balanced
from common.samplers.bald import BALD
from common.samplers.base import Sampler
from common.samplers.confidence import Confidence
from common.samplers.coreset import CoreSet
from common.samplers.encode import EnCoDe
from common.samplers.entropy import Entropy
from common.samplers.fdal import FDAL
from common.samplers.gap import Gap
from common.samplers.least_confidence import LeastConfidence
from common.samplers.margin import Margin
from common.samplers.random import Random
from common.samplers.teacher_confidence import TeacherConfidence
from common.samplers.typical_confident import TypicalConfident
from common.samplers.typiclust import TypiClust
from common.samplers.vaal import VAAL

__all__ = ["SAMPLERS", "Sampler", "build", "kind"]

SAMPLERS: dict[str, type[Sampler]] = {
    "random": Random,
    "balanced": Balanced,
    "least_confidence": LeastConfidence,
    "margin": Margin,
    "entropy": Entropy,
    "bald": BALD,
    "coreset": CoreSet,
    "badge": BADGE,
    "typiclust": TypiClust,
    "confidence": Confidence,
    "teacher_confidence": TeacherConfidence,
    "typical_confident": TypicalConfident,
    "gap": Gap,
    "discriminator": FDAL,
    "vae": EnCoDe,
}


def kind(args) -> type[Sampler]:
    """The class behind `--sampler`: with `--sampler_input images` the VAE is VAAL's."""
    images = args.sampler == "vae" and args.sampler_input == "images"
    return VAAL if images else SAMPLERS[args.sampler]


def build(args, this_round, student, targets=None) -> Sampler:
    """The round's sampler with fresh weights."""
    return kind(args)(args, this_round, student, targets)
