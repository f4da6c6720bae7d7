"""CIFAR-100 with its 100 fine classes, from torchvision's files (checksums are torchvision's) or its download.

Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images. The decoded arrays are kept in
`<data_dir>/cifar100.npz`, so that the next start decodes nothing.
"""

from pathlib import Path

from torchvision.datasets import CIFAR100

from common.datasets import cifar10
from common.datasets.local import Arrays, cached, say, socket_timeout
from common.datasets.source import Source
from common.errors import InputError, reason

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

    Raises InputError when they are not there and cannot be downloaded, and before that for another `--num_classes`.
    """
    if getattr(args, "num_classes", 100) != 100:
        raise InputError(f"--num_classes {args.num_classes}: cifar100 has 100 classes; add --num_classes 100")
    return Source("cifar100", *cached(data_dir / "cifar100.npz", lambda: _decode(data_dir)), CLASSES, mirror=True)


def _decode(data_dir: Path) -> Arrays:
    try:
        try:
            return cifar10.torchvision_arrays(CIFAR100, data_dir)
        except RuntimeError:  # absent, or not the files they should be
            say(f"downloading CIFAR-100 (170 MB) with torchvision to {data_dir}")
            with socket_timeout():
                return cifar10.torchvision_arrays(CIFAR100, data_dir, download=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"--dataset cifar100: no intact cifar-100-python in --data_dir {data_dir} and torchvision's download "
            f"failed ({reason(error)}); put that folder there, or name an .npz"
        ) from None
