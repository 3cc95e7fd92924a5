"""Training of a generator to a weight file: with its metadata, its log, and a state to continue from."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faultsim import data as datasets
from faultsim.checkpoint import save_weights
from faultsim.data import Augmentation, Dataset
from faultsim.errors import FaultsimError
from faultsim.io.provenance import record_provenance
from faultsim.studies.subject import Subject
from faultsim.training.epoch_log import ENDING, EpochLog, Progress
from faultsim.training.loop import Pace
from faultsim.training.to_file import check_weight_path

from . import generators
from .distributed import ALONE, Ranks
from .files import read_generator
from .lookup import LOOKUP, PatternLookup
from .stage_files import find_reusable, save_stages
from .staged import measure_baselines, train_staged
from .stages import Staged
from .training import Base, Epoch, Training, train_generator

_KNOWN = ("training", "epochs", "dataset_fingerprint", "start", "commit", "device", "date")


def train(
    path: str | Path,
    name: str,
    bases: Sequence[Subject] | Callable[[], Sequence[Subject]],
    training: Training | Staged,
    *,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    augment: Augmentation | None = None,
    start: str | Path | None = None,
    reuse: str | Path | None = None,
    pace: Pace | None = None,
    in_flight: int | None = None,
    ranks: Ranks = ALONE,
    report: Callable[[str], None] = lambda line: None,
    resumable: bool = True,
) -> dict[str, Any]:
    """Train a generator and write its weight file.

    A training that was stopped continues when it is started again with the same arguments, to the same result.

    Parameters
    ----------
    path
        Weight file to write (.safetensors). The state of the training is next to it in PATH.state.safetensors, the
        log in PATH.log.jsonl; of staged training also PATH.classifier.safetensors and PATH.patterns.safetensors.
    name
        Architecture, one of ``neuralfuse.generators.KNOWN``.
    bases
        The frozen base model, or several as surrogates of a model that cannot be reached (their losses are averaged);
        see ``faultsim.studies.subject.load_subject``. A function is called after the generator's weights are
        initialized.
    training
        EOPM or adversarial training (`Training`), or training in stages (`Staged`), of a generator or of a look-up. Its
        seed is that of the initial weights, too.
    data
        Training images and labels. Default: those of the base model's dataset, with the augmentation of that dataset.
    data_dir
        Directory or archive of the dataset, if `data` is None. Downloaded if omitted.
    augment
        Augmentation of `data` (see ``faultsim.data.find_augmentation``). Default: none.
    start
        Weight file of a generator to start from. Default: random initialization.
    reuse
        Staged training: folder with generators trained in stages. A classifier of the same encoder and patterns for
        the same base model are taken from there.
    pace
        How often the state is written, and the deadline.
    in_flight
        Perturbed models that a GPU computes at once (see `neuralfuse.EOPM`).
    ranks
        This process among those that share the training (see `neuralfuse.distributed`). The first one writes the files.
    report
        Called after every epoch with one line: losses and the time left. `print`, for instance.
    resumable
        Whether to write anything but the weight file.

    Returns
    -------
    dict
        The metadata in the file.

    Raises
    ------
    OutOfTime
        At the deadline; the state is written.
    FaultsimError
        If the state or `start` belongs to something else, or a loss is not finite.

    Examples
    --------
    >>> from faultsim.studies.subject import load_subject
    >>> about = neuralfuse.train(  # doctest: +SKIP
    ...     "convxs.safetensors", "ConvXS", [load_subject("DigitsNet")], neuralfuse.Training(bit_error_rate=0.02)
    ... )
    """
    path = Path(path)
    check_weight_path(path)
    if ranks.count > 1 and isinstance(training, Staged):
        raise FaultsimError(f"--trainer {training.trainer} runs in one process: start it without torchrun")
    last = training.eopm if isinstance(training, Staged) else training
    if isinstance(training, Staged) and training.looked_up and start is not None:
        raise FaultsimError("--start cannot be combined with --trainer lookup: it trains no generator")
    torch.manual_seed(last.seed)
    network, origin = _initialize(name, start)
    subjects = list(bases() if callable(bases) else bases)
    subject = subjects[0]
    if data is None:
        data = datasets.load(subject.dataset.name, "train", data_dir)
        augment = datasets.find_augmentation(data.name)
    if others := [other.network for other in subjects[1:]]:
        origin = {**origin, "surrogates": others}
    device = subject.stored.layers[0].values.device
    about = {"generator": name, "base": subject.network, **origin}
    log = EpochLog(
        path.with_suffix(ENDING) if resumable else None,
        training.names if isinstance(training, Staged) else (),
    )
    progress = Progress(
        training.count_epochs(len(data)) if isinstance(training, Staged) else {"": training.max_epochs}
    )
    frozen = [Base(other.model, other.stored) for other in subjects]
    common: dict[str, Any] = {
        "augment": augment,
        "state": path.with_suffix(".state.safetensors") if resumable else None,
        "context": {**about, "device": device.type},
        "pace": pace,
        "in_flight": in_flight,
    }
    found: dict[str, Any]
    if isinstance(training, Staged):
        described = {
            "generator": name,
            "dataset_fingerprint": data.fingerprint,
            "base": [other.network for other in subjects],
            "training": training.describe(),
        }
        described = json.loads(json.dumps(described))
        reusable: dict[str, Any] = {} if reuse is None else find_reusable(Path(reuse), path, described)
        outcome = train_staged(
            network,
            frozen,
            data,
            training,
            report=lambda stage, entry: report(progress.format(log.add({"stage": stage, **entry}))),
            **reusable,
            **common,
        )
        found = measure_baselines(outcome, frozen[0], subject.dataset, training)
        if resumable:
            names = {"dataset": data.name, "class_names": data.class_names}
            save_stages(path, outcome, described | names | record_provenance(str(device)), found)
        if training.looked_up:
            network = PatternLookup.join(name, outcome.classifier.cpu(), outcome.patterns)
            found |= {
                "generator": LOOKUP,
                LOOKUP: network.describe(),
                "accesses": network.count_accesses(),
                "epochs": training.count_epochs(len(data))["patterns"],
            }
        else:
            found |= _describe_curve([Epoch(**entry) for entry in outcome.curves["eopm"]])
    else:
        curve, cost = train_generator(
            network,
            frozen,
            data,
            training,
            report=lambda epoch: report(
                progress.format(log.add({**asdict(epoch), "world_size": ranks.count}))
            ),
            ranks=ranks,
            **common,
        )
        found = {"cost": cost.describe(), **_describe_curve(curve)}
    metadata = {
        **about,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "training": training.describe(),
        **found,
        "world_size": ranks.count,
        "memory": subject.stored.share.as_dict(),
        **record_provenance(str(device)),
    }
    if ranks.first:
        save_weights(path, network, metadata)
    return metadata


def summarize(metadata: Mapping[str, Any]) -> str:
    """Say in a few words what a training reached, from the metadata that `train` returns."""
    if metadata["generator"] == LOOKUP:
        success, right = metadata["patterns"]["mean"], metadata["classifier"]["accuracy"]
        return f"its patterns succeed in {100 * success:.2f} %, its classifier in {100 * right:.2f} %"
    return f"loss {metadata['losses']['loss']:.4f} after {metadata['epochs']} epochs"


def _describe_curve(curve: Sequence[Epoch]) -> dict[str, Any]:
    return {"epochs": len(curve), "losses": asdict(curve[-1])}


def _initialize(name: str, start: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """Create the generator as training starts with it, and what the metadata say about a file that it starts from."""
    if start is None:
        return generators.create(name), {}
    saved = read_generator(start)
    if isinstance(saved.network, PatternLookup):
        raise FaultsimError(f"--start {start} holds {saved.name}, which is not trained by gradients")
    if saved.name != name:
        raise FaultsimError(
            f"--start {start} holds {saved.name}: begin with a {name}, or train --generator {saved.name}"
        )
    known = {key: saved.metadata[key] for key in _KNOWN if key in saved.metadata}
    return saved.network, {"start": {"weights": saved.fingerprint, **known}}
