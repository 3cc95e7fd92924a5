"""The steps of a reproduction; each one writes one file of a run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from faultsim import data
from faultsim.checkpoint import read_file
from faultsim.errors import FaultsimError
from faultsim.evaluation import evaluate
from faultsim.faults import FaultModel, evaluation_chips
from faultsim.formats import INT8, IntegerFormat
from faultsim.io.files import write_atomically, write_text
from faultsim.io.provenance import record_provenance
from faultsim.io.run_directory import without_nan
from faultsim.perturbation import perturbed
from faultsim.studies.subject import Subject, load_subject
from faultsim.training.classifier import choose_recipe
from faultsim.training.loop import Pace
from faultsim.training.to_file import train_classifier_to_file

from ..files import read_generator
from ..generators import NeuralFuse
from ..lookup import name_lookup
from ..stages import EOPM_STAGE, Staged
from ..to_file import summarize, train
from ..training import Training
from .cells import CHIPS
from .figures import OUTPUT_IMAGES, OUTPUTS
from .plan import Kind, Step
from .result import ALONE, FUSED, Result, read
from .settings import Settings

BATCH_SIZE = 256
"""Images per batch of evaluations."""


@dataclass(frozen=True)
class Actions:
    """Carries out steps."""

    settings: Settings
    data_dir: Path | None
    """Folder of the datasets; None: they are downloaded."""
    device: torch.device
    report: Callable[[str], None]
    """Called with lines about the progress."""

    def carry_out(self, step: Step, budget: float | None = None) -> None:
        """Write the file of a step.

        Parameters
        ----------
        step
            What to do.
        budget
            Seconds that a training may take. Default: as long as it takes.

        Raises
        ------
        OutOfTime
            If a training does not end within the budget; its state is written.
        FaultsimError
            If files of the run directory do not belong together.
        """
        if step.kind is Kind.BASE:
            self._train_base(step, Pace.within(budget))
        elif step.kind is Kind.GENERATOR:
            self._train_generator(step, Pace.within(budget))
        elif step.kind is Kind.OUTPUTS:
            self._write_outputs(step)
        else:
            self._evaluate(step)

    def _train_base(self, step: Step, pace: Pace) -> None:
        cell = step.cell
        recipe = choose_recipe(step.recipe, cell.dataset, self.settings.base_epochs)
        metadata = train_classifier_to_file(
            step.file,
            cell.base,
            data.load(cell.dataset, "train", self.data_dir),
            data.load(cell.dataset, "test", self.data_dir),
            recipe,
            seed=self.settings.seed,
            augment=data.find_augmentation(cell.dataset),
            device=self.device,
            pace=pace,
            report=self.report,
        )
        self.report(f"test accuracy {100 * metadata['test_accuracy']:.2f} %, written to {step.file}")

    def _train_generator(self, step: Step, pace: Pace) -> None:
        spec = step.cell.spec
        metadata = train(
            step.file,
            spec.name,
            lambda: self._load_sources(step),
            create_training(step, self.settings),
            data_dir=self.data_dir,
            reuse=step.file.parent if spec.in_stages else None,
            pace=pace,
            report=self.report,
        )
        self.report(f"{summarize(metadata)}, written to {step.file}")

    def _load_base(self, step: Step) -> Subject:
        """Load the base model of a step, which may have been trained elsewhere and copied into the run directory."""
        file = step.sibling(Kind.BASE)
        trained = read_file(file)[1]
        recipe = trained.get("recipe")
        name = recipe.get("name") if isinstance(recipe, dict) else None
        found = (trained.get("model"), trained.get("dataset"), str(name).split(",")[0])
        wanted = (step.cell.base, step.cell.dataset, step.recipe)
        if found != wanted:
            raise FaultsimError(
                f"{file} holds {found[0]} on {found[1]}, recipe {found[2]}, where {wanted[0]} on {wanted[1]}, recipe "
                f"{wanted[2]}, is needed: delete or rename it"
            )
        held = INT8 if step.cell.bits is None else IntegerFormat(step.cell.bits)
        return load_subject(
            None,
            file,
            None,
            self.data_dir,
            self.device,
            batch_size=BATCH_SIZE,
            format=held,
            compute=self.settings.compute,
        )

    def _load_sources(self, step: Step) -> list[Subject]:
        """Load the base models that the generator of a step is trained for."""
        trained = step.cell.trained()
        return [
            self._load_base(replace(step, cell=replace(trained, base=name)))
            for name in step.cell.spec.sources
        ]

    def _load_generator(
        self, step: Step, subject: Subject
    ) -> tuple[NeuralFuse, dict[str, Any], dict[str, Any]]:
        """Return the generator of a step, its configuration and provenance; FaultsimError for another training."""
        file = step.sibling(Kind.GENERATOR)
        spec = step.cell.spec
        saved = read_generator(file)
        trained = saved.metadata
        variant = saved.create_variant(self.device, tuple(subject.dataset.images.shape[1:]))
        training, base = trained.get("training", {}), trained.get("base", {})
        sources = [subject]
        if spec.source != step.cell.base or step.cell.bits is not None:
            sources = self._load_sources(step)
        described = [base, *trained.get("surrogates", ())]
        checks: list[tuple[str, object, object]] = [
            ("architecture", name_lookup(spec.name) if spec.trainer == "lookup" else spec.name, saved.name),
            (
                "base model",
                [source.network["weights"] for source in sources],
                [other.get("weights") for other in described],
            ),
        ]
        if spec.flips is None:
            faults = FaultModel.preset(step.cell.faults).describe()
            checks += [
                ("bit error rate", spec.bit_error_rate, training.get("bit_error_rate")),
                ("fault model", faults, training.get("faults")),
                ("trainer", spec.trainer or "eopm", training.get("trainer", "eopm")),
            ]
        else:
            checks += [("number of flips", spec.flips, training.get("flips"))]
        if spec.weight is not None:
            checks += [("lambda", spec.weight, training.get("weight"))]
        if spec.n_models is not None:
            checks += [("N", spec.n_models, training.get("n_models"))]
        for what, ours, theirs in checks:
            if ours != theirs:
                raise FaultsimError(f"{file} was trained with another {what}: delete or rename it")
        optional = ("start", "surrogates", "patterns", "classifier", "accesses")
        keys = ["training", "epochs", "dataset_fingerprint", *(key for key in optional if key in trained)]
        configuration, origin = _describe_file(trained, keys, saved.fingerprint)
        return cast(NeuralFuse, variant.transform), configuration, origin

    def _write_outputs(self, step: Step) -> None:
        """Write the last layer's outputs for the first test images, on the first chip (see figures.read_outputs)."""
        subject = self._load_base(step)
        fuse = self._load_generator(step, subject)[0]
        images, labels = (torch.cat(parts)[:OUTPUT_IMAGES] for parts in zip(*subject.data, strict=True))
        faults, (chip,) = FaultModel.preset(step.cell.faults), evaluation_chips(0, 1)
        logits = []
        with torch.inference_mode():
            for transform in (None, fuse):
                for rate in (0.0, step.cell.bit_error_rate):
                    inputs = images
                    if transform is not None:
                        inputs = torch.cat([transform(part) for part in images.split(BATCH_SIZE)])
                    with perturbed(
                        subject.model, chip, bit_error_rate=rate, faults=faults, stored=subject.stored
                    ):
                        outputs = [subject.model(part) for part in inputs.split(BATCH_SIZE)]
                    logits.append(torch.cat(outputs).float().cpu().numpy())
        arrays: dict[str, Any] = dict(zip(OUTPUTS, logits, strict=True)) | {"labels": labels.cpu().numpy()}

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomically(step.file, write)

    def _evaluate(self, step: Step) -> None:
        """Evaluate the base model, alone (Kind.UNPROTECTED) or behind its generator, and write the result."""
        began = time.monotonic()
        faults, chips = FaultModel.preset(step.cell.faults), evaluation_chips(0, CHIPS)
        subject = self._load_base(step)
        base, base_origin = _describe_file(
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
                "device": self.device.type,
                **({} if subject.compute == "float32" else {"compute": subject.compute}),
            },
            {"base": base_origin},
        )

        def count(parts: tuple[str, str], transform: NeuralFuse | None) -> dict[str, list[int]]:
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
                        compute=subject.compute,
                    ).correct
                )
                for part, (rate, on) in rates
            }

        if step.kind is Kind.UNPROTECTED:
            result = replace(alone, correct=count(ALONE, None))
        else:
            file = step.sibling(Kind.UNPROTECTED)
            unprotected = read(file)
            same = ("base", "faults", "chips", "images_fingerprint", "compute")
            if any(unprotected.configuration.get(key) != alone.configuration.get(key) for key in same):
                raise FaultsimError(
                    f"{file} was measured with another base model, chips, images or --compute: delete or rename it"
                )
            fuse, generator, origin = self._load_generator(step, subject)
            result = replace(
                alone,
                cell=step.cell,
                correct=unprotected.correct | count(FUSED, fuse),
                configuration=alone.configuration | {"generator": generator},
                provenance=alone.provenance
                | {"generator": origin, "unprotected": _describe_origin(unprotected.provenance)},
            )
        seconds = round(time.monotonic() - began, 1)
        result = replace(
            result,
            provenance=record_provenance(str(self.device))
            | {"seconds": seconds, "memory": subject.stored.share.as_dict()}
            | result.provenance,
        )
        write_text(step.file, replace(result, configuration=without_nan(result.configuration)).text())
        self.report(_summarize(result))


def create_training(step: Step, settings: Settings) -> Training | Staged:
    """Create the training of a step's generator: its bit errors from the cell, everything else from the settings."""
    spec = step.cell.spec
    errors: dict[str, Any] = {"flips": spec.flips}
    if spec.flips is None:
        errors = {
            "bit_error_rate": spec.bit_error_rate,
            "faults": FaultModel.preset(step.cell.faults),
            "n_models": spec.n_models or settings.n_models,
        }
    if spec.weight is not None:
        errors["weight"] = spec.weight
    training = Training(
        **{
            **(EOPM_STAGE if spec.in_stages else {}),
            **errors,
            **settings.optimization,
            "batch_size": settings.batch_size,
            "max_epochs": settings.epochs,
            "precision": settings.precision,
            "seed": settings.seed,
        }
    )
    return Staged(training, looked_up=spec.trainer == "lookup") if spec.in_stages else training


def _describe_file(
    trained: Mapping[str, Any], keys: Sequence[str], weights: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the metadata of a weight file say for a result's configuration, and for its provenance."""
    missing = [key for key in (*keys, "date", "device") if key not in trained]
    if missing:
        raise FaultsimError(f"a weight file lacks its {missing[0]}: was it trained with faultsim?")
    origin = _describe_origin(trained) | ({"cost": trained["cost"]} if "cost" in trained else {})
    return {key: trained[key] for key in keys} | {"weights": weights}, origin


def _describe_origin(information: Mapping[str, Any]) -> dict[str, Any]:
    return {key: information.get(key) for key in ("commit", "device", "date", "versions")}


def _summarize(result: Result) -> str:
    alone = f"C.A. {result.mean('clean'):.2f} %, P.A. {result.mean('perturbed'):.2f} %"
    if result.cell.generator is None:
        return alone
    return (
        f"{alone}, C.A.+N.F. {result.mean('clean_fused'):.2f} %, P.A.+N.F. {result.mean('perturbed_fused'):.2f} %, "
        f"IP {result.improvement:+.2f}"
    )
