"""ResNet18 and ResNet50 for 32x32 images.

The 32x32 variants: a 3x3 stem with stride 1 and no pooling, stages of 64, 128, 256 and 512 channels, 1x1
projection shortcuts where the shape changes, the bottleneck's stride on its 3x3 convolution (He et al.,
"Deep Residual Learning for Image Recognition"; sizes as in the NeuralFuse paper's Table 8).
"""

from __future__ import annotations

from torch import Tensor, nn


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 projection where the shape changes."""

    def __init__(self, body: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_norm(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class BasicBlock(_Residual):
    """Two 3x3 convolutions; the output has `channels` channels."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        body = nn.Sequential(
            _conv_norm(inputs, channels, 3, stride), nn.ReLU(), _conv_norm(channels, channels, 3)
        )
        super().__init__(body, inputs, channels, stride)


class Bottleneck(_Residual):
    """1x1, 3x3 (with the stride), 1x1; the output has four times `channels` channels."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        outputs = channels * self.expansion
        body = nn.Sequential(
            _conv_norm(inputs, channels, 1),
            nn.ReLU(),
            _conv_norm(channels, channels, 3, stride),
            nn.ReLU(),
            _conv_norm(channels, outputs, 1),
        )
        super().__init__(body, inputs, outputs, stride)


class ResNet(nn.Module):
    """Four stages of residual blocks: [batch, 3, 32, 32] -> [batch, num_classes]."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], num_classes: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_norm(3, 64, 3), nn.ReLU())
        inputs = 64
        stages = []
        for index, depth in enumerate(depths):
            channels = 64 << index
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(inputs, channels, stride))
                inputs = channels * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.stages(self.stem(x))).flatten(1))


def resnet18(num_classes: int = 10) -> ResNet:
    """ResNet18: 11,173,962 parameters with 10 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet50(num_classes: int = 10) -> ResNet:
    """ResNet50: 23,520,842 parameters with 10 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)
