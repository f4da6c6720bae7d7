"""The teacher's outputs for every training view, computed once and looked up: the teacher never runs again."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from common import augment, memory, networks
from common.augment import View
from common.data import Images
from common.errors import Damaged, InputError
from common.files import locked, read_tensors, write_tensors
from common.networks import SplitNet
from common.objective import Teacher

Tensor = torch.Tensor
FLOAT32_LIMIT = 2**30  # bytes; a larger cache of features is kept in float16


@dataclass
class Targets:
    """A teacher's outputs: views are the image and, if it may be mirrored, its mirror."""

    pool: nn.Module  # the teacher's average pool: features are kept before it, where they are far fewer
    z: Tensor  # (views, N, C, h, w)
    logits: Tensor  # (views, N, classes)
    accuracy: str = ""  # of the teacher on the test set, in percent; empty when unknown

    def of(self, view: View) -> Teacher:
        """What the teacher makes of the images of `view`, mirrored or not as they are there."""
        return Teacher(self.pool(self._at(self.z, view).float()), self._at(self.logits, view))

    @staticmethod
    def _at(outputs: Tensor, view: View) -> Tensor:
        row = view.index if view.mirrored is None else view.mirrored * outputs.shape[1] + view.index
        return outputs.flatten(0, 1).index_select(0, row)


def cache(teacher: SplitNet, images: Images, folder: Path, fingerprint: str = "", accuracy: str = "") -> Targets:
    """The teacher's outputs for all training views, read from `folder` if they were computed before.

    The file is keyed by the teacher's weights (their `fingerprint`, where known) and the images' content. One that is
    damaged is made again; one that holds another key under the right name is refused with InputError: it is never
    used silently. Processes that want the same outputs compute them once.
    """
    key = {
        "teacher": fingerprint or networks.fingerprint(teacher),
        "images": images.fingerprint,
        "count": len(images.train),
        "size": images.size,
        "views": 2 if images.mirror else 1,
    }
    path = folder / f"outputs-{key['teacher'][:12]}-{images.fingerprint[:12]}-{key['views']}x{key['count']}.pt"
    teacher.eval()
    outputs = _read(path, key) if path.exists() else None
    if outputs is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f".{path.stem}.lock", "another process that computes the teacher's outputs"):
                outputs = _read(path, key) if path.exists() else None  # made while this process waited?
                if outputs is None:
                    outputs = _make(teacher, images, path, key)
        except OSError as error:
            raise InputError(
                f"--save_path {folder}: the teacher's outputs cannot be written ({error.strerror})"
            ) from None
    z, logits = (tensor.to(images.device) for tensor in outputs)
    return Targets(teacher.pool, z, logits, accuracy)


def _make(teacher: SplitNet, images: Images, path: Path, key: dict) -> tuple[Tensor, Tensor]:
    """Computes the outputs and writes them; what does not fit the memory goes to the disk and is read from there."""
    spill = path.with_name(f".{path.stem}.spill")
    try:
        outputs = z, logits = compute(teacher, images, spill=spill)
        write_tensors(path, {"key": key, "maps": z.cpu(), "logits": logits.cpu()})
        spilled = spill.exists()
    finally:
        spill.unlink(missing_ok=True)
    return _read(path, key) if spilled else outputs


def _read(path: Path, key: dict) -> tuple[Tensor, Tensor] | None:
    """z and logits from a cache's file; None, with a line about it, when it is damaged."""
    try:
        large = path.stat().st_size > memory.SHARE * memory.available()
        content = read_tensors(path, "making it again", mmap=large)
        found, z, logits = content["key"], content["maps"], content["logits"]
    except Damaged as error:
        print(error, file=sys.stderr, flush=True)
        return None
    except KeyError as error:
        raise InputError(f"{path}: is no cache of teacher outputs (no {error}); delete it and run again") from None
    if found != key:
        wrong = ", ".join(name for name in key if found.get(name) != key[name])
        raise InputError(f"{path}: was made for other {wrong}; delete it and run again")
    return z, logits


@torch.no_grad()
def size(args, images: Images) -> int:
    """Bytes that the outputs of the pair's teacher take for all training views."""
    with torch.device("meta"):
        net = networks.PAIRS[args.model].teacher(args.num_classes)
        floats = net.features(torch.zeros(1, 3, images.size, images.size)).numel()
    views = len(images.train) * (2 if images.mirror else 1)
    return views * (floats * _dtype(views * floats).itemsize + 4 * args.num_classes)


def _dtype(floats: int) -> torch.dtype:
    return torch.float32 if 4 * floats <= FLOAT32_LIMIT else torch.float16


@torch.no_grad()
def compute(
    teacher: SplitNet, images: Images, batch_size: int = 250, only: int | None = None, spill: Path | None = None
) -> tuple[Tensor, Tensor]:
    """z (views, N, C, h, w) and logits (views, N, classes) of every training view, in float32 passes.

    `only` stops after so many images; `spill` is a file for features that do not fit the memory.
    """
    teacher.eval()
    count, views = only or len(images.train), 2 if images.mirror else 1
    device = images.device
    example = teacher.features(augment.see(images.train, View(torch.zeros(1, dtype=torch.long, device=device))))
    floats = views * count * example[0].numel()
    dtype = _dtype(floats)
    shape = (views, count, *example.shape[1:])
    if spill is None or device.type != "cpu":
        features = torch.empty(shape, dtype=dtype, device=device)
    else:
        features = memory.empty(shape, dtype, spill)
    logits = torch.empty(views, count, len(images.classes), device=device)
    description = f"teacher's outputs ({floats * features.element_size() / 1e6:.0f} MB)"
    with tqdm(total=views * count, desc=description, unit="img", mininterval=1, leave=False, disable=None) as bar:
        for mirrored in range(views):
            for index in torch.arange(count, device=device).split(batch_size):
                flags = torch.full((len(index),), bool(mirrored), device=device)
                z = teacher.features(augment.see(images.train, View(index, flags)))
                features[mirrored, index] = z.to(dtype)
                logits[mirrored, index] = teacher.classifier(z)
                bar.update(len(index))
    return features, logits
