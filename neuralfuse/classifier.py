"""A classifier of a generator's own size: its encoder with a linear head.

It is where the staged trainer begins, and the baseline of every generator: to draw the pattern of a class, a generator
has to know the class.
"""

from torch import Tensor, nn

from . import generators


class Classifier(nn.Module):
    """Images [batch, 3, H, W] in [-1, 1] to logits [batch, classes]: a generator's encoder (its own parameters), the
    mean over the places of the smallest map, and a linear layer. Raises FaultsimError for a network that is none of
    ours."""

    def __init__(self, generator: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = generators.Encoder(generator)
        self.head = nn.Linear(self.encoder.channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean((2, 3)))
