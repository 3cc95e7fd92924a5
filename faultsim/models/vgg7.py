"""VGG7: a network in the manner of VGG that stands bit errors better, and learns CIFAR-10 in few passes.

It has group normalization, which takes its statistics from the very image that passes through the wrong weights, so a
shift that a wrong bit adds to a channel is taken back. The running statistics of batch normalization do not fit wrong
weights (Stutz et al., "Bit Error Robustness for Energy-Efficient DNN Accelerators", MLSys 2021, use groups too).
"""

from torch import Tensor, nn

# channels of the stages; each halves the map
_STAGES = (64, 256, 256)
_FIRST = 32
_GROUP = 16
"""Channels that are normalized together."""


class VGG7(nn.Module):
    """Seven 3x3 convolutions with group normalization and one fully connected layer: [batch, 3, 32, 32] -> logits.

    The first convolution is not padded: 30x30 pixels. Each of three stages pools after the first of its two
    convolutions: 15x15, 7x7, 3x3. 1,978,026 parameters with 10 classes.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, _FIRST, 3, bias=False),
            nn.GroupNorm(_FIRST // _GROUP, _FIRST),
            nn.ReLU(),
        ]
        inputs = _FIRST
        for channels in _STAGES:
            layers += [
                nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
                nn.MaxPool2d(2),
                nn.GroupNorm(channels // _GROUP, channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.GroupNorm(channels // _GROUP, channels),
                nn.ReLU(),
            ]
            inputs = channels
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1))
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [batch, num_classes]."""
        return self.classifier(self.features(x).flatten(1))
