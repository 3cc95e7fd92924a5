"""`faultsim train-base`: a base model with quantisation-aware weights."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .options import DataDirOption, DeviceOption
from .options import device as device_named
from .run_options import TrainingBudgetOption, pace


def train_base(
    model: Annotated[
        str,
        typer.Option(help="ResNet18, ResNet50, VGG11, VGG16, VGG19, DigitsNet, or package.module:function."),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    dataset: Annotated[str, typer.Option(help="digits, cifar10, cifar100 or gtsrb.")] = "cifar10",
    data_dir: DataDirOption = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (SGD, 1e-3, no weight decay, 100 epochs), paper_short (the same at 1e-2, falling to 0, "
            "12 epochs: for CPUs) or modern (one-cycle, weight decay, 20 epochs)."
        ),
    ] = "modern",
    epochs: Annotated[int | None, typer.Option(help="Another number of epochs than the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights, order and augmentation.")] = 0,
    budget: TrainingBudgetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a base model with quantisation-aware weights.

    The state is kept every minute in OUT.state.safetensors, the curve in OUT.log.jsonl; a run that was stopped goes on
    when it is started again with the same options.
    """
    import torch

    from .. import models
    from ..checkpoint import save_weights
    from ..data import augmentation_for, batches, load
    from ..errors import FaultsimError
    from ..files import write_text
    from ..provenance import provenance
    from ..train import Epoch, train_classifier
    from ..train import recipe as recipe_named

    if out.suffix != ".safetensors":
        raise FaultsimError(f"--out {out}: the name of a weight file must end in .safetensors")
    chosen = recipe_named(recipe, dataset, epochs)
    where = device_named(device)
    training, test = load(dataset, "train", data_dir), load(dataset, "test", data_dir).to(where)
    torch.manual_seed(seed)
    network = models.resolve(model, training.num_classes).to(where)
    started, first = time.monotonic(), None

    def accuracy() -> float:
        network.eval()
        with torch.inference_mode():
            right = sum((network(x).argmax(1) == y).sum() for x, y in batches(test, 512, device=where))
        network.train()
        return float(right) / len(test)

    log = out.with_suffix(".log.jsonl")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []

    def report(epoch: Epoch) -> None:
        nonlocal first, lines
        first = first or epoch.epoch
        seconds = time.monotonic() - started
        left = seconds / (epoch.epoch - first + 1) * (chosen.epochs - epoch.epoch)
        entry = {**vars(epoch), "test_accuracy": accuracy(), "seconds": round(seconds, 1)}
        lines = [*lines[: epoch.epoch - 1], json.dumps(entry)]
        write_text(log, "\n".join(lines) + "\n")
        print(
            f"epoch {epoch.epoch}/{chosen.epochs}: loss {epoch.loss:.4f}, training {100 * epoch.accuracy:.2f} %, "
            f"test {100 * entry['test_accuracy']:.2f} %, {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )

    state = out.with_suffix(".state.safetensors")
    curve = train_classifier(
        network,
        training,
        chosen,
        seed=seed,
        augment=augmentation_for(dataset),
        state=state,
        report=report,
        pace=pace(budget),
    )
    reached = accuracy()
    metadata = {
        "model": model,
        "num_classes": training.num_classes,
        "dataset": dataset,
        "dataset_fingerprint": training.fingerprint,
        "recipe": vars(chosen),
        "seed": seed,
        "training_accuracy": curve[-1].accuracy,
        "test_accuracy": reached,
        **provenance(str(where)),
    }
    save_weights(out, network, metadata)
    print(
        f"{model} on {dataset}, recipe {chosen.name}: test accuracy {100 * reached:.2f} %, written to {out}"
    )
