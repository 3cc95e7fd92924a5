"""ResNet18 and ResNet50 for 32x32 images.

The 32x32 variants: a 3x3 stem with stride 1 and no pooling, stages of 64, 128, 256 and 512 channels, 1x1
projection shortcuts where the shape changes, the bottleneck's stride on its 3x3 convolution (He et al.,
"Deep Residual Learning for Image Recognition"; sizes as in the NeuralFuse paper's Table 8).
"""

from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class _Shortcut(nn.Module):
    """What a block adds to its output: its input, or the 1x1 projection of it where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.conv = _conv(inputs, outputs, 1, stride)
            self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if self.projects else x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the output has `channels` channels."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.skip = _Shortcut(inputs, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu2(y + self.skip(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1; the output has four times `channels` channels."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = _conv(inputs, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(channels, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = _conv(channels, outputs, 1)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.skip = _Shortcut(inputs, outputs, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.relu2(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return self.relu3(y + self.skip(x))


class ResNet(nn.Module):
    """Four stages of residual blocks: [batch, 3, 32, 32] -> [batch, num_classes]."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], num_classes: int
    ) -> None:
        super().__init__()
        self.conv = _conv(3, 64, 3)
        self.norm = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        inputs = 64
        self.stages = nn.Sequential()
        for index, depth in enumerate(depths):
            channels = 64 << index
            stage = nn.Sequential()
            for position in range(depth):
                stage.append(block(inputs, channels, 2 if index > 0 and position == 0 else 1))
                inputs = channels * block.expansion
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [batch, num_classes]."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        return self.classifier(self.pool(x).flatten(1))


def resnet18(num_classes: int = 10) -> ResNet:
    """ResNet18: 11,173,962 parameters with 10 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet50(num_classes: int = 10) -> ResNet:
    """ResNet50: 23,520,842 parameters with 10 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)
