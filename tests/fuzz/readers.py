"""Every reader of files, with valid files for it, and what it makes of them."""

import asyncio
import contextlib
import csv
import hashlib
import importlib.util
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from energy import count, read_topology
from faultsim import bundled, evaluation_chips
from faultsim.activation_ranges import ActivationRanges, SiteRange
from faultsim.chip_map import map_chip
from faultsim.cli import main
from faultsim.conditions import COLUMNS
from faultsim.data import Dataset
from faultsim.data.cifar import load_cifar
from faultsim.data.folder import load_folder
from faultsim.data.gtsrb import load_gtsrb
from faultsim.data.unpickle import unpickle
from faultsim.domains import load_domains, split_word
from faultsim.errors import FaultsimError
from faultsim.fault_map import FaultMap
from faultsim.faults import Chip
from faultsim.io import run_directory
from faultsim.io.bounds import parse_json
from faultsim.metrics import ACCURACY
from faultsim.show.report.collect import OWN, collect
from faultsim.show.report.page import render_page
from faultsim.subject import count_classes, find_model, load_model
from faultsim.sweep_directory import read_known
from faultsim.sweep_result import OPTIONAL, ROW, Variant
from faultsim.training.loop import Loop
from faultsim.voltage import VoltageCurve
from faultsim.voltage_sweep import plan_points
from neuralfuse import bundled as shipped
from neuralfuse.blackbox import wire
from neuralfuse.blackbox.app import create_application
from neuralfuse.blackbox.box import PythonCallable
from neuralfuse.files import read_generator
from neuralfuse.paper import result as results
from neuralfuse.paper.report import READER

from . import mutations

JSON = (mutations.inside_json,)


@dataclass(frozen=True)
class Reader:
    """One way into the program.

    read     (file, folder to work in) -> what was understood, to be compared
    summed   whether the format has sums or says things twice: what is accepted of it must then be what it was
    inside   mutations that keep such sums right
    """

    name: str
    samples: dict[str, bytes]  #: by the name that the file must have
    read: Callable[[Path, Path], object]
    summed: bool = False
    inside: tuple[mutations.Mutation, ...] = ()
    same: Callable[[object, object], bool] = field(default=lambda found, whole: found == whole)


def digest(*values: object) -> str:
    """Of arrays and tensors."""
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def readers(folder: Path) -> list[Reader]:
    """All of them; what they need is made in the folder."""
    makers = (
        _maps,
        _curves,
        _activation_ranges,
        _domains,
        _topologies,
        _pickles,
        _archives,
        _traffic_signs,
        _pictures,
        _weights,
        _states,
        _runs,
        _reports,
        _bodies,
    )
    return [reader for make in makers for reader in make(folder)]


def _written(folder: Path, name: str, write: Callable[[Path], object]) -> dict[str, bytes]:
    path = folder / name
    write(path)
    return {name: path.read_bytes()}


# -- chips, curves, topologies ---------------------------------------------------------------------------------------


def _maps(folder: Path) -> list[Reader]:
    found = map_chip(Chip(7), [0.83, 0.8], arrays=2)
    found = replace(found, lowest_voltage=0.79)

    def read(path: Path, _: Path) -> object:
        loaded = FaultMap.load(path)
        loaded.at(0.83).masks()
        return digest(
            loaded.array, loaded.row, loaded.column, loaded.stuck_at, loaded.voltage
        ), loaded.lowest_voltage

    inside = (mutations.inside_zip, mutations.inside_zip, mutations.flip_in_other_ways)
    return [
        Reader("fault map .npz", _written(folder, "a.npz", found.save), read, summed=True, inside=inside),
        Reader("fault map .csv", _written(folder, "a.csv", found.in_array(0).save), read),
    ]


def _curves(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        curve = VoltageCurve.from_csv(path)
        found = []
        for voltage in (curve.v_high, curve.v_low, (curve.v_high + curve.v_low) / 2):
            found += [curve.bit_error_rate(voltage), curve.energy_per_access(voltage)]
        if not np.isfinite(found).all():
            raise AssertionError(f"a curve with {found}")
        with contextlib.suppress(FaultsimError):
            curve.voltage(0.01)
        return found

    return [Reader("voltage curve", _written(folder, "curve.csv", VoltageCurve.default().to_csv), read)]


def _activation_ranges(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        return ActivationRanges.load(path)

    ranges = ActivationRanges(
        "input", {"conv1": SiteRange(-1.5, 2.0, 3072), "blocks.0.attention:2": SiteRange(0.0, 6.25e-3, 64)}
    )
    return [Reader("activation ranges", _written(folder, "ranges.json", ranges.save), read, inside=JSON)]


def _domains(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        found = load_domains(path)
        split_word(found, ("encoder.weight",))
        return [(domain.describe(), domain.mask, str(domain)) for domain in found]

    toml = b'[[domain]]\nname = "head"\nlayers = ["2.*"]\nvoltage = 0.9\n[[domain]]\nbits = [7, -2]\n'
    table = b'{"domain": [{"layers": ["a", "b"], "bit_error_rate": 0.01}, {"top_bits": 2, "energy_per_access": 1.3}]}'
    samples = {"domains.toml": toml, "domains.json": table}
    return [Reader("voltage domains", samples, read, inside=JSON)]


def _topologies(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        return count(read_topology(path)).total

    conv = b"Layer, H, W, R, S, C, F, Stride,\na, 34, 34, 3, 3, 3, 64, 1,\nb_DP, 10, 10, 3, 3, 8, 1, 2, 1:1,# dw\n"
    gemm = b"Layer, M, N, K,\nqkv, 128, 1536, 512,\nout, 128, 512, 512, 1:1,\n"
    return [Reader("topology", {"conv.csv": conv, "gemm.csv": gemm}, read)]


# -- images ----------------------------------------------------------------------------------------------------------


def _made_cifar():
    spec = importlib.util.spec_from_file_location(
        "made_data", Path(__file__).parents[1] / "data" / "conftest.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    random = np.random.default_rng(7)
    sizes = {"train": 5 * module.PER_BATCH, "test": module.PER_BATCH}
    return module.Cifar(
        "cifar10",
        True,
        {split: random.integers(0, 256, (n, 3072), np.uint8) for split, n in sizes.items()},
        {split: random.integers(0, 10, n) for split, n in sizes.items()},
    )


def _images(data: Dataset) -> str:
    return digest(data.images, data.labels)


def _pickles(folder: Path) -> list[Reader]:
    files = _made_cifar().files()

    def read(path: Path, work: Path) -> object:
        for name, content in files.items():
            (work / name).write_bytes(path.read_bytes() if name == path.name else content)
        return _images(load_cifar("cifar10", "test", work))

    def plain(path: Path, _: Path) -> object:
        return len(unpickle(path.read_bytes(), str(path)))

    return [
        Reader("CIFAR pickles", {name: files[name] for name in ("test_batch", "batches.meta")}, read),
        Reader("pickle", {"meta": files["batches.meta"]}, plain),
    ]


def _archives(folder: Path) -> list[Reader]:
    made = _made_cifar()
    name = made.archive
    archive = made.write_archive(folder)

    def read(path: Path, _: Path) -> object:
        return _images(load_cifar("cifar10", "test", path))

    inside = (mutations.inside_tar,)
    return [Reader("CIFAR archive", {name: archive.read_bytes()}, read, summed=True, inside=inside)]


def _traffic_signs(folder: Path) -> list[Reader]:
    random = np.random.default_rng(3)
    pictures = {f"{n:05d}.ppm": b"P6\n20 20\n255\n" + random.bytes(1200) for n in range(3)}
    labels = b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    labels += b"".join(b"%05d.ppm;20;20;1;1;9;9;%d\n" % (n, n) for n in range(3))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pictures.items():
            archive.writestr(f"GTSRB/Final_Test/Images/{name}", content)
    files = {"GT-final_test.csv": labels, "GTSRB_Final_Test_Images.zip": packed.getvalue()}

    def read(path: Path, work: Path) -> object:
        for name, content in files.items():
            (work / name).write_bytes(path.read_bytes() if name == path.name else content)
        return _images(load_gtsrb("test", work))

    def picture(path: Path, work: Path) -> object:
        images = work / "GTSRB" / "Final_Test" / "Images"
        images.mkdir(parents=True)
        (work / "GT-final_test.csv").write_bytes(labels)
        for name, content in pictures.items():
            (images / name).write_bytes(path.read_bytes() if name == path.name else content)
        return _images(load_gtsrb("test", work))

    return [
        Reader("GTSRB table", {"GT-final_test.csv": labels}, read),
        Reader(
            "GTSRB archive", {"GTSRB_Final_Test_Images.zip": packed.getvalue()}, read, summed=True,
            inside=(mutations.inside_zip,),
        ),
        Reader("GTSRB picture", {"00000.ppm": pictures["00000.ppm"]}, picture),
    ]  # fmt: skip


def _pictures(folder: Path) -> list[Reader]:
    from PIL import Image

    pixels = np.random.default_rng(5).integers(0, 256, (20, 24, 3), np.uint8)
    samples = {}
    for ending in ("png", "jpg", "bmp"):
        Image.fromarray(pixels).save(folder / f"picture.{ending}")
        samples[f"picture.{ending}"] = (folder / f"picture.{ending}").read_bytes()

    def read(path: Path, work: Path) -> object:
        (work / "class").mkdir()
        shutil.copy(path, work / "class")
        return _images(load_folder(work))

    return [Reader("class folder", samples, read)]


# -- weights and states ----------------------------------------------------------------------------------------------


def _weights(folder: Path) -> list[Reader]:
    cpu, images = torch.device("cpu"), torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)

    def read(path: Path, _: Path) -> object:
        name, file, trained = find_model(None, path)
        network, _, _ = load_model(name, file, trained.get("num_classes", 10), cpu)
        count_classes(name, network, images)
        return _finite(network(images))

    def generator(path: Path, _: Path) -> object:
        _, network, _, _ = read_generator(path)
        return _finite(network.eval()(images))

    inside = (mutations.inside_safetensors,)
    return [
        Reader("weights", {"w.safetensors": bundled.WEIGHTS.read_bytes()}, read, inside=inside * 3),
        Reader("generator", {"g.safetensors": shipped.WEIGHTS.read_bytes()}, generator, inside=inside * 3),
    ]


def _finite(values: torch.Tensor) -> bool:
    if not bool(torch.isfinite(values).all()):
        raise AssertionError("what was loaded computes numbers that aren't finite")
    return True


def _loop(optimizer: str, state: Path) -> Loop:
    """A training of three steps an epoch."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    images = torch.arange(12 * 3072).remainder(256).to(torch.uint8).view(12, 3, 32, 32)
    data = Dataset(
        images=images, labels=torch.arange(12) % 2, class_names=("a", "b"), name="made", split="train"
    )
    chosen = (
        torch.optim.Adam(model.parameters(), lr=0.01)
        if optimizer == "Adam"
        else torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    )

    def step(images: torch.Tensor, labels: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(model(images[:, 0, :4, 0]), labels)
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        return loss.detach().reshape(1)

    return Loop(
        modules={"model": model}, optimizer=chosen, step=step, values=1, data=data, batch_size=4, seed=0,
        augment=None, identity={"seed": 0}, state=state, captured=False,
    )  # fmt: skip


def _states(folder: Path) -> list[Reader]:
    samples = {}
    for optimizer in ("Adam", "SGD"):
        path = folder / f"{optimizer}.safetensors"
        _loop(optimizer, path).run(1, lambda epoch, means: {"epoch": epoch, "loss": means[0]})
        samples[path.name] = path.read_bytes()

    def read(path: Path, work: Path) -> object:
        state = work / "state.safetensors"
        shutil.copy(path, state)
        loop = _loop(path.stem, state)
        loop.resume()
        loop.run(2, lambda epoch, means: {"epoch": epoch, "loss": means[0]})
        return len(loop.curve)

    return [Reader("training state", samples, read, inside=(mutations.inside_safetensors,) * 3)]


# -- runs and reports ------------------------------------------------------------------------------------------------


def _run(folder: Path) -> Path:
    """The directory of a small sweep."""
    made = folder / "sweep"
    if not made.exists():
        words = (
            "--images",
            "5",
            "--chips",
            "3",
            "--voltages",
            "0.8,0.83,0.9",
            "--device",
            "cpu",
            "--out",
            str(made),
        )
        told = io.StringIO()
        with (
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
            contextlib.suppress(SystemExit),
        ):
            main(["sweep-voltage", *words])
    return made


def _copied(source: Path, work: Path, changed: Path) -> Path:
    shutil.copytree(source, work / "run", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(changed, work / "run" / changed.name)
    return work / "run"


def _runs(folder: Path) -> list[Reader]:
    source = _run(folder)
    configuration = json.loads((source / "sweep.json").read_text())["configuration"]
    plan = plan_points(VoltageCurve.default(), [0.8, 0.83, 0.9], None)
    labels = [str(chip.seed) for chip in evaluation_chips(0, 3)]

    first = next(csv.DictReader((source / "results.csv").read_text().splitlines()))
    shared = {name: first[name] for name in COLUMNS}

    def read(path: Path, work: Path) -> object:
        folder = _copied(source, work, path)
        with run_directory.RunDirectory(folder, "sweep", configuration, ROW, OPTIONAL, shared) as run:
            read_known(run, plan, (Variant(), Variant("with ConvXS")), labels, ACCURACY)
            return list(run.rows)

    samples = {name: (source / name).read_bytes() for name in ("sweep.json", "results.csv")}
    # a run that goes on may find fewer rows than there were, and computes the others again
    return [
        Reader(
            "run directory",
            samples,
            read,
            summed=True,
            inside=JSON,
            same=lambda found, whole: found == whole[: len(found)],
        )
    ]


def _reports(folder: Path) -> list[Reader]:
    source = _run(folder)
    result = next(results.KEPT.glob("result-*.json"))
    reproduced = folder / "reproduced"
    reproduced.mkdir(exist_ok=True)
    shutil.copy(result, reproduced / result.name)
    (reproduced / "reproduce.json").write_text(
        json.dumps({"configuration": {"seed": 0}, "date": "2026-01-01"})
    )
    (reproduced / "figure2.csv").write_text("voltage,rate\n0.8,0.1\n0.9,0.01\n")
    log = [
        {"epoch": n, "loss": 1 / n, "clean": 0.5, "perturbed": 0.25, "seconds": 1.5 * n} for n in range(1, 6)
    ]
    (reproduced / "g.log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))

    def read(path: Path, work: Path) -> object:
        of = source if (source / path.name).exists() else reproduced
        sections = collect([_copied(of, work, path)], (READER, *OWN))
        if hashlib.sha256(path.read_bytes()).digest()[0] < 8:  # drawing takes a second
            render_page(sections)
        return len(sections)

    def unfinished(path: Path, work: Path) -> object:
        run = _copied(source, work, path)
        (run / "summary.csv").unlink()
        return len(collect([run], (READER, *OWN)))

    def one(path: Path, _: Path) -> object:
        return results.read(path).cell

    files = ("sweep.json", "summary.csv")
    samples = {name: (source / name).read_bytes() for name in files}
    samples |= {path.name: path.read_bytes() for path in sorted(reproduced.iterdir())}
    rows = {name: (source / name).read_bytes() for name in ("sweep.json", "results.csv")}
    return [
        Reader("report", samples, read, inside=JSON),
        Reader("report of an unfinished sweep", rows, unfinished, inside=JSON),
        Reader("result", {result.name: result.read_bytes()}, one, inside=JSON),
    ]


# -- HTTP ------------------------------------------------------------------------------------------------------------


class _Here:
    """An executor that computes at once."""

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future


def _bodies(folder: Path) -> list[Reader]:
    limits = wire.Limits(batch=4, body=16 << 20)
    description = wire.Description("made", (3, 4, 4), 2, limits)
    app = create_application(
        PythonCallable(lambda images: np.zeros(len(images), np.int64)), description, _Here()
    )

    async def post(body: bytes, media: str) -> tuple[int, bytes]:
        scope = {
            "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
            "headers": [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode())],
            "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip
        told = []

        async def receive() -> dict:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict) -> None:
            told.append(message)

        await app(scope, receive, send)
        return told[0]["status"], b"".join(message.get("body", b"") for message in told)

    def read(path: Path, _: Path) -> object:
        media = wire.NPY if path.suffix == ".npy" else wire.JSON
        # In a thread of its own: a browser's test in this process may have left an event loop running.
        with ThreadPoolExecutor(1) as thread:
            status, body = thread.submit(asyncio.run, post(path.read_bytes(), media)).result()
        if status >= 500:
            raise AssertionError(f"status {status}: the client's fault is told as the model's")
        if status != 200:
            raise FaultsimError(json.loads(body)["error"])
        return status

    def told(path: Path, _: Path) -> object:
        try:
            return wire.Description.from_json(parse_json(path.read_bytes()))
        except FaultsimError:
            raise
        except ValueError as error:  # as the client says it
            raise FaultsimError(error) from None

    images = np.linspace(-1, 1, 2 * 48, dtype=np.float32).reshape(2, 3, 4, 4)
    bodies = {
        "images.npy": wire.to_npy(images),
        "images.json": json.dumps({"images": images.tolist()}).encode(),
    }
    described = {"description.json": json.dumps(description.as_json()).encode()}
    return [
        Reader("HTTP body", bodies, read, inside=JSON),
        Reader("description", described, told, inside=JSON),
    ]
