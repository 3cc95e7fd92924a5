"""DigitsVGG: a network in the manner of VGG for handwritten digits scaled to 3x32x32.

It reads so many weights that a small generator in front of it costs next to nothing.
"""

from torch import Tensor, nn

# channels of the convolutions of each stage; a stage ends in max pooling
_STAGES = ((8,), (32,), (64,), (128, 128), (256,))


class DigitsVGG(nn.Module):
    """Six 3x3 convolutions in five stages, from 32x32 to 1x1, and one fully connected layer.

    Maps [batch, 3, 32, 32] to [batch, num_classes]. 540,850 parameters with 10 classes, of which 539,608 are
    convolution and matrix weights.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in _STAGES:
            for channels in stage:
                layers += [
                    nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [batch, num_classes]."""
        return self.classifier(self.features(x).flatten(1))
