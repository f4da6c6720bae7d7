"""One image file -> RGB pixels of any size, and these -> the square that a network takes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as transforms

from common.errors import InputError

Tensor = torch.Tensor


def read(path: Path) -> np.ndarray:
    """Any image that Pillow opens -> (H, W, 3) uint8, turned as its EXIF says.

    Gray levels are repeated three times; 16 bits are scaled to 8 by their range, 0 to 65535, not by the image's; what
    is transparent lies on white. Raises InputError when the file is no readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # no closed list: each of PIL's formats raises its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a readable image ({reason})") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, also where Pillow keeps them in 32: `convert` would cut off at 255
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def square(pixels: np.ndarray, size: int) -> Tensor:
    """(H, W, 3) uint8 -> (size, size, 3) uint8: the shorter side resized to `size`, the middle of the longer one kept.

    Bilinear with antialiasing, as `data.load` resizes: an image of the data set gives the pixels that were trained on.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return torch.from_numpy(np.array(pixels))
    rows, columns = (max(size, round(side * size / min(height, width))) for side in (height, width))
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    image = transforms.resize(image, [rows, columns], transforms.InterpolationMode.BILINEAR, antialias=True)
    return transforms.center_crop(image, [size, size]).permute(1, 2, 0).contiguous()
