"""Language models: is each token predicted once, is the perplexity that of the definition, and is a folder read without
a network and without running what it holds?"""

import json
import math
import shutil
import socket
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faultsim import Chip, FaultModel, FaultsimError, FaultsimWarning, evaluate, load_subject
from faultsim.data.sources import OwnData
from faultsim.data.text import load_text
from faultsim.models import resolve
from tools.text_model import make_tokenizer

transformers = pytest.importorskip("transformers")

SIZES = {
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 12,
    "bos_token_id": None,
    "eos_token_id": None,
}
TEXT = "To be, or not to be: that is the question.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that knows characters, with random weights, as save_pretrained writes it."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(tokenizer), **SIZES))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "hamlet.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("context", [1, 5, 12, None])
def test_each_token_but_the_first_is_predicted_once(folder: Path, text: Path, context: int | None):
    found = load_text(text, f"transformers:{folder}", context)
    length = context or 12
    said = "".join(
        chr(int(token) + 31) if token else "\n" for _, targets in found.batches for token in targets.flatten()
    )
    assert said == TEXT[1:]
    for inputs, targets in found.batches:
        assert inputs.shape == targets.shape
        assert inputs.shape[1] <= length
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert len(found) == math.ceil((len(TEXT) - 1) / length)


def test_the_perplexity_is_the_exponential_of_the_mean_over_all_tokens(folder: Path, text: Path):
    name = f"transformers:{folder}"
    subject = load_subject(name, own=OwnData(str(text), False, is_text=True), metric=None)
    found = evaluate(
        subject.model, subject.data, [1], bit_error_rate=0.0, stored=subject.stored, metric="perplexity"
    )
    weights = subject.stored.read_chips([Chip(1)], 0.0, None, FaultModel())
    total = count = 0.0
    with torch.no_grad(), subject.stored.replaced([weight[0] for weight in weights]):
        for inputs, targets in subject.data:
            log = subject.model(inputs).logits.double().log_softmax(-1)
            for row, wanted in zip(log, targets, strict=True):
                for position, token in enumerate(wanted.tolist()):
                    total, count = total - float(row[position, token]), count + 1
    assert count == len(TEXT) - 1
    assert found.mean == pytest.approx(math.exp(total / count), rel=1e-9)


def test_a_configuration_alone_gives_random_weights_and_says_so(folder: Path, tmp_path: Path):
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.warns(FaultsimWarning, match="its weights are random"):
        one = resolve(f"transformers:{tmp_path}")
    with pytest.warns(FaultsimWarning, match="its weights are random"):
        two = resolve(f"transformers:{tmp_path}")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def _with(folder: Path, tmp_path: Path, change: str) -> str:
    """A copy of the folder in which something is wrong."""
    path = tmp_path / "changed"
    shutil.copytree(folder, path)
    weights = path / "model.safetensors"
    if change == "pickled":
        weights.rename(path / "pytorch_model.bin")
    elif change == "missing":
        tensors = load_file(weights)
        del tensors["transformer.h.0.mlp.c_fc.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif change == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif change == "tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (path / name).unlink()
    elif change == "no configuration":
        (path / "config.json").unlink()
    elif change == "code":
        settings = json.loads((path / "config.json").read_text())
        settings |= {
            "model_type": "odd",
            "auto_map": {"AutoConfig": "odd.Config", "AutoModelForCausalLM": "odd.Model"},
        }
        (path / "config.json").write_text(json.dumps(settings))
        (path / "odd.py").write_text("raise SystemExit('code of the folder ran')")
    elif change == "pictures":
        transformers.ViTConfig().save_pretrained(path)
    return f"transformers:{path}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pickled", "has pickled weights only"),
        ("missing", "hold no 'transformer.h.0.mlp.c_fc.weight'"),
        ("truncated", "cannot be read"),
        ("tokenizer", "has no tokenizer"),
        ("no configuration", "must be a folder with config.json"),
        ("code", "cannot be read"),
        ("pictures", "a vit model predicts no next token"),
    ],
)
def test_what_cannot_be_read_gets_one_line(
    folder: Path, text: Path, tmp_path: Path, change: str, message: str
):
    name = _with(folder, tmp_path, change)
    read = partial(load_text, text) if change == "tokenizer" else resolve
    with pytest.raises(FaultsimError, match=message) as error:
        read(name)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("model 'transformers:")


def test_texts_and_contexts_out_of_range_get_one_line(folder: Path, text: Path, tmp_path: Path):
    name = f"transformers:{folder}"
    for context, windows, message in (
        (13, None, "takes 1 to 12 tokens"),
        (-1, None, "takes 1 to 12 tokens"),
        (None, 5, "has 4, choose 1 to 4"),
        (None, 0, "choose 1 to 4"),
    ):
        with pytest.raises(FaultsimError, match=message):
            load_text(text, name, context, windows)
    with pytest.raises(FaultsimError, match="does not exist"):
        load_text(tmp_path / "none.txt", name)
    (tmp_path / "short.txt").write_text("a")
    with pytest.raises(FaultsimError, match="has 1 tokens: at least 2"):
        load_text(tmp_path / "short.txt", name)


def run(capsys, *words: str) -> tuple[int, str, str]:
    from faultsim.cli import main

    with pytest.raises(SystemExit) as end:
        main(list(words))
    said = capsys.readouterr()
    return end.value.code or 0, said.out, said.err


def test_the_bundled_model_knows_english_and_loses_it_at_low_voltage(capsys):
    """A uniform guess of 97 characters has perplexity 97. The metric is the perplexity without a word."""
    command = ("sweep-voltage", "--model", "transformers:CharGPT", "--images", "16", "--chips", "2")
    code, out, _ = run(capsys, *command, "--voltages", "1,0.78", "--json")
    found = json.loads(out)
    clean, low = found["summary"]
    assert code == 0
    assert found["configuration"]["metric"]["name"] == "perplexity"
    assert clean["mean"] < 6 < 2 * clean["mean"] < low["mean"]
    assert clean["energy_saving"] == 0 < low["energy_saving"]
    assert found["memory"]["share"] == 1


def test_a_user_s_own_text_and_words_that_do_not_go_together(folder: Path, text: Path, capsys):
    name = f"transformers:{folder}"
    options = ("--bit-error-rate", "1%", "--chips", "1")
    code, out, _ = run(capsys, "evaluate", "--model", name, "--text", str(text), *options, "--json")
    assert code == 0
    assert json.loads(out)["configuration"]["images"] == 4
    for words, message in (
        (("--model", name), "is a language model: add --text FILE"),
        (("--text", str(text)), "--text needs a language model"),
        (("--model", name, "--text", str(text), "--dataset", "digits"), "cannot be combined with --dataset"),
        (("--context", "3"), "--context is for the windows of a text"),
    ):
        code, _, said = run(capsys, "evaluate", *words, *options)
        assert code == 2
        assert message in said
