"""`faultsim evaluate-blackbox`: accuracy of models that answer predictions only, without and with a generator."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from ..show.units import format_percent
from .options import (
    BatchSizeOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
)

if TYPE_CHECKING:
    from neuralfuse.blackbox.box import BlackBox
    from neuralfuse.blackbox.evaluation import Restricted


def evaluate_blackbox(
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A model behind HTTP (faultsim serve-model); may be repeated."),
    ] = None,
    onnx: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A model in ONNX; may be repeated.")
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="Your own package.module:function, from images float32 [B, 3, 32, 32] in [-1, 1] (NumPy) to class "
            "numbers [B]; may be repeated.",
        ),
    ] = None,
    generator: Annotated[Path | None, typer.Option(help="A NeuralFuse generator's weight file.")] = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    images: ImagesOption = None,
    batch_size: BatchSizeOption = 256,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for one answer of an endpoint. [default: 60]")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the accuracy of a black box.

    With --generator it is measured without and with the generator in front.

    The generator runs here, at nominal voltage; only its images go out, and only class numbers come back. Several
    boxes, for instance one for each chip, give a mean. The command does not know their chips and voltages.
    """
    from neuralfuse.blackbox.box import PythonCallable
    from neuralfuse.blackbox.client import HttpEndpoint
    from neuralfuse.blackbox.evaluation import evaluate_restricted
    from neuralfuse.blackbox.onnxfile import OnnxFile
    from neuralfuse.files import read_generator

    from ..checkpoint import read_file
    from ..data import iterate_batches
    from ..data.sources import load_test_images
    from ..io.provenance import record_provenance
    from ..io.run_directory import without_nan
    from ..kernel.devices import choose_device
    from ..models import import_function
    from ..show.accuracy_table import make_accuracy_table
    from .tables import print_table

    if not (endpoint or onnx or function):
        raise FaultsimError("which black box? give --endpoint URL, --onnx FILE or --function MODULE:NAME")
    if timeout is not None and not endpoint:
        raise FaultsimError("--timeout is the time for answers of an --endpoint: give one, or leave it out")
    where = choose_device(device)
    if dataset is None and generator is not None:
        dataset = read_file(generator)[1].get("dataset")
    test = load_test_images(dataset, data_dir, images).to(where)
    boxes: list[BlackBox] = []
    for spec in function or []:
        boxes.append(PythonCallable(import_function(spec, "--function", "class numbers"), spec))
    boxes += [OnnxFile(path) for path in onnx or []]
    for url in endpoint or []:
        found = HttpEndpoint(url, 60.0 if timeout is None else timeout)
        if found.description.classes < test.num_classes:
            raise FaultsimError(
                f"{url} knows {found.description.classes} classes, {test.name} has {test.num_classes}: give the "
                "--dataset that it was made for"
            )
        boxes.append(found)
    configuration = {
        "boxes": [*(function or []), *map(str, onnx or []), *(endpoint or [])],
        "dataset": test.name,
        "images": len(test),
        "images_fingerprint": test.fingerprint,
        "batch_size": batch_size,
        "device": where.type,
        "faults": None,  # the boxes' own: nobody here knows them
        "curve": None,
    }
    fuse = None
    if generator is not None:
        saved = read_generator(generator)
        variant = saved.create_variant(where, tuple(test.images.shape[1:]))
        fuse = variant.transform
        configuration["generator"] = {"name": variant.name, "weights": saved.fingerprint}
    rows = _rows(evaluate_restricted(boxes, iterate_batches(test, batch_size, device=where), fuse))
    if as_json:
        report = {"accuracy": rows, "configuration": configuration, **record_provenance(str(where))}
        print(json.dumps(without_nan(report), indent=2, allow_nan=False))
        return
    title = f"{', '.join(configuration['boxes'])} on {len(test):,} {test.name} images"
    print_table(make_accuracy_table(rows, title))
    print("faults: those of the black box, which tells neither fault kind, placement nor voltage")
    if len(boxes) > 1:
        print(f"±: standard deviation over {len(boxes)} black boxes")


def _rows(found: "Restricted") -> list[dict]:
    """All numbers are fractions; spread and interval only where there are several boxes."""
    rows = []
    for name, evaluation in (("accuracy", found.alone), ("accuracy+N.F.", found.fused)):
        if evaluation is not None:
            spread = {"std": evaluation.std, "interval": evaluation.interval}
            rows.append({"name": name, "mean": evaluation.mean, "boxes": evaluation.accuracies, **spread})
    if found.improvement is not None:
        rows.append({"name": "IP", **asdict(found.improvement)})
    if len(found.alone.correct) == 1:
        rows = [{key: row[key] for key in row.keys() & {"name", "mean", "boxes"}} for row in rows]
    return rows


def bench(
    model: Annotated[str, typer.Option(help="With random weights.")] = "VGG11",
    batch_size: Annotated[int, typer.Option(min=1, help="Random images of one request.")] = 256,
    batches: Annotated[int, typer.Option(min=1, help="Requests of one evaluation.")] = 2,
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds for the measurements; 7 rounds at least.")
    ] = 10.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compare a black box behind HTTP with the same one in the same process."""
    import torch

    from neuralfuse.blackbox.bench import time_http
    from neuralfuse.blackbox.chip import ModelOnChip
    from neuralfuse.blackbox.wire import Description, Limits

    from ..data.dataset import SIDE
    from ..faults import Chip, FaultModel
    from ..io.provenance import record_provenance
    from ..kernel.devices import choose_device
    from ..models import resolve
    from ..stored import StoredWeights
    from ..studies.conditions import Conditions

    where = choose_device(device)
    torch.manual_seed(0)
    network = resolve(model).to(where)
    rate, faults = 0.01, FaultModel()
    box = ModelOnChip(network, StoredWeights.of(network), Chip(0), bit_error_rate=rate, faults=faults)
    shape = (3, SIDE, SIDE)
    data = [
        (torch.rand(batch_size, *shape, device=where) * 2 - 1, torch.zeros(batch_size, dtype=torch.int64))
        for _ in range(batches)
    ]
    limits = Limits(batch=batch_size, body=4 * batch_size * 3 * SIDE * SIDE + (1 << 20))
    measured = time_http(box, Description(model, shape, 10, limits), data, seconds)
    what = {"model": model, "batch_size": batch_size, "batches": batches}
    if as_json:
        report = {"benchmark": "blackbox", **what, **measured, **record_provenance(str(where))}
        print(json.dumps(report, indent=2))
        return
    print(
        f"{model} at {format_percent(rate)} bit errors ({Conditions(faults)}), {batches} batches "
        f"of {batch_size} images: {measured['callable']:.3f} s in process, "
        f"{measured['http']:.3f} s over HTTP\n"
        f"{measured['ratio']:.3f} x the time in process; {100 * measured['overhead']:.2f} % of the model's time are "
        "spent around it"
    )
