"""DigitsNet: the small network of the quick start, for handwritten digits scaled to 3x32x32."""

from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Four 3x3 convolutions with pooling and one fully connected layer.

    Maps [batch, 3, 32, 32] to [batch, num_classes]. 63,258 parameters with 10 classes, of which 62,896 are
    convolution and matrix weights.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels in (16, 32, 64, 64):
            layers += [
                nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            inputs = channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs * 2 * 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [batch, num_classes]."""
        return self.classifier(self.features(x).flatten(1))
