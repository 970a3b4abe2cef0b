"""How water drops catch the light."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssrob.corruptions.quantize import to_bytes

_LIT_FROM = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)


def lit_drops(layer: Tensor) -> Tensor:
    """Weigh liquid (B, 1, H, W) >= 0 by its distance to a rim, lit from one side; each image's maximum is 1.

    The chain of OpenCV calls is the definition (Hendrycks & Dietterich 2019). An image without liquid stays
    dry. Liquid above 1, which is rare, starts again from 0: the original overflows its bytes.
    """
    lit = np.stack([_lit(liquid) for liquid in to_bytes(layer.remainder(256 / 255))[..., 0]])
    return torch.from_numpy(lit)[:, None].to(torch.float64)


def _lit(liquid: NDArray[np.uint8]) -> NDArray[np.float32]:
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, _LIT_FROM)
    light = np.multiply(liquid, cv2.blur(relief, (3, 3)), dtype=np.float32)
    return np.asarray(light / max(light.max(), np.float32(1.0)), np.float32)
