"""Generators as a Python user loads, saves and evaluates them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import neuralfuse
from faultsim import FaultsimError, bundled
from faultsim.quantization import prepare_qat
from neuralfuse import generators
from neuralfuse.bundled import GENERATORS

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


@pytest.mark.parametrize("name", generators.KNOWN)
def test_what_was_saved_is_loaded(name: str, tmp_path: Path):
    torch.manual_seed(0)
    network = neuralfuse.create(name).eval()
    path = tmp_path / "g.safetensors"
    neuralfuse.save(path, network, name, {"dataset": "digits"})
    loaded = neuralfuse.load(path)
    assert not loaded.training
    neuralfuse.save(tmp_path / "again.safetensors", loaded, name, {"dataset": "digits"})
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    # within the rounding of weights to int8
    torch.testing.assert_close(loaded(IMAGES), neuralfuse.NeuralFuse(network)(IMAGES), atol=0.2, rtol=0)


def test_a_generator_in_quantization_aware_training_is_saved(tmp_path: Path):
    torch.manual_seed(0)
    network = prepare_qat(neuralfuse.create("ConvXS")).eval()
    fuse = neuralfuse.NeuralFuse(network)
    neuralfuse.save(tmp_path / "g.safetensors", fuse, "ConvXS")
    torch.testing.assert_close(neuralfuse.load(tmp_path / "g.safetensors")(IMAGES), fuse(IMAGES))


def test_another_architecture_is_refused(tmp_path: Path):
    with pytest.raises(FaultsimError, match="does not have the architecture ConvL"):
        neuralfuse.save(tmp_path / "g.safetensors", neuralfuse.create("ConvS"), "ConvL")
    with pytest.raises(FaultsimError, match="unknown generator 'ConvM'"):
        neuralfuse.save(tmp_path / "g.safetensors", neuralfuse.create("ConvS"), "ConvM")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FaultsimError, match="holds no generator"):
        neuralfuse.load(bundled.WEIGHTS)


def test_no_two_architectures_are_taken_for_each_other():
    networks = {name: neuralfuse.create(name) for name in generators.KNOWN}
    for name, network in networks.items():
        assert [other for other in networks if generators.has_architecture(network, other)] == [name]


def test_the_public_names_exist_and_importing_them_is_light():
    for name in neuralfuse.__all__:
        assert getattr(neuralfuse, name).__doc__
    assert set(neuralfuse.__all__) <= set(dir(neuralfuse))
    with pytest.raises(AttributeError):
        neuralfuse.nothing  # noqa: B018
    code = "import neuralfuse, sys; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_bundled_generators_load():
    for bundled_generator in GENERATORS.values():
        assert isinstance(neuralfuse.load(bundled_generator.weights), neuralfuse.NeuralFuse)
