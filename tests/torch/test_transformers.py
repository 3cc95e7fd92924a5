"""Models of transformers, from a tiny configuration and with random weights: every matrix lies in the memory."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from energy import count, trace_model
from faultsim import (
    ActivationMemory,
    Chip,
    StoredWeights,
    calibrate,
    evaluate,
    perturb,
    perturbed,
    perturbed_activations,
)
from faultsim.faults import FaultModel
from faultsim.studies.voltage_sweep import plan_points, sweep
from faultsim.voltage import VoltageCurve

transformers = pytest.importorskip("transformers")


class Logits(nn.Module):
    """Of a model that answers with an object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.model(ids).logits
        return logits if logits.dim() == 2 else logits[:, -1]


def bert() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    configuration = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=7, **sizes)
    return transformers.BertForSequenceClassification(configuration)


def masked() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.BertForMaskedLM(
        transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **sizes)
    )


def gpt2() -> nn.Module:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))


TIED = {
    "bert": (bert, None),
    "masked": (
        masked,
        {"model.bert.embeddings.word_embeddings.weight", "model.cls.predictions.decoder.weight"},
    ),
    "gpt2": (gpt2, {"model.transformer.wte.weight", "model.lm_head.weight"}),
}


@pytest.mark.parametrize(("make", "tied"), TIED.values(), ids=TIED)
def test_every_matrix_is_in_memory_and_tied_ones_once(make: Callable[[], nn.Module], tied: set[str] | None):
    torch.manual_seed(0)
    model, ids = Logits(make()).eval(), torch.randint(0, 50, (30, 7))
    stored = StoredWeights.of(model)
    assert stored.share.fraction == 1
    assert stored.bytes == sum(p.numel() for p in model.parameters() if p.dim() > 1)
    shared = [set(layer.tensors) for layer in stored.layers if len(layer.tensors) > 1]
    assert shared == ([tied] if tied else [])
    options = {"bit_error_rate": 0.03}
    with torch.no_grad():
        clean, copied = model(ids), perturb(model, Chip(3), **options)
        with perturbed(model, Chip(3), **options):
            inside = model(ids)
        torch.testing.assert_close(copied(ids), inside, rtol=1e-5, atol=1e-6)
        assert torch.equal(model(ids), clean)
    labels = inside.argmax(1)
    assert evaluate(model, [(ids, labels)], [Chip(3)], **options).mean == 1
    rates = plan_points(VoltageCurve.default(), None, [0.0, 0.03])
    clean_one, faulty = sweep(
        model, [(ids, clean.argmax(1))], [Chip(3), Chip(4)], rates, faults=FaultModel(), stored=stored
    )
    assert clean_one.evaluation.mean > faulty.evaluation.mean


@pytest.mark.parametrize(("make", "tied"), TIED.values(), ids=TIED)
def test_energy_counts_all_products_and_names_the_look_ups(make, tied):
    """Of 7 tokens: each row of an embedding is looked up, which no systolic array does; all else is counted."""
    model = Logits(make()).eval()
    found, stored = trace_model(model, (7,)), StoredWeights.of(model)
    uncounted = found.uncounted(layer.tensors for layer in stored.layers)
    assert all("embeddings" in name or "wpe" in name for name in uncounted)
    assert all("word" not in name or not tied for name in uncounted)
    sizes = {name: layer.values.numel() for layer in stored.layers for name in layer.tensors}
    counts = count(found.layers)
    reads = dict(
        zip((layer.name for layer in counts.layers), (c.filter_reads for c in counts.counts), strict=True)
    )
    assert reads  # of 7 rows at most, in one fold of an array of 32: each weight once
    assert all(reads[name] == sizes[f"{name}.weight"] for name in reads)
    assert sum(reads.values()) == sum(layer.values.numel() for layer in stored.layers) - sum(
        sizes[name] for name in uncounted
    )


class Caching(nn.Module):
    """A language model that answers token by token, with its keys and values in a cache that it reads at each step.

    The cache's tensors pass through modules, so that they are sites of faults: [samples, positions, heads, size].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        layers = range(model.config.n_layer)
        self.caches = nn.ModuleList(
            nn.ModuleDict({"key": nn.Identity(), "value": nn.Identity()}) for _ in layers
        )

    def forward(self, ids: Tensor) -> Tensor:
        cache = _ReadCache(self.caches)
        for at in range(ids.shape[1]):
            answer = self.model(ids[:, at : at + 1], past_key_values=cache, use_cache=True)
        return answer.logits[:, -1]


class _ReadCache(transformers.DynamicCache):
    """Whoever gets keys and values from it reads them through a module."""

    def __init__(self, readers: nn.ModuleList) -> None:
        super().__init__()
        self.readers = readers

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs):
        stored = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        readers = self.readers[layer_idx].values()
        return tuple(
            read(tensor.transpose(1, 2)).transpose(1, 2) for read, tensor in zip(readers, stored, strict=True)
        )


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")  # newer versions call it cache
def test_a_key_value_cache_is_read_through_the_same_cells_at_each_step():
    torch.manual_seed(0)
    model = Caching(gpt2().eval())
    ids = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(1))
    ranges = calibrate(model, [ids], at="output", select="caches.*.*")
    assert list(ranges.sites) == [f"caches.{i}.{name}" for i in (0, 1) for name in ("key", "value")]
    assert {site.elements for site in ranges.sites.values()} == {9 * 16}  # positions times heads times sizes
    memory = ActivationMemory(ranges)
    reads: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        reads.append(output)

    with torch.no_grad():
        clean = model(ids)
        assert torch.allclose(clean, model.model(ids).logits[:, -1], atol=1e-5)
        with perturbed_activations(model, 5, memory, bit_error_rate=0.0):
            whole = model(ids)
        with perturbed_activations(model, 5, memory, bit_error_rate=0.05):
            hook = model.caches[1]["key"].register_forward_hook(keep)
            faulty = model(ids)
            hook.remove()
    assert torch.allclose(whole, clean, atol=0.05)
    assert not torch.equal(faulty, whole)
    assert [read.shape[1] for read in reads] == list(range(1, 10))
    for shorter, longer in pairwise(reads):  # what was written once is read the same at every later step
        assert torch.equal(longer[:, : shorter.shape[1]], shorter)
