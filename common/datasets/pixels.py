"""Any image file or array of images as (S, S, 3) uint8."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

DARK = 2**12  # the levels of 12 bits
# for all threads, as `catch_warnings` is not thread-local; PIL still refuses twice as many pixels
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def resize(images: Tensor, size: int) -> Tensor:
    """Crops (N, H, W, 3) uint8 images to their central squares and resizes them to (N, size, size, 3).

    Bilinear with antialiasing, like PIL, in small chunks.
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    resized = torch.empty(len(images), size, size, 3, dtype=torch.uint8)
    for start in range(0, len(images), 1000):  # torchvision's uint8 kernel needs no float copy of the data set
        part = images[start : start + 1000].permute(0, 3, 1, 2)
        part = transforms.resize(part, [size, size], transforms.InterpolationMode.BILINEAR, antialias=True)
        resized[start : start + 1000] = part.permute(0, 2, 3, 1)
    return resized


def read(path: Path, size: int) -> np.ndarray:
    """An image file as `resize` makes it: (size, size, 3) uint8. Raises what PIL raises, and ValueError for a pipe."""
    if path.is_fifo():
        raise ValueError("it is a pipe: reading it would wait for ever")
    with Image.open(path) as image:
        if (count := _stacked(image)) > 1:
            raise ValueError(f"it is a stack of {count} images; save each as a file of its own")
        levels = rgb(image)
    return resize(torch.from_numpy(levels)[None], size)[0].numpy()


def _stacked(image: Image.Image) -> int:
    """How many images of the first one's size and mode a TIFF holds; a thumbnail is not one of them."""
    if image.format != "TIFF":
        return 1
    first, same = (image.size, image.mode), 0
    for number in range(image.n_frames):
        image.seek(number)
        same += (image.size, image.mode) == first
    image.seek(0)
    return same


def rgb(image: Image.Image) -> np.ndarray:
    """Converts an image of any of PIL's modes to (H, W, 3) uint8, rotated as its EXIF data says.

    Transparency is composited over white, and 16-bit gray is scaled to 8 bits (PIL's own conversion turns all above 255
    white). Raises ValueError if levels cannot be read this way.
    """
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))  # colour of 16 bits: PIL keeps the upper 8
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("it holds fractions; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"its levels go from {levels.min()} to {levels.max()}; 16 bits hold 0 to 65535")
        if 0 < levels.max() < DARK:  # 8 or 12 bits stored in 16: scaled, they are nearly black
            raise ValueError(f"its levels go to {levels.max()} of 65535; stretch them to 16 bits, or save it with 8")
        return np.repeat(((levels + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if deep and np.asarray(image.convert("RGB")).max() < DARK >> 8:
        raise ValueError(f"its levels go to less than {DARK} of 65535; stretch them to 16 bits, or save it with 8")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
