"""Train CharGPT, the bundled language model, on the documentation that comes with Python.

    python -m tools.text_model [FOLDER] [--steps N]

A GPT-2 of 0.16 million weights that knows characters. It learns the help topics of Python (`pydoc_data.topics`: the
language reference, PSF License 2.0). Some topics are held out, and every longer line of them is taken out of the
others, for topics quote each other. FOLDER gets model, tokenizer and the text that was held out.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

FOLDER = Path(__file__).resolve().parents[1] / "faultsim" / "bundled" / "chargpt"
HELD_OUT = ("dict", "exprlists", "import", "operator-summary", "while", "with")
CONTEXT, BATCH, WIDTH, LAYERS, HEADS = 64, 32, 64, 3, 4
RATE = 5e-3
UNKNOWN = "<unk>"


def divide_topics() -> tuple[str, str]:
    """Return the text to train on and the text that is held out."""
    held = "\n".join(topics[name] for name in HELD_OUT)
    lines = {line for line in held.splitlines() if len(line.strip()) > 20}
    rest = (topics[name] for name in sorted(topics) if name not in HELD_OUT)
    return "\n".join(line for text in rest for line in text.splitlines() if line not in lines), held


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer for which each printable ASCII character is a token."""
    known = {character: number for number, character in enumerate(["\n", *map(chr, range(32, 127)), UNKNOWN])}
    tokenizer = Tokenizer(WordLevel(known, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)


def train(folder: Path, steps: int) -> None:
    """Train, and write the folder."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    text, held = divide_topics()
    ids, test = (torch.tensor(tokenizer(part, verbose=False)["input_ids"]) for part in (text, held))
    configuration = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=None,
        eos_token_id=None,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model = GPT2LMHeadModel(configuration)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    began = time.monotonic()
    print(f"{len(ids):,} characters to train on, {len(test):,} held out", flush=True)
    for step in range(1, steps + 1):
        at = torch.randint(len(ids) - CONTEXT, (BATCH,))
        windows = torch.stack([ids[i : i + CONTEXT + 1] for i in at.tolist()])
        logits = model(windows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(f"{step}/{steps}: {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
            write(folder, model, tokenizer, held, {"steps": step, "seconds": round(time.monotonic() - began)})


def write(
    folder: Path, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, held: str, facts: dict
) -> None:
    """Write model (bfloat16), tokenizer, the text that is held out, and where all came from."""
    folder.mkdir(parents=True, exist_ok=True)
    copied = GPT2LMHeadModel(model.config)
    copied.load_state_dict(model.state_dict())
    copied.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "held_out.txt").write_text(held)
    origin = {
        "model": "CharGPT",
        "text": f"pydoc_data.topics of Python {platform.python_version()} (PSF License 2.0)",
        "held_out": list(HELD_OUT),
        "recipe": {"batch": BATCH, "context": CONTEXT, "learning_rate": RATE, "seed": 0, **facts},
        "torch": torch.__version__,
    }
    (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
