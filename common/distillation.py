"""The teacher's outputs for every training view, computed once and looked up from then on."""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import augment, memory, networks
from common.augment import View, Views
from common.data import Images
from common.errors import Damaged, InputError
from common.files import locked, read_tensors, sha256, write_tensors
from common.networks import SplitNet
from common.objective import Outputs
from common.seeds import generator

FLOAT32_LIMIT = 2**30  # bytes; a larger cache of features is kept in float16
CHUNK = 4096  # images whose outputs are checked at a time


@dataclass
class Targets:
    """A teacher's outputs for the fixed views of each image, the first of which is the image itself."""

    pool: nn.Module  # the teacher's average pool; features are kept before it, where they are far smaller
    z: Tensor | None  # (views, N, C, h, w); one view if features are not distilled; None for logits from a file
    logits: Tensor  # (views, N, classes)
    accuracy: str = ""  # of the teacher on the test set, in percent; empty when unknown
    seen: Tensor | None = None  # (n,) int64, data-set indices of the images whose labels the teacher saw
    views: Views | None = None  # with `--views`; None: the image and, if mirroring is allowed, its mirror image
    net: SplitNet | None = None  # the teacher itself, if a query strategy has to run it

    @property
    def precomputed(self) -> bool:
        """True for logits alone, from a network outside the pair (`--teacher FILE.npz`)."""
        return self.z is None

    def averaged(self) -> "Targets":
        """The mean logits of each image's views, for whichever view the student sees (`--targets mean`)."""
        return replace(self, logits=self.logits.mean(0, keepdim=True), views=None)

    def of(self, view: View, features: bool = True) -> Outputs:
        """The teacher's outputs for the images of `view`, each as shown there."""
        z = self.pool(self._at(self.z, view).float()) if features else None
        return Outputs(z, self._at(self.logits, view))

    @staticmethod
    def _at(outputs: Tensor, view: View) -> Tensor:
        which = view.mirrored if view.which is None else view.which
        row = view.index if which is None or len(outputs) == 1 else which * outputs.shape[1] + view.index
        return outputs.flatten(0, 1).index_select(0, row)


def fixed_views(args, images: Images) -> Views | None:
    """`--views` views of every training image, drawn by the seed; None for the image and its mirror image."""
    if not args.views:
        return None
    source = generator(args.seed, "views", args.views, args.shift)
    return augment.draw(args.views, len(images.train), images.mirror, args.shift, source)


def cache(
    teacher: SplitNet,
    images: Images,
    folder: Path,
    fingerprint: str = "",
    accuracy: str = "",
    views: Views | None = None,
    features: bool = True,
) -> Targets:
    """The teacher's outputs for all training views, read from `folder` if they were computed before.

    The file is keyed by the teacher's weights (their `fingerprint`, where known), the images' content and the views.
    A damaged file is recomputed; one with the right name but another key raises InputError and is never used silently.
    Processes that need the same outputs compute them once.

    Args:
        views: fixed views; None takes the image and, if mirroring is allowed, its mirror image.
        features: keep z for every view, not for the first alone.
    """
    key = {
        "teacher": fingerprint or networks.fingerprint(teacher),
        "images": images.fingerprint,
        "count": len(images.train),
        "size": images.size,
        "views": 1 + images.mirror if views is None else len(views.mirrored),
    }
    kind = ""  # suffix of the file's name for outputs other than the paper's
    if views is not None:
        key["drawn"] = sha256(views.mirrored.numpy(), views.offsets.numpy())
        kind += f"-{key['drawn'][:8]}"
    if not features:
        key["features"] = "first"
        kind += "-logits"
    name = f"outputs-{key['teacher'][:12]}-{images.fingerprint[:12]}-{key['views']}x{key['count']}{kind}.pt"
    path = folder / name
    teacher.eval()
    outputs = _read(path, key) if path.exists() else None
    if outputs is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f".{path.stem}.lock", "another process that computes the teacher's outputs"):
                outputs = _read(path, key) if path.exists() else None  # made while this process waited?
                if outputs is None:
                    outputs = _make(teacher, images, path, key, views, features)
        except OSError as error:
            raise InputError(
                f"--save_path {folder}: the teacher's outputs cannot be written ({error.strerror})"
            ) from None
    if not _are_of(teacher, images, views, *outputs):
        raise InputError(
            f"{path}: has other outputs than its teacher, whose layers were changed; delete it and run again"
        )
    z, logits = (tensor.to(images.device) for tensor in outputs)
    return Targets(teacher.pool, z, logits, accuracy, views=views)


def _make(
    teacher: SplitNet, images: Images, path: Path, key: dict, views: Views | None, features: bool
) -> tuple[Tensor, Tensor]:
    """Computes and writes the outputs; features that do not fit in memory go to disk and are read from there."""
    spill = path.with_name(f".{path.stem}.spill")
    z, logits = compute(teacher, images, spill=spill, views=views, features=features)
    write_tensors(path, {"key": key, "maps": z.cpu(), "logits": logits.cpu()})
    return (memory.spilled(z) and _read(path, key)) or (z, logits)


def _read(path: Path, key: dict) -> tuple[Tensor, Tensor] | None:
    """z and logits from a cache file; None, after printing why, if it is damaged."""
    try:
        large = path.stat().st_size > memory.SHARE * memory.available()
        content = read_tensors(path, "making it again", mmap=large)
        found, z, logits = content["key"], content["maps"], content["logits"]
    except Damaged as error:
        print(error, file=sys.stderr, flush=True)
        return None
    except KeyError as error:
        raise InputError(f"{path}: is not a cache of teacher outputs (no {error}); delete it and run again") from None
    if found != key:
        wrong = ", ".join(name for name in key if found.get(name) != key[name])
        raise InputError(f"{path}: was made for other {wrong}; delete it and run again")
    return z, logits


@torch.no_grad()
def _are_of(teacher: SplitNet, images: Images, views: Views | None, z: Tensor, logits: Tensor) -> bool:
    """Does the teacher still give the cached outputs for the first view of the first image?

    The key covers its weights, but not the layers that have none.
    """
    views = augment.both(len(images.train), images.mirror) if views is None else views
    first = views.of(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)).to(images.train.device)
    now = teacher.features(augment.pixels(images.train, first))
    both = (now, z), (teacher.classifier(now), logits)
    return all(networks.near(found[0].float().cpu(), kept[0, 0].float().cpu()) for found, kept in both)


@torch.no_grad()
def size(args, images: Images) -> int:
    """Bytes that the outputs of the pair's teacher take for all training views."""
    with torch.device("meta"):
        net = networks.PAIRS[args.model].teacher(args.num_classes)
        floats = net.features(torch.zeros(1, 3, images.size, images.size)).numel()
    count, views = len(images.train), args.views or 1 + images.mirror
    kept = count * (views if args.feat_wt else 1)
    return kept * floats * kept_as(kept * floats).itemsize + views * count * 4 * args.num_classes


def kept_as(floats: int) -> torch.dtype:
    """The dtype to keep this many feature values in: half precision if float32 would exceed FLOAT32_LIMIT bytes."""
    return torch.float32 if 4 * floats <= FLOAT32_LIMIT else torch.float16


@torch.no_grad()
def compute(
    teacher: SplitNet,
    images: Images,
    batch_size: int = 250,
    only: int | None = None,
    spill: Path | None = None,
    views: Views | None = None,
    features: bool = True,
) -> tuple[Tensor, Tensor]:
    """z (views, N, C, h, w) and logits (views, N, classes) of every training view, in float32 passes.

    `only` limits it to that many first images; `spill` is a file for features that do not fit in memory; `views` and
    `features` are as in `cache`. Raises InputError for outputs that are not finite.
    """
    teacher.eval()
    views = augment.both(len(images.train), images.mirror) if views is None else views
    number, count, device = len(views.mirrored), only or len(images.train), images.device
    example = teacher.features(augment.pixels(images.train, View(torch.zeros(1, dtype=torch.long, device=device))))
    shape = (number if features else 1, count, *example.shape[1:])
    floats = math.prod(shape)
    if spill is None or device.type != "cpu":
        kept = torch.empty(shape, dtype=kept_as(floats), device=device)
    else:
        kept = memory.empty(shape, kept_as(floats), spill)
    logits = torch.empty(number, count, len(images.classes), device=device)
    description = f"teacher's outputs ({(kept.numel() * kept.element_size() + logits.numel() * 4) / 1e6:.0f} MB)"
    with tqdm(total=number * count, desc=description, unit="img", mininterval=1, leave=False, disable=None) as bar:
        for which in range(number):
            for index in torch.arange(count).split(batch_size):
                view = views.of(index, torch.full_like(index, which)).to(device)
                z = teacher.features(augment.pixels(images.train, view))
                if which < len(kept):
                    kept[which, view.index] = z.to(kept.dtype)
                logits[which, view.index] = teacher.classifier(z)
                bar.update(len(index))
    parts = (part for outputs in (logits, kept) for part in outputs.flatten(0, 1).split(CHUNK))
    if not all(torch.isfinite(part).all() for part in parts):
        raise InputError("--teacher: its outputs for some images are not finite; train the teacher again")
    return kept, logits
