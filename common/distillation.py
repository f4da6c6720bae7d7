"""What the student learns from the teacher: the losses, and the teacher's outputs, computed once and looked up."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from common import augment, networks
from common.data import Images
from common.errors import InputError
from common.files import write_tensors
from common.networks import SplitNet
from common.networks.split import spread

Tensor = torch.Tensor
FLOAT32_LIMIT = 2**30  # bytes; a larger feature cache is kept in float16


@dataclass
class Targets:
    """The teacher's outputs for every training view: views are the image and, if it may be mirrored, its mirror."""

    avgpool: nn.Module  # the teacher's
    maps: Tensor  # (views, N, C, h, w), before the average pool that only repeats or averages them
    logits: Tensor  # (views, N, classes)

    def features(self, index: Tensor, mirrored: Tensor) -> Tensor:
        """The teacher's z (B, C, H, W) for images `index` (B,), seen mirrored or not (B,) bool."""
        return spread(self.avgpool, self._of(self.maps, index, mirrored).float())

    def scores(self, index: Tensor, mirrored: Tensor) -> Tensor:
        """The teacher's logits (B, classes) for the same views."""
        return self._of(self.logits, index, mirrored)

    @staticmethod
    def _of(views: Tensor, index: Tensor, mirrored: Tensor) -> Tensor:
        return views.flatten(0, 1).index_select(0, mirrored * views.shape[1] + index)


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """MSE(phi(z), T_features) over two tensors (B, C, H, W)."""
    memory = sorted(range(student.dim()), key=student.stride, reverse=True)  # else the gradient comes in another order
    return F.mse_loss(student.permute(memory), teacher.permute(memory))


def logit_loss(student: Tensor, teacher: Tensor, kind: str, temperature: float) -> Tensor:
    """Over two tensors (B, classes): `mse` between logits, or `kl` between softened probabilities.

    KL is Hinton et al. 2015, https://arxiv.org/abs/1503.02531, with the factor temperature^2 of its section 2.
    """
    if kind == "mse":
        return F.mse_loss(student, teacher)
    soft_student = F.log_softmax(student / temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True) * temperature**2


def loss(
    args, decoder: nn.Module, targets: Targets, z: Tensor, logits: Tensor, index: Tensor, mirrored: Tensor
) -> tuple[Tensor, Tensor]:
    """The two distillation terms, weighted: feat_wt * MSE(phi(z), T_features), logit_wt * logit loss."""
    feature = args.feat_wt * feature_loss(decoder(z), targets.features(index, mirrored))
    logit = args.logit_wt * logit_loss(logits, targets.scores(index, mirrored), args.logit_loss, args.temperature)
    return feature, logit


def cache(teacher: SplitNet, images: Images, folder: Path, fingerprint: str = "") -> Targets:
    """The teacher's outputs for all training views, read from `folder` if they were computed before.

    The file is keyed by the teacher's weights (their `fingerprint`, where known) and the images' content. Raises
    InputError when a file under the right name holds another key or cannot be read: it is never used silently.
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
    if path.exists():
        maps, logits = _read(path, key)
    else:
        maps, logits = compute(teacher, images)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, {"key": key, "maps": maps.cpu(), "logits": logits.cpu()})
        except OSError as error:
            raise InputError(
                f"--save_path {folder}: the teacher's outputs cannot be written ({error.strerror})"
            ) from None
    return Targets(teacher.avgpool, maps.to(images.device), logits.to(images.device))


def _read(path: Path, key: dict) -> tuple[Tensor, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found, maps, logits = content["key"], content["maps"].clone(), content["logits"].clone()
    except Exception as error:  # torch.load raises whatever a damaged archive makes it raise
        raise InputError(
            f"{path}: not a readable cache of teacher outputs ({error}); delete it and run again"
        ) from None
    if found != key:
        wrong = ", ".join(name for name in key if found.get(name) != key[name])
        raise InputError(f"{path}: was made for other {wrong}; delete it and run again")
    return maps, logits


@torch.no_grad()
def compute(teacher: SplitNet, images: Images, batch_size: int = 250, only: int | None = None) -> tuple[Tensor, Tensor]:
    """Maps (views, N, C, h, w) and logits (views, N, classes) of every training view, in float32 passes.

    `only` stops after so many images.
    """
    teacher.eval()
    count, views = only or len(images.train), 2 if images.mirror else 1
    device = images.device
    example = teacher.maps(augment.batch(images.train, torch.zeros(1, dtype=torch.long, device=device)))
    floats = views * count * example[0].numel()
    dtype = torch.float32 if 4 * floats <= FLOAT32_LIMIT else torch.float16
    maps = torch.empty(views, count, *example.shape[1:], dtype=dtype, device=device)
    logits = torch.empty(views, count, len(images.classes), device=device)
    description = f"teacher's outputs ({floats * maps.element_size() / 1e6:.0f} MB)"
    with tqdm(total=views * count, desc=description, unit="img", mininterval=1, leave=False) as bar:
        for view in range(views):
            for index in torch.arange(count, device=device).split(batch_size):
                mirrored = torch.full((len(index),), bool(view), device=device)
                found = teacher.maps(augment.batch(images.train, index, mirrored))
                maps[view, index] = found.to(dtype)
                logits[view, index] = teacher.classify(teacher.spread(found))
                bar.update(len(index))
    return maps, logits
