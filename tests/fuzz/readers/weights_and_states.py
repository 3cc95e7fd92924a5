"""Readers of weights, generators and training states."""

import shutil
from pathlib import Path

import torch
from torch import nn

from faultsim import bundled
from faultsim.data import Dataset
from faultsim.studies.subject import count_classes, find_model, load_model
from faultsim.training.loop import Loop
from neuralfuse import bundled as shipped
from neuralfuse.files import read_generator
from tests.fuzz import mutations
from tests.fuzz.readers.reader import Reader


def make_weights(folder: Path) -> list[Reader]:
    cpu, images = torch.device("cpu"), torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)

    def read(path: Path, _: Path) -> object:
        name, file, trained = find_model(None, path)
        network, _, _ = load_model(name, file, trained.get("num_classes", 10), cpu)
        count_classes(name, network, images)
        return _finite(network(images))

    def generator(path: Path, _: Path) -> object:
        _, network, _, _ = read_generator(path)
        return _finite(network.eval()(images))

    inside = (mutations.inside_safetensors,)
    return [
        Reader("weights", {"w.safetensors": bundled.WEIGHTS.read_bytes()}, read, inside=inside * 3),
        Reader("generator", {"g.safetensors": shipped.WEIGHTS.read_bytes()}, generator, inside=inside * 3),
    ]


def _finite(values: torch.Tensor) -> bool:
    if not bool(torch.isfinite(values).all()):
        raise AssertionError("what was loaded computes numbers that aren't finite")
    return True


def _loop(optimizer: str, state: Path) -> Loop:
    """A training of three steps an epoch."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    images = torch.arange(12 * 3072).remainder(256).to(torch.uint8).view(12, 3, 32, 32)
    data = Dataset(
        images=images, labels=torch.arange(12) % 2, class_names=("a", "b"), name="made", split="train"
    )
    chosen = (
        torch.optim.Adam(model.parameters(), lr=0.01)
        if optimizer == "Adam"
        else torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    )

    def step(images: torch.Tensor, labels: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(model(images[:, 0, :4, 0]), labels)
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        return loss.detach().reshape(1)

    return Loop(
        modules={"model": model}, optimizer=chosen, step=step, values=1, data=data, batch_size=4, seed=0,
        augment=None, identity={"seed": 0}, state=state, captured=False,
    )  # fmt: skip


def make_states(folder: Path) -> list[Reader]:
    samples = {}
    for optimizer in ("Adam", "SGD"):
        path = folder / f"{optimizer}.safetensors"
        _loop(optimizer, path).run(1, lambda epoch, means: {"epoch": epoch, "loss": means[0]})
        samples[path.name] = path.read_bytes()

    def read(path: Path, work: Path) -> object:
        state = work / "state.safetensors"
        shutil.copy(path, state)
        loop = _loop(path.stem, state)
        loop.resume()
        loop.run(2, lambda epoch, means: {"epoch": epoch, "loss": means[0]})
        return len(loop.curve)

    return [Reader("training state", samples, read, inside=(mutations.inside_safetensors,) * 3)]
