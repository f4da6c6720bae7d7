"""CIFAR-100 with its 100 fine classes, from torchvision's files (checksums are torchvision's) or its download.

Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images. The decoded arrays are kept in
`<data_dir>/cifar100.npz`, so that the next start decodes nothing.
"""

from functools import partial
from pathlib import Path

from torchvision.datasets import CIFAR100

from common.datasets import cifar10
from common.datasets.local import cached, from_torchvision
from common.datasets.source import Source
from common.errors import InputError

CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
""".split()  # noqa: SIM905


def load(data_dir: Path, args) -> Source:
    """50,000 training and 10,000 test images.

    Raises InputError for another `--num_classes`, and when the files are missing and cannot be downloaded.
    """
    if getattr(args, "num_classes", 100) != 100:
        raise InputError(f"--num_classes {args.num_classes}: cifar100 has 100 classes; add --num_classes 100")
    get = partial(cifar10.torchvision_arrays, CIFAR100, data_dir)
    make = partial(from_torchvision, get, "cifar100", "cifar-100-python", data_dir)
    return Source("cifar100", *cached(data_dir / "cifar100.npz", make), CLASSES, mirror=True)
