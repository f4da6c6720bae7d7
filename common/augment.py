"""A batch of resident uint8 images -> a normalized float batch, on the images' device."""

from typing import NamedTuple

import torch
from torch import Tensor

NORMALIZATION = {"mean": 0.5, "std": 0.5}  # of pixels from 0 to 1; saved with a network's weights


class View(NamedTuple):
    """Which images a batch shows, and how each is shown."""

    index: Tensor  # (B,) int64, into the resident images
    mirrored: Tensor | None = None  # (B,) bool, which are mirrored left to right; None mirrors none
    offsets: Tensor | None = None  # (B, 2) int64, pixels each is moved down and right; None moves none
    which: Tensor | None = None  # (B,) int64, the number of each among the image's fixed views; None: no fixed views
    boxes: Tensor | None = None  # (B, 4) int64, rows from, to and columns from, to that are blanked; None blanks none

    def part(self, which: slice) -> "View":
        """The same view of some of the images."""
        return View(*(None if tensor is None else tensor[which] for tensor in self))

    def to(self, device: torch.device) -> "View":
        """The same view with its tensors on a device."""
        return View(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self))


class Views(NamedTuple):
    """The fixed views of every training image, K per image; the first is the image as it is. On the CPU."""

    mirrored: Tensor  # (K, N) bool
    offsets: Tensor | None = None  # (K, N, 2) int8, pixels down and right; None moves none

    def of(self, index: Tensor, which: Tensor) -> View:
        """View number `which` (B,) of each image `index` (B,)."""
        offsets = None if self.offsets is None else self.offsets[which, index].long()
        return View(index, self.mirrored[which, index], offsets, which)


def both(count: int, mirror: bool) -> Views:
    """The paper's views: each of `count` images and, if mirroring is allowed, its mirror image."""
    return Views(torch.tensor([False, True])[: 1 + mirror, None].expand(-1, count))


def draw(views: int, count: int, mirror: bool, shift: int, source: torch.Generator) -> Views:
    """For each of `count` images: itself, and `views` - 1 random shifts by up to `shift` pixels, mirrored at random."""
    mirrored = torch.rand(views, count, generator=source) < (0.5 if mirror else 0)
    offsets = torch.randint(-shift, shift + 1, (views, count, 2), generator=source, dtype=torch.int8)
    mirrored[0], offsets[0] = False, 0
    return Views(mirrored, offsets)


def pixels(images: Tensor, view: View) -> Tensor:
    """Gathers, moves, mirrors and normalizes images with mean 0.5 and std 0.5, so that pixels span [-1, 1].

    Args:
        images: (N, S, S, 3) uint8.
        view: B of them. What an offset uncovers repeats the border; a box is filled with gray (0), clipped at the
        border.
    Returns:
        (B, 3, S, S) float32 in channels-last memory.
    """
    picked = images.index_select(0, view.index)  # copies whole images; images[index] goes byte by byte
    if view.offsets is not None:
        picked = _moved(picked, view.offsets)
    if view.mirrored is not None:
        picked = _where(view.mirrored, picked.flip(2), picked)
    seen = torch.sub(picked, 127.5).div_(127.5)  # uint8 becomes float in the first pass
    if view.boxes is not None:
        seen.masked_fill_(_inside(view.boxes, images.shape[1])[..., None], 0)
    return seen.permute(0, 3, 1, 2)


def cut(count: int, size: int, side: int, source: torch.Generator) -> Tensor:
    """Boxes (count, 4) of `side` pixels, each around a pixel of the image drawn at random.

    Cutout, DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552: a box may reach beyond the image.
    """
    first = torch.randint(0, size, (count, 2), generator=source) - side // 2
    return torch.stack([first, first + side], dim=2).flatten(1)


def _inside(boxes: Tensor, size: int) -> Tensor:
    """(B, size, size) bool: which pixels lie in each image's box."""
    side = torch.arange(size, device=boxes.device)
    rows, columns = ((side >= boxes[:, k, None]) & (side < boxes[:, k + 1, None]) for k in (0, 2))
    return rows[:, :, None] & columns[:, None]


def _moved(images: Tensor, offsets: Tensor) -> Tensor:
    side = torch.arange(images.shape[1], device=images.device)
    rows, columns = ((side - offset[:, None]).clamp_(0, len(side) - 1) for offset in offsets.unbind(1))
    each = torch.arange(len(images), device=images.device)
    return images[each[:, None, None], rows[:, :, None], columns[:, None]]


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` (B, S, S, 3) uint8 where `chosen` (B,), else `b`: eight bytes at a time if an image's size allows."""
    wide = torch.int64 if a[0].numel() % 8 == 0 else torch.uint8
    a_wide, b_wide = (images.contiguous().flatten(1).view(wide) for images in (a, b))
    return torch.where(chosen[:, None], a_wide, b_wide).view(torch.uint8).view(a.shape)
