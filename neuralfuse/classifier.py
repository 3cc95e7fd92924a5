"""A classifier of a generator's own size: its encoder with a linear head.

Staged training starts with it. It is also the baseline of every generator: to draw the pattern of an image's class, a
generator has to know the class.
"""

from torch import Tensor, nn

from . import generators


class Classifier(nn.Module):
    """A generator's encoder (it shares the parameters), global average pooling, and a linear layer.

    It maps images [B, 3, H, W] in [-1, 1] to logits [B, classes].

    Raises
    ------
    FaultsimError
        For a generator whose encoder is not known.
    """

    def __init__(self, generator: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = generators.Encoder(generator)
        self.head = nn.Linear(self.encoder.channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.head(self.encoder(x).mean((2, 3)))
