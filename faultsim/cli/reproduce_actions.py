"""The steps of `faultsim reproduce`, each of which makes one file of a run directory."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaultsimError

if TYPE_CHECKING:
    import torch

    from neuralfuse.paper.plan import Step
    from neuralfuse.paper.result import Result

    from ..subject import Subject
    from .reproduce_steps import Settings

BATCH_SIZE = 256  # of evaluation


def train_base(
    step: "Step", settings: "Settings", data_dir: Path | None, device: str, budget: float | None
) -> None:
    from . import train

    train.train_base(
        model=step.cell.base,
        out=step.file,
        dataset=step.cell.dataset,
        data_dir=data_dir,
        recipe=step.recipe,
        epochs=settings.base_epochs,
        seed=settings.seed,
        budget=None if budget is None else f"{max(budget, 1e-3):f}s",
        device=device,
    )


def train_generator(
    step: "Step",
    settings: "Settings",
    data_dir: Path | None,
    device: str,
    where: "torch.device",
    budget: float | None,
) -> None:
    from . import generator as command

    subject = _base(step, data_dir, where)
    wanted = step.cell.generator
    if wanted.flips is None:
        how = {
            "bit_error_rate": wanted.bit_error_rate,
            "preset": step.cell.faults,
            "n_models": wanted.n_models or settings.n_models,
        }
    else:
        how = {"trainer": "adversarial", "flips": wanted.flips}
    if wanted.trainer is not None:
        how |= {"trainer": wanted.trainer, "reuse": step.file.parent}
    command.train_generator(
        generator=wanted.name,
        out=step.file,
        base=[_base_file(step)],
        dataset=subject.dataset.name,
        data_dir=data_dir,
        **how,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        precision=settings.precision,
        **settings.optimization,
        seed=settings.seed,
        budget=None if budget is None else f"{max(budget, 1e-3):f}s",
        device=device,
    )


def _base_file(step: "Step") -> Path:
    from neuralfuse.paper.plan import Kind

    return step.sibling(Kind.BASE)


def _source(step: "Step", data_dir: Path | None, where: "torch.device") -> "Subject":
    """The base model that the generator of a step was trained for."""
    return _base(replace(step, cell=step.cell.trained()), data_dir, where)


def _base(step: "Step", data_dir: Path | None, where: "torch.device") -> "Subject":
    """The base model of a step, which may have been trained elsewhere and put there."""
    from ..io.checkpoint import read_file
    from ..subject import load_subject

    file = _base_file(step)
    trained = read_file(file)[1]
    recipe = trained.get("recipe")
    name = recipe.get("name") if isinstance(recipe, dict) else None
    found = (trained.get("model"), trained.get("dataset"), str(name).split(",")[0])
    wanted = (step.cell.base, step.cell.dataset, step.recipe)
    if found != wanted:
        raise FaultsimError(
            f"{file} holds {found[0]} on {found[1]}, recipe {found[2]}, where {wanted[0]} on {wanted[1]}, recipe "
            f"{wanted[2]}, should be: move it away"
        )
    return load_subject(None, file, None, data_dir, where, batch_size=BATCH_SIZE)


def keep_outputs(step: "Step", data_dir: Path | None, where: "torch.device") -> None:
    """Writes the last layer's outputs for the first test images, on the first chip; see
    neuralfuse.paper.figures."""
    import numpy as np
    import torch

    from neuralfuse.paper.figures import OUTPUT_IMAGES, OUTPUTS

    from ..faults import FaultModel, evaluation_chips
    from ..io.files import write_atomically
    from ..perturbation import perturbed

    subject = _base(step, data_dir, where)
    fuse = _generator(step, subject, data_dir, where)[0]
    images, labels = (torch.cat(parts)[:OUTPUT_IMAGES] for parts in zip(*subject.data, strict=True))
    rates = (0.0, step.cell.bit_error_rate)
    faults, (chip,) = FaultModel.preset(step.cell.faults), evaluation_chips(0, 1)
    logits = []
    with torch.inference_mode():
        for transform in (None, fuse):
            for rate in rates:
                inputs = (
                    images if transform is None else torch.cat([fuse(x) for x in images.split(BATCH_SIZE)])
                )
                with perturbed(
                    subject.model, chip, bit_error_rate=rate, faults=faults, stored=subject.stored
                ):
                    outputs = [subject.model(x) for x in inputs.split(BATCH_SIZE)]
                logits.append(torch.cat(outputs).float().cpu().numpy())
    arrays = dict(zip(OUTPUTS, logits, strict=True)) | {"labels": labels.cpu().numpy()}

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(step.file, write)


def evaluate(step: "Step", data_dir: Path | None, where: "torch.device") -> None:
    """Measures the base model, alone (an unprotected step) or behind its generator, and writes the step's file."""
    from neuralfuse.paper.cells import CHIPS
    from neuralfuse.paper.plan import Kind
    from neuralfuse.paper.result import ALONE, FUSED, Result, read

    from ..evaluation import evaluate
    from ..faults import FaultModel, evaluation_chips
    from ..io.files import write_text
    from ..io.provenance import provenance
    from ..io.run_directory import without_nan

    began = time.monotonic()
    faults, chips = FaultModel.preset(step.cell.faults), evaluation_chips(0, CHIPS)
    subject = _base(step, data_dir, where)
    base, base_origin = _known(
        subject.trained, ("recipe", "seed", "dataset_fingerprint"), subject.network["weights"]
    )
    alone = Result(
        replace(step.cell, generator=None),
        len(subject.dataset),
        {},
        {
            "base": base,
            "faults": faults.describe(),
            "chips": [chip.seed for chip in chips],
            "images_fingerprint": subject.dataset.fingerprint,
            "batch_size": BATCH_SIZE,
            "device": where.type,
        },
        {"base": base_origin},
    )

    def counts(parts: tuple[str, str], transform: "torch.nn.Module | None") -> dict[str, list[int]]:
        rates = zip(parts, ((0.0, chips[:1]), (step.cell.bit_error_rate, chips)), strict=True)
        return {
            part: list(
                evaluate(
                    subject.model,
                    subject.data,
                    on,
                    bit_error_rate=rate,
                    faults=faults,
                    stored=subject.stored,
                    transform=transform,
                ).correct
            )
            for part, (rate, on) in rates
        }

    if step.kind is Kind.UNPROTECTED:
        result = replace(alone, correct=counts(ALONE, None))
    else:
        unprotected = read(step.sibling(Kind.UNPROTECTED))
        ours = {key: alone.configuration[key] for key in ("base", "faults", "chips", "images_fingerprint")}
        if any(unprotected.configuration.get(key) != value for key, value in ours.items()):
            raise FaultsimError(
                f"{step.sibling(Kind.UNPROTECTED)} was measured with another base model, chips or images: move it away"
            )
        fuse, generator, origin = _generator(step, subject, data_dir, where)
        result = replace(
            alone,
            cell=step.cell,
            correct=unprotected.correct | counts(FUSED, fuse),
            configuration=alone.configuration | {"generator": generator},
            provenance=alone.provenance
            | {"generator": origin, "unprotected": _origin(unprotected.provenance)},
        )
    seconds = round(time.monotonic() - began, 1)
    result = replace(
        result,
        provenance=provenance(str(where))
        | {"seconds": seconds, "memory": subject.stored.share.as_dict()}
        | result.provenance,
    )
    write_text(step.file, replace(result, configuration=without_nan(result.configuration)).text())
    print(_outcome(result), flush=True)


def _generator(
    step: "Step", subject: "Subject", data_dir: Path | None, where: "torch.device"
) -> "tuple[torch.nn.Module, dict, dict]":
    """(F, configuration, provenance) of the generator of a step; FaultsimError for one that was trained for something
    else."""
    from neuralfuse.files import read_generator
    from neuralfuse.paper.plan import Kind

    from ..faults import FaultModel

    file = step.sibling(Kind.GENERATOR)
    wanted = step.cell.generator
    saved = read_generator(file)
    trained, weights = saved.metadata, saved.fingerprint
    variant = saved.create_variant(where, tuple(subject.dataset.images.shape[1:]))
    training, base = trained.get("training", {}), trained.get("base", {})
    source = subject if wanted.source == step.cell.base else _source(step, data_dir, where)
    checks = [
        ("architecture", wanted.name, trained["generator"]),
        ("base model", source.network["weights"], base.get("weights")),
    ]
    if wanted.flips is None:
        faults = FaultModel.preset(step.cell.faults).describe()
        checks += [
            ("bit error rate", wanted.bit_error_rate, training.get("bit_error_rate")),
            ("fault model", faults, training.get("faults")),
        ]
        checks += [("trainer", wanted.trainer or "eopm", training.get("trainer", "eopm"))]
    else:
        checks += [("number of flips", wanted.flips, training.get("flips"))]
    if wanted.n_models is not None:
        checks += [("N", wanted.n_models, training.get("n_models"))]
    for what, ours, theirs in checks:
        if ours != theirs:
            raise FaultsimError(f"{file} was trained with another {what}: move it away")
    told = ["training", "epochs", "dataset_fingerprint"]
    told += [key for key in ("start", "surrogates", "patterns", "classifier") if key in trained]
    return variant.transform, *_known(trained, told, weights)


def _known(trained: dict, keys: tuple[str, ...], weights: str) -> tuple[dict, dict]:
    """(configuration, provenance) that the metadata of a weight file tells."""
    missing = [key for key in (*keys, "date", "device") if key not in trained]
    if missing:
        raise FaultsimError(f"a weight file doesn't say its {missing[0]}: was it trained with faultsim?")
    origin = _origin(trained) | ({"cost": trained["cost"]} if "cost" in trained else {})
    return {key: trained[key] for key in keys} | {"weights": weights}, origin


def _origin(information: dict) -> dict:
    return {key: information.get(key) for key in ("commit", "device", "date", "versions")}


def _outcome(result: "Result") -> str:
    alone = f"C.A. {result.mean('clean'):.2f} %, P.A. {result.mean('perturbed'):.2f} %"
    if result.cell.generator is None:
        return alone
    return (
        f"{alone}, C.A.+N.F. {result.mean('clean_fused'):.2f} %, P.A.+N.F. {result.mean('perturbed_fused'):.2f} %, "
        f"IP {result.improvement:+.2f}"
    )
