"""A batch of resident uint8 images -> a normalized float batch, on the images' device."""

from typing import NamedTuple

import torch

Tensor = torch.Tensor
NORMALIZATION = {"mean": 0.5, "std": 0.5}  # what `see` brings pixels of 0 to 1 to; kept beside a network's weights


class View(NamedTuple):
    """Which images a batch shows, and how each is shown."""

    index: Tensor  # (B,) int64, into the resident images
    mirrored: Tensor | None = None  # (B,) bool, which are mirrored left to right; None mirrors none
    offsets: Tensor | None = None  # (B, 2) int64, pixels each is moved down and right; None moves none

    def part(self, which: slice) -> "View":
        """The same view of some of the images."""
        return View(*(None if tensor is None else tensor[which] for tensor in self))

    def to(self, device: torch.device) -> "View":
        """The same view with its tensors on a device."""
        return View(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self))


def see(images: Tensor, view: View) -> Tensor:
    """Gathers, moves, mirrors and normalizes images to mean 0.5 and std 0.5, so that pixels span [-1, 1].

    Args:
        images: (N, S, S, 3) uint8.
        view: B of them. What an offset uncovers repeats the border.
    Returns:
        (B, 3, S, S) float32 in channels-last memory.
    """
    picked = images.index_select(0, view.index)  # copies whole images; images[index] goes byte by byte
    if view.offsets is not None:
        picked = _moved(picked, view.offsets)
    if view.mirrored is not None:
        picked = _where(view.mirrored, picked.flip(2), picked)
    return torch.sub(picked, 127.5).div_(127.5).permute(0, 3, 1, 2)  # uint8 becomes float in the first pass


def _moved(images: Tensor, offsets: Tensor) -> Tensor:
    side = torch.arange(images.shape[1], device=images.device)
    rows, columns = ((side - offset[:, None]).clamp_(0, len(side) - 1) for offset in offsets.unbind(1))
    each = torch.arange(len(images), device=images.device)
    return images[each[:, None, None], rows[:, :, None], columns[:, None]]


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` (B, S, S, 3) uint8 where `chosen` (B,), else `b`: eight bytes at a time where an image's bytes allow."""
    wide = torch.int64 if a[0].numel() % 8 == 0 else torch.uint8
    a_wide, b_wide = (images.contiguous().flatten(1).view(wide) for images in (a, b))
    return torch.where(chosen[:, None], a_wide, b_wide).view(torch.uint8).view(a.shape)
