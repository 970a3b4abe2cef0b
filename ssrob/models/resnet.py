"""Pre-activation residual networks for small images (He et al. 2016b; Zagoruyko and Komodakis 2016)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Basic pre-activation block: BN, ReLU, 3 x 3 convolution, twice; a 1 x 1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        active = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active)))) + skip
        return out


class PreActResNet(nn.Module):
    """A 3 x 3 stem, stages of blocks (each after the first halves the image), global average pooling."""

    def __init__(self, channels: int, stem: int, widths: Sequence[int], blocks: int, stem_stride: int = 1):
        super().__init__()
        self.stem = nn.Conv2d(channels, stem, 3, stem_stride, padding=1, bias=False)
        inputs, layers = stem, []
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, stride=2 if stage > 0 and block == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)
        self.features = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised -> (B, features)."""
        return F.relu(self.norm(self.blocks(self.stem(x)))).mean(dim=(2, 3))


def resnet(channels: int, *, depth: int, width: int, stem_stride: int) -> PreActResNet:
    """The 6 n + 2 layer CIFAR ResNet (He et al. 2016a, section 4.2) with pre-activation blocks."""
    return PreActResNet(channels, width, (width, 2 * width, 4 * width), (depth - 2) // 6, stem_stride)


def preactresnet18(channels: int, *, width: int) -> PreActResNet:
    """PreActResNet-18 for CIFAR: four stages of two blocks, 3 x 3 stem, no max-pooling."""
    return PreActResNet(channels, width, (width, 2 * width, 4 * width, 8 * width), 2)


def wideresnet(channels: int, *, depth: int, width: int) -> PreActResNet:
    """WRN-depth-width: 6 n + 4 layers, widened by `width` (Zagoruyko and Komodakis 2016)."""
    return PreActResNet(channels, 16, (16 * width, 32 * width, 64 * width), (depth - 4) // 6)
