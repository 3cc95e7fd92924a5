"""VGG11, VGG16 and VGG19 for 32x32 images, with batch normalization and one fully connected layer.

Five pooling steps take 32x32 down to 1x1, so that a single 512 -> classes layer follows (Simonyan and
Zisserman, "Very Deep Convolutional Networks"; sizes as in the NeuralFuse paper's Table 8). The convolutions
keep their biases.
"""

from torch import Tensor, nn

# convolutions per stage; the stages have 64, 128, 256, 512 and 512 channels
_DEPTHS = {"VGG11": (1, 1, 2, 2, 2), "VGG16": (2, 2, 3, 3, 3), "VGG19": (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ended by max pooling: [batch, 3, 32, 32] -> [batch, num_classes]."""

    def __init__(self, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for depth, channels in zip(depths, _CHANNELS, strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [batch, num_classes]."""
        return self.classifier(self.features(x).flatten(1))


def vgg11(num_classes: int = 10) -> VGG:
    """VGG11: 9,231,114 parameters with 10 classes."""
    return VGG(_DEPTHS["VGG11"], num_classes)


def vgg16(num_classes: int = 10) -> VGG:
    """VGG16: 14,728,266 parameters with 10 classes."""
    return VGG(_DEPTHS["VGG16"], num_classes)


def vgg19(num_classes: int = 10) -> VGG:
    """VGG19: 20,040,522 parameters with 10 classes."""
    return VGG(_DEPTHS["VGG19"], num_classes)
