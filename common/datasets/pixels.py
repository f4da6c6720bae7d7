"""Any image file or array of images as (S, S, 3) uint8."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

DARK = 2**12  # the levels of 12 bits
# globally, as `catch_warnings` is not per thread; twice as many pixels are refused
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def resize(images: Tensor, size: int) -> Tensor:
    """The central squares of (N, H, W, 3) uint8 at (N, size, size, 3): the longer side is cut, both are resized.

    Bilinear with antialiasing, as PIL would, in small chunks.
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    resized = torch.empty(len(images), size, size, 3, dtype=torch.uint8)
    for start in range(0, len(images), 1000):  # torchvision's uint8 kernel, with no float copy of the data set
        part = images[start : start + 1000].permute(0, 3, 1, 2)
        part = transforms.resize(part, [size, size], transforms.InterpolationMode.BILINEAR, antialias=True)
        resized[start : start + 1000] = part.permute(0, 2, 3, 1)
    return resized


def read(path: Path, size: int) -> np.ndarray:
    """An image file, resized by `resize`: (size, size, 3) uint8. Raises what PIL does, and ValueError for a pipe."""
    if path.is_fifo():
        raise ValueError("it is a pipe: reading it would wait for ever")
    with Image.open(path) as image:
        levels = rgb(image)
    return resize(torch.from_numpy(levels)[None], size)[0].numpy()


def rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of an image in any of PIL's modes, rotated as its EXIF data says.

    Transparency is composited over white, and 16-bit gray becomes 8-bit (PIL's own conversion makes all above 255
    white). Raises ValueError if the levels have no such meaning.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("it holds fractions; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"its levels go from {levels.min()} to {levels.max()}; 16 bits hold 0 to 65535")
        if 0 < levels.max() < DARK:  # 8 or 12 bits in a 16-bit file: read as 16 bits, nearly black
            raise ValueError(f"its levels go to {levels.max()} of 65535; stretch them to 16 bits, or save it with 8")
        return np.repeat(((levels + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
