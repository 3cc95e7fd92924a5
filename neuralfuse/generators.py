"""The six NeuralFuse generators, and the transformation that they make (the paper, Appendix D); and three of our own.

A generator G maps an image [batch, 3, H, W] in [-1, 1] to a perturbation of the same shape; the base model
then sees F(x) = clamp(x + G(x), -1, 1). Height and width have to be divisible by 8, because every generator
halves them three times. The parameter counts are those of the paper's Table 8. ConvXS, ConvQ and ConvQS
are not in the paper.

Where Tables 3 and 4 leave a question, the counts of Table 8 (and the shapes) answer it:
- ConvL, ConvS, DeConvL, DeConvS: every convolution has a bias and is followed by batch normalization; the
  last layer has 3 output channels and ends in tanh, so G(x) lies in [-1, 1].
- DeConvL's three transposed convolutions (128 -> 64, 64 -> 32, 32 -> 3) are all 4x4 with stride 2 and
  padding 1; the last one is the "Conv, BN, Tanh" of the table's last row (as in DeConvS). Three poolings
  need three doublings, and a 3x3 convolution in its place would give 672 parameters less than Table 8.
- UNetL, UNetS: the convolution blocks have no bias, the transposed convolutions and the last 1x1
  convolution have one and no normalization. The last row of Table 4 is a plain convolution, so G(x) is not
  bounded; the clamp of F bounds what the base model sees. A 2x2 transposed convolution with stride 2
  doubles a map only with padding 0 (with the "padding=1" of Table 4's caption it would turn 4x4 into 6x6,
  which can't be joined to 8x8), so the padding is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from faultsim.errors import FaultsimError

REDUCTION = 8
"""Generators halve the image three times; height and width have to be multiples of this."""


def check_generator_size(name: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of one input; None stands for several inputs. Raises FaultsimError if no generator takes it."""
    step = REDUCTION
    if shape is None or len(shape) != 3 or shape[0] != 3 or shape[1] % step or shape[2] % step:
        found = "something else than one image" if shape is None else "x".join(map(str, shape))
        raise FaultsimError(
            f"generator {name} takes images of 3 channels whose height and width are multiples of {step}, such as "
            f"3x32x32 or 3x224x224; the data gives {found}"
        )
    return shape


def _block(inputs: int, outputs: int, bias: bool = True) -> list[nn.Module]:
    """Create a ConvBlock of Tables 3 and 4."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _up_block(inputs: int, outputs: int) -> list[nn.Module]:
    """Create a DeConvBlock of Table 3; it doubles height and width."""
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _large_encoder() -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = 3
    for channels in (32, 64, 128):
        layers += [*_block(inputs, channels), *_block(channels, channels), nn.MaxPool2d(2)]
        inputs = channels
    return layers


def _small_encoder() -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, channels in ((3, 32), (32, 64), (64, 64)):
        layers += [*_block(inputs, channels), nn.MaxPool2d(2)]
    return layers


def _with_tanh(layers: list[nn.Module]) -> nn.Sequential:
    """Replace the last ReLU by tanh, as in the last block of Table 3."""
    return nn.Sequential(*layers[:-1], nn.Tanh())


def conv_large() -> nn.Sequential:
    """Create a ConvL: 723,273 parameters."""
    decoder: list[nn.Module] = []
    for inputs, channels in ((128, 128), (128, 64), (64, 32)):
        decoder += [*_block(inputs, channels), nn.Upsample(scale_factor=2), *_block(channels, channels)]
    return _with_tanh([*_large_encoder(), *decoder, *_block(32, 3)])


def conv_small() -> nn.Sequential:
    """Create a ConvS: 113,187 parameters."""
    decoder: list[nn.Module] = []
    for inputs, channels in ((64, 64), (64, 32), (32, 3)):
        decoder += [*_block(inputs, channels), nn.Upsample(scale_factor=2)]
    return _with_tanh([*_small_encoder(), *decoder, *_block(3, 3)])


def deconv_large() -> nn.Sequential:
    """Create a DeConvL: 647,785 parameters."""
    decoder = [*_block(128, 128), *_up_block(128, 64), *_block(64, 64), *_up_block(64, 32), *_block(32, 32)]
    return _with_tanh([*_large_encoder(), *decoder, *_up_block(32, 3)])


def deconv_small() -> nn.Sequential:
    """Create a DeConvS: 156,777 parameters."""
    return _with_tanh([*_small_encoder(), *_up_block(64, 64), *_up_block(64, 32), *_up_block(32, 3)])


def conv_extra_small() -> nn.Sequential:
    """Create a ConvXS (not in the paper): 921 parameters, for base models that need less energy than the paper's six.

    It has two convolutions at a quarter of height and width, where they cost a sixteenth, and upsamples the
    perturbation. It can shift brightness and contrast, but cannot draw fine patterns.
    """
    small = _with_tanh([nn.AvgPool2d(4), *_block(3, 16), *_block(16, 3)])
    return small.append(nn.Upsample(scale_factor=4, mode="bilinear"))


def _conv_quarter(first: int, channels: int, kernel: int) -> nn.Sequential:
    draw = nn.ConvTranspose2d(channels, 3, kernel, stride=2, padding=kernel // 2 - 1)
    return nn.Sequential(
        *(nn.AvgPool2d(4), *_block(3, first), nn.MaxPool2d(2)),
        *(*_block(first, channels), *_block(channels, channels)),
        *(draw, nn.BatchNorm2d(3), nn.Tanh(), nn.Upsample(scale_factor=4, mode="bilinear")),
    )


def conv_quarter() -> nn.Sequential:
    """Create a ConvQ (not in the paper): 11,865 parameters.

    It works at a quarter and at an eighth of height and width. Its receptive field covers a whole 32x32 image, so that
    it can know the class and draw the pattern of the class.
    """
    return _conv_quarter(16, 24, 6)


def conv_quarter_small() -> nn.Sequential:
    """Create a ConvQS (not in the paper): 3,057 parameters.

    A narrow ConvQ, for a lower voltage of the base model has to repay each access of the generator. Each pixel of the
    perturbation depends on at least 28x28 pixels of a 32x32 image.
    """
    return _conv_quarter(8, 12, 4)


def _encode(down: nn.ModuleList, pool: nn.Module, x: Tensor) -> list[Tensor]:
    """Compute the feature maps of all scales of a U-Net, the largest first."""
    maps = [down[0](x)]
    for block in down[1:]:
        maps.append(block(pool(maps[-1])))
    return maps


class UNet(nn.Module):
    """UNetL (`width` 16) and UNetS (`width` 8): four scales, joined by concatenation (the paper, Table 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        scales = [width << level for level in range(4)]
        self.down = nn.ModuleList(
            nn.Sequential(*_block(inputs, channels, bias=False), *_block(channels, channels, bias=False))
            for inputs, channels in zip([3, *scales], scales, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * channels, channels, 2, stride=2) for channels in reversed(scales[:-1])
        )
        self.up = nn.ModuleList(
            nn.Sequential(
                *_block(2 * channels, channels, bias=False), *_block(channels, channels, bias=False)
            )
            for channels in reversed(scales[:-1])
        )
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return G(x), in the shape of the images."""
        maps = _encode(self.down, self.pool, x)
        y = maps.pop()
        for grow, up in zip(self.grow, self.up, strict=True):
            y = up(torch.cat([maps.pop(), grow(y)], dim=1))
        drawn: Tensor = self.last(y)
        return drawn


class UniversalPerturbation(nn.Module):
    """UIP: G(x) = tanh(P), one perturbation for all images (the full paper, Table 11), 3,072 parameters for 3x32x32.

    It is the baseline of generators: what a perturbation wins that does not depend on the image. It begins at P = 0.
    """

    def __init__(self, shape: tuple[int, ...] = (3, 32, 32)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, *shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return the perturbation for each image; FaultsimError for images of another size."""
        if x.shape[1:] != self.weight.shape[1:]:
            sizes = ["x".join(map(str, shape[1:])) for shape in (self.weight.shape, x.shape)]
            raise FaultsimError(f"the perturbation UIP is for images of {sizes[0]}, not {sizes[1]}")
        return torch.tanh(self.weight).expand(len(x), *self.weight.shape[1:])


_PAPER: dict[str, Callable[[], nn.Module]] = {
    "ConvL": conv_large,
    "ConvS": conv_small,
    "DeConvL": deconv_large,
    "DeConvS": deconv_small,
    "UNetL": partial(UNet, 16),
    "UNetS": partial(UNet, 8),
}
_BASELINES: dict[str, Callable[[], nn.Module]] = {"UIP": UniversalPerturbation}
_REGISTRY = {**_PAPER, "ConvXS": conv_extra_small, "ConvQ": conv_quarter, "ConvQS": conv_quarter_small}

NAMES = tuple(_PAPER)
"""The paper's six."""

KNOWN = tuple(_REGISTRY)
"""Names that `create` knows: the paper's six and ours."""


BASELINES = tuple(_BASELINES)
"""Names that `create` knows, too, and that are no networks."""


def create(name: str) -> nn.Module:
    """Create a generator G with random weights.

    Parameters
    ----------
    name
        One of KNOWN or BASELINES.

    Returns
    -------
    nn.Module
        Images [B, 3, H, W] in [-1, 1] to a perturbation of the same shape. `NeuralFuse(G)` adds it to the image.

    Raises
    ------
    FaultsimError
        For an unknown name.
    """
    if name not in _REGISTRY and name not in _BASELINES:
        raise FaultsimError(f"unknown generator {name!r}: it can be {', '.join((*KNOWN, *BASELINES))}")
    return (_BASELINES | _REGISTRY)[name]()


def has_architecture(network: nn.Module, name: str) -> bool:
    """Tell whether a network has the parameters and buffers of a generator of this name, quantization-aware or not."""
    with torch.device("meta"):
        expected = {key: value.shape for key, value in create(name).state_dict().items()}
    found = {
        key.replace("parametrizations.weight.original", "weight"): value.shape
        for key, value in network.state_dict().items()
    }
    return found == expected


def measure_coarseness(generator: nn.Module) -> int:
    """Return the side of the square of image pixels below which a generator cannot choose details.

    It is the factor of the last upsampling after which only layers with at most 3 input channels follow.
    """
    if isinstance(generator, nn.Sequential):
        factor = 1.0
        for layer in reversed(generator):
            if isinstance(layer, nn.Upsample):
                factor *= cast(float, layer.scale_factor)  # the same in both directions
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.in_channels > 3:
                break
        return int(factor)
    return 1


def have_same_encoder(one: str, other: str) -> bool:
    """Tell whether two generators, given their names, have the same encoder."""
    shapes = []
    for name in (one, other):
        with torch.device("meta"):
            shapes.append({key: value.shape for key, value in Encoder(create(name)).state_dict().items()})
    return shapes[0] == shapes[1]


class Encoder(nn.Module):
    """The part of a generator down to its smallest feature map; it shares the generator's parameters.

    It maps images [B, 3, H, W] to features [B, channels, h, w].

    Raises
    ------
    FaultsimError
        For a network that `create` did not create.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        if isinstance(generator, UNet):
            self.down, self.pool = generator.down, generator.pool
        elif isinstance(generator, nn.Sequential):
            kinds = [type(layer) for layer in generator]
            # up to the last pooling; generators that start with 4x4 average pooling end with one decoder layer
            last = nn.ReLU if kinds[0] is nn.AvgPool2d else nn.MaxPool2d
            end = max(index for index, kind in enumerate(kinds) if kind is last)
            self.layers = generator[: end + 1]
        else:
            raise FaultsimError(f"a {type(generator).__name__} has no known encoder")
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        self.channels = convolutions[-1].out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature maps of the encoder."""
        if hasattr(self, "down"):
            return _encode(self.down, self.pool, x)[-1]
        features: Tensor = self.layers(x)
        return features


class NeuralFuse(nn.Module):
    """F(x) = clamp(x + G(x), -1, 1), which the base model sees instead of x (the paper, section 2.1).

    Parameters
    ----------
    generator
        The network G (see `create`).
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, 3, H, W] in [-1, 1] to images of the same shape and range.

        Raises FaultsimError if height or width is not a multiple of 8.
        """
        if x.shape[-1] % REDUCTION or x.shape[-2] % REDUCTION:
            raise FaultsimError(
                f"a generator needs a height and a width that are multiples of {REDUCTION}, "
                f"not {x.shape[-2]}x{x.shape[-1]}"
            )
        return torch.clamp(x + self.generator(x), -1.0, 1.0)
