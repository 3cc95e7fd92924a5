"""Options of the commands that measure a model: what is measured on what, and where the results go."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ..errors import FaultsimError
from . import options
from .cluster_options import ClusterOptions
from .option_groups import DataOptions, FormatOptions, ModelOptions

if TYPE_CHECKING:
    from ..metrics.metric import Metric
    from ..show.tables import Table
    from ..studies.subject import Subject


@dataclass(frozen=True)
class SubjectOptions:
    """A model with its weights, the test data, and what is measured."""

    network: ModelOptions
    data: DataOptions
    metric: options.MetricOption = None
    select: options.SelectOption = None
    device: options.DeviceOption = "auto"
    images: options.ImagesOption = None
    batch_size: options.BatchSizeOption = 256
    compute: options.ComputeOption = "float32"

    def measured(self, accuracy_floor: float | None = None) -> "Metric":
        """Return what is measured; FaultsimError where it is no accuracy, but a floor of accuracy is given."""
        found = self.data.find_metric(self.metric, self.network.model)
        if accuracy_floor is not None and not found.counts:
            raise FaultsimError(f"--accuracy-floor cannot be combined with the metric {found.name}")
        return found

    def choose_generator(self, given: Path | None) -> Path | None:
        """Return the file of the generator: the given one, or for a bundled model its bundled one."""
        from neuralfuse.bundled import GENERATORS

        from ..bundled import MODEL

        bundled = GENERATORS.get(self.network.model or MODEL)
        return bundled.weights if given is None and self.network.weights is None and bundled else given

    def load(self, stored: FormatOptions | None = None, cluster: ClusterOptions | None = None) -> "Subject":
        """Load them, and check that they fit each other."""
        from ..kernel.devices import choose_device
        from ..studies.subject import load_subject

        return load_subject(
            self.network.model,
            self.network.weights,
            self.data.dataset,
            self.data.data_dir,
            choose_device(self.device if cluster is None else cluster.find_device(self.device)),
            self.images,
            self.batch_size,
            self.network.per_channel,
            select=self.select,
            format=None if stored is None else stored.chosen(),
            own=self.data.own(self.network.model),
            metric=self.measured(),
            compute=self.compute,
        )


class Study(Protocol):
    """Results that are drawn and printed."""

    def plot(self, path: Path) -> object:
        """Draw them into a file."""

    def as_dict(self) -> dict[str, object]:
        """Return them for JSON."""


@dataclass(frozen=True)
class OutputOptions:
    """Where results go, besides the terminal."""

    out: Annotated[
        Path | None,
        typer.Option(help="Directory for tables (.csv), a description (.json) and a picture (.png)."),
    ] = None
    picture: Annotated[
        Path | None, typer.Option(help="Also write the picture to this file (.png, .pdf or .svg).")
    ] = None
    as_json: options.JsonOption = False

    def check(self, files: Iterable[str], read: Mapping[str, Path | Sequence[Path] | None]) -> None:
        """Raise FaultsimError where an output cannot be written, or is one of the files that are read."""
        from ..io.files import check_writable, keep_apart
        from ..show.pictures import check_picture

        if self.picture is not None:
            check_picture(self.picture, "--picture")
            keep_apart({"--picture": self.picture}, read)
            check_writable(self.picture)
        if self.out is not None:
            keep_apart({f"--out {self.out}: its {name}": self.out / name for name in files}, read)

    def show(
        self,
        study: Study,
        tables: Iterable["Table"],
        notes: Iterable[str],
        files: Iterable[str],
        **facts: object,
    ) -> None:
        """Draw the picture, and print the study as JSON with further facts, or as tables with notes and where `files`
        are."""
        from .tables import print_json, print_table

        if self.picture is not None:
            study.plot(self.picture)
        if self.as_json:
            print_json(study.as_dict() | facts)
            return
        for table in tables:
            print_table(table)
        print("\n".join(notes))
        if self.picture is not None:
            print(f"written to {self.picture}")
        if self.out is not None:
            print(f"written to {self.out}: {', '.join(files)}")
        elif sys.stdout.isatty():
            print("add --out DIR to keep the results and a picture")
