"""A batch of resident uint8 images -> a normalized float batch, on the batch's device."""

import torch

Tensor = torch.Tensor


def batch(images: Tensor, index: Tensor, mirrored: Tensor | None = None, offsets: Tensor | None = None) -> Tensor:
    """Gathers, mirrors, shifts and normalizes images to mean 0.5 and std 0.5, so that pixels span [-1, 1].

    Args:
        images: (N, S, S, 3) uint8.
        index: (B,) int64.
        mirrored: (B,) bool, which of them to mirror left to right; None mirrors none.
        offsets: (B, 2) int64, pixels each image is moved down and right; its border is repeated. None moves none.
    Returns:
        (B, 3, S, S) float32 in channels-last memory.
    """
    picked = images.index_select(0, index)  # copies whole images; images[index] goes byte by byte
    if offsets is not None:
        grid = torch.arange(images.shape[1], device=images.device)
        rows, columns = ((grid - offset[:, None]).clamp_(0, len(grid) - 1) for offset in offsets.unbind(1))
        picked = picked[
            torch.arange(len(index), device=images.device)[:, None, None], rows[:, :, None], columns[:, None]
        ]
    if mirrored is not None:
        picked = _where(mirrored, picked.flip(2), picked)
    return torch.sub(picked, 127.5).div_(127.5).permute(0, 3, 1, 2)  # uint8 becomes float in the first pass


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` (B, S, S, 3) uint8 where `chosen` (B,), else `b`: eight bytes at a time where an image's bytes allow."""
    wide = torch.int64 if a[0].numel() % 8 == 0 else torch.uint8
    a_wide, b_wide = (images.contiguous().flatten(1).view(wide) for images in (a, b))
    return torch.where(chosen[:, None], a_wide, b_wide).view(torch.uint8).view(a.shape)
