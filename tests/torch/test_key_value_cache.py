"""The key-value cache as a fault site: does attention read the keys and values that a chip's memory makes of them?"""

import inspect
import json

import pytest
import torch
from torch import nn

from faultsim import Chip, FaultsimError, load_subject, perturbed_activations
from faultsim.activations.memory import ActivationMemory
from faultsim.activations.ranges import calibrate
from faultsim.faults import FaultModel
from faultsim.models.key_value_cache import add_cache_layers
from faultsim.sram import SRAM
from tests.torch.test_activations import read_reference

transformers = pytest.importorskip("transformers")

HEADS, SIZE, LENGTH, RATE = 2, 12, 9, 0.05
TOKENS = torch.arange(2 * LENGTH).reshape(2, LENGTH) * 7 % 31


def gpt2(layers: int = 1) -> nn.Module:
    torch.manual_seed(3)
    sizes = {"n_embd": SIZE, "n_layer": layers, "n_head": HEADS, "n_positions": LENGTH, "vocab_size": 31}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, initializer_range=0.5)
    )
    model.config.use_cache = False
    return model.eval()


def llama() -> nn.Module:
    """Its keys are turned by their positions before they are written, and two heads share each."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 31}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": LENGTH}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, initializer_range=0.5))
    return model.eval()


@pytest.mark.parametrize("make", [lambda: gpt2(2), llama], ids=["gpt2", "llama"])
def test_a_model_computes_what_it_did_and_reads_what_it_wrote(make) -> None:
    model = make()
    with torch.no_grad():
        before = model(TOKENS).logits
        names = add_cache_layers(model)
        torch.testing.assert_close(model(TOKENS).logits, before)
        assert add_cache_layers(model) == names  # once is enough
        torch.testing.assert_close(model(TOKENS).logits, before)
    attention = [
        name for name, module in model.named_modules() if type(module).__name__.endswith("Attention")
    ]
    assert names == [f"{name}.{cache}" for name in attention for cache in ("key_cache", "value_cache")]
    ranges = calibrate(model, [(TOKENS, TOKENS)], at="output", select=names)
    assert list(ranges.sites) == names
    shape = HEADS * (SIZE // HEADS if make is not llama else 4)
    assert {site.elements for site in ranges.sites.values()} == {LENGTH * shape}
    assert str(ranges) == "keys and values of 2 layers"


def test_attention_reads_what_the_reference_makes_of_keys_and_values() -> None:
    """A GPT-2 of one layer, computed by hand with the keys and values that chip 5 reads."""
    model = gpt2()
    names = add_cache_layers(model)
    ranges = calibrate(model, [(TOKENS, TOKENS)], at="output", select=names)
    memory = ActivationMemory(ranges, "int8", FaultModel(memory=SRAM()))
    with torch.no_grad(), perturbed_activations(model, Chip(5), memory, bit_error_rate=RATE):
        found = model(TOKENS).logits

    block = model.transformer.h[0]
    with torch.no_grad():
        x = model.transformer.wte(TOKENS) + model.transformer.wpe(torch.arange(LENGTH))
        query, key, value = block.attn.c_attn(block.ln_1(x)).split(SIZE, -1)
        read, base = [], 0
        for name, tensor in zip(names, (key, value), strict=True):
            site = ranges.sites[name]
            scale = max(-site.low, site.high) / 127
            of_chip = read_reference(
                tensor.numpy(), 5, 8, scale, rate=RATE, base=base
            )  # [samples, positions, ...]
            read.append(torch.from_numpy(of_chip))
            base += -(-site.elements // 8) * 8
        assert not torch.allclose(read[0], key, atol=0.1)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, *read))
        scores = q @ k.transpose(-1, -2) / (SIZE // HEADS) ** 0.5
        scores = scores.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf)
        x = x + block.attn.c_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))
        x = x + block.mlp(block.ln_2(x))
        expected = model.lm_head(model.transformer.ln_f(x))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_token_by_token_a_model_reads_the_same_cells() -> None:
    """The address of a position does not move when the cache grows, and what was read is not stored again."""
    model = gpt2(2)
    ranges = calibrate(model, [(TOKENS, TOKENS)], at="output", select=add_cache_layers(model))
    with torch.no_grad(), perturbed_activations(model, Chip(1), ranges, bit_error_rate=RATE):
        whole = model(TOKENS).logits
        cache, steps = None, []
        argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        for at in range(LENGTH):
            out = model(TOKENS[:, at : at + 1], **({} if cache is None else {argument: cache}))
            cache = out[argument] if cache is None else cache  # it grows
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-4)


def test_what_has_no_cache_is_refused() -> None:
    with pytest.raises(FaultsimError, match="Linear has no key-value cache"):
        add_cache_layers(nn.Linear(2, 2))
    with pytest.raises(FaultsimError, match="unknown activations 'caches'"):
        load_subject("DigitsNet", images=4).calibrate(what="caches")


def test_from_the_command_line(capsys) -> None:
    from faultsim.cli import main

    options = [
        "--model",
        "transformers:CharGPT",
        "--images",
        "4",
        "--chips",
        "2",
        "--voltages",
        "0.8",
        "--json",
    ]
    with pytest.raises(SystemExit):
        main(["sweep-voltage", *options, "--fault-sites", "activations", "--activations", "cache"])
    found = json.loads(capsys.readouterr().out)
    sites = found["configuration"]["activations"]["ranges"]["sites"]
    assert len(sites) == 2 * 3  # layers
    assert {elements for _, _, elements in sites.values()} == {64 * 64}  # positions and width
    row = found["summary"][0]
    assert row["energy_saving"] == 0  # weights stay at Vmin, and of the cache nothing is counted
    assert row["mean"] > 5.2  # without errors 5.17
    with pytest.raises(SystemExit, match="2"):
        main(["sweep-voltage", *options, "--activations", "cache"])
    assert "--activations needs --fault-sites" in capsys.readouterr().err


def test_outputs_from_the_command_line(capsys) -> None:
    from faultsim.cli import main

    options = ["--images", "20", "--chips", "2", "--bit-error-rate", "1%", "--fault-sites", "both"]
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", "DigitsNet", *options, "--activations", "output"])
    assert "outputs of 5 layers as int8" in capsys.readouterr().out
