"""Models of transformers, from a tiny configuration and with random weights: every matrix lies in the memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from energy import count, trace_model
from faultsim import Chip, StoredWeights, evaluate, perturb, perturbed
from faultsim.faults import FaultModel
from faultsim.voltage import VoltageCurve
from faultsim.voltage_sweep import plan_points, sweep

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
