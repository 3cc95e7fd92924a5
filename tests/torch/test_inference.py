"""Fast passes: the answers of the model as it is written, only where images are known to be treated one by one."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim import Chip, FaultModel, FaultsimError, StoredWeights, evaluate, models, perturbed
from faultsim.inference import passes as inference
from faultsim.inference.fold import folded
from faultsim.inference.passes import Passes, trace_images

CPU = torch.device("cpu")
CHIPS = [Chip(1), Chip(2)]


class Branches(nn.Module):
    """Depthwise and transposed convolutions, a shortcut, channels side by side, a mean over the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.down, self.up = nn.AvgPool2d(2), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = functional.relu(x + self.deep(x))
        z = self.up(self.down(y))
        return self.last(torch.cat([x, y, z], 1).mean([2, 3]))


class MeanOfImages(nn.Module):
    """Each answer depends on all images of the batch."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.layer, self.written = nn.Linear(3, 4), written
        self.offset = nn.Parameter(torch.zeros(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        maps = x.mean([2, 3])
        if self.written == "mean":
            maps = maps - maps.mean(0)
        elif self.written == "flatten":
            maps = torch.flatten(maps).reshape(-1, 3)
        elif self.written == "cat":
            maps = torch.cat([maps, maps], 0)
        elif self.written == "parameter":
            maps = maps + self.offset
        elif self.written == "branch" and maps.sum() > 0:
            maps = 2 * maps
        return self.layer(maps)


def settled(model: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics of its own."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        model(torch.randn(32, 3, 32, 32))
    return model.eval()


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    return settled(Branches() if name == "branches" else models.resolve(name, 10))


@pytest.mark.parametrize("name", ["branches", "DigitsNet", "DigitsVGG"])
def test_passes_answer_what_the_model_answers(name: str, monkeypatch: pytest.MonkeyPatch):
    """A few images at once, folded and channels last; float32 has 24 bits, bfloat16 8."""
    model, images = build(name), torch.randn(11, 3, 32, 32)
    seen: list[int] = []
    monkeypatch.setattr(inference, "LARGEST_MAP", 1)
    monkeypatch.setattr(inference, "FEWEST", 4)
    stored = StoredWeights.of(model)
    with torch.inference_mode(), perturbed(model, CHIPS[0], bit_error_rate=0.001, stored=stored):
        expected = model(images)
    for compute, near in (("float32", 1e-4), ("bfloat16", 0.1)):
        with torch.inference_mode(), folded(model, stored) as memory:
            passes = Passes(model, CPU, compute)
            read = memory.read_chips(CHIPS[:1], 0.001, None, FaultModel())
            placed = [passes.place(layer, w[0]) for layer, w in zip(memory.layers, read, strict=True)]
            original = type(model).forward
            monkeypatch.setattr(
                type(model), "forward", lambda self, x, call=original: seen.append(len(x)) or call(self, x)
            )
            with memory.replaced(placed):
                found = passes(images)
            monkeypatch.setattr(type(model), "forward", original)
        assert found.dtype == torch.float32
        assert float((found - expected).abs().max()) < near * float(expected.abs().max())
        kinds = {w.dtype for w in placed}
        assert kinds == {torch.bfloat16 if compute == "bfloat16" else torch.float32}
    assert seen[-3:] == [4, 4, 3]


def test_images_of_all_models_pass_one_by_one():
    with torch.device("meta"):
        assert all(trace_images(models.resolve(name, 10)) is not None for name in models.NAMES)


@pytest.mark.parametrize("written", ["mean", "flatten", "cat", "parameter", "branch"])
def test_batches_stay_whole_where_images_may_meet(written: str):
    assert trace_images(MeanOfImages(written)) is None
    assert trace_images(MeanOfImages("")) is not None


def test_batches_stay_whole_for_hooks_and_unknown_modules():
    model = build("branches")
    assert trace_images(model) is not None
    model.deep.register_forward_hook(lambda *_: None)
    assert trace_images(model) is None
    assert trace_images(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(0))) is None
    assert trace_images(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(0))) is None
    assert trace_images(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())) is not None


def test_answers_that_depend_on_the_batch_are_those_of_the_batch():
    """48 images in one batch: each is compared with the mean of all, not of a part."""
    torch.manual_seed(2)
    model = MeanOfImages("mean").eval()
    images = torch.randn(48, 3, 8, 8)
    with torch.no_grad(), perturbed(model, CHIPS[0], bit_error_rate=0.01):
        labels = model(images).argmax(1)
    assert evaluate(model, [(images, labels)], CHIPS[:1], bit_error_rate=0.01).correct == (48,)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_an_evaluation_counts_what_a_loop_counts(compute: str, monkeypatch: pytest.MonkeyPatch):
    """Labels are the answers of chip 1 where its two best logits lie apart."""
    model, images = build("branches"), torch.randn(64, 3, 32, 32)
    with torch.no_grad(), perturbed(model, CHIPS[0], bit_error_rate=0.01):
        model.last.bias -= model(images).mean(0)  # or all answers are the same class
        logits = model(images)
    first, second = logits.topk(2).values.T
    clear = first - second > (0.001 if compute == "float32" else 0.1) * logits.abs().max()
    labels = logits.argmax(1)[clear]
    assert len(labels) >= 10
    assert len(labels.unique()) >= 3
    data = [(images[clear], labels)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for largest in (1, 1 << 30):
        monkeypatch.setattr(inference, "LARGEST_MAP", largest)
        found = evaluate(model, data, CHIPS, bit_error_rate=0.01, compute=compute)
        assert found.correct[0] == found.images == len(labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode(), perturbed(model, CHIPS[0], bit_error_rate=0.01):
        assert torch.equal(model(images), logits)


def test_the_model_is_given_back_after_an_error():
    model = build("branches")
    images = torch.randn(4, 3, 32, 32)
    expected = model(images)
    with pytest.raises(FaultsimError, match="the model fails on inputs"):
        evaluate(model, [(torch.randn(4, 2, 32, 32), torch.zeros(4))], CHIPS, bit_error_rate=0.01)
    assert torch.equal(model(images), expected)
    with pytest.raises(FaultsimError, match="cannot compute in 'int8': it can be float32 or bfloat16"):
        evaluate(model, [(images, torch.zeros(4))], CHIPS, bit_error_rate=0.01, compute="int8")
