"""Which generators tools/gpu_training.py trains on a GPU, in order of value, and what each may cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from neuralfuse.paper.budget import count_operations
from neuralfuse.paper.cells import change_trainer, select_cells
from neuralfuse.paper.plan import Kind, locate_file, plan_steps
from neuralfuse.paper.result import Cell

TABLES = {0.01: "table1", 0.005: "table9"}
# The large ones first, and never two with the same encoder one after the other: the second takes over the classifier.
GENERATORS = ("UNetL", "ConvL", "UNetS", "DeConvL", "ConvS", "DeConvS")
LOOKED_UP = ("UNetL", "ConvL", "UNetS", "ConvS")  # DeConvL and DeConvS have the encoders of ConvL and ConvS


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    jobs: Callable[[str], list["Job"]]  #: by the recipe of base models that don't come with the sources
    common: tuple[str, ...] = ()  #: options of `reproduce`
    base: tuple[str, ...] = ()  #: of `train-base`
    stages: tuple[str, ...] = ()  #: of `train-generator` in stages; none: `reproduce` trains
    staged: tuple[str, ...] = ()  #: further ones for staged jobs
    eopm: tuple[str, ...] = ()  #: of `train-generator` for plain EOPM
    speed: float = 2e13  #: multiply-accumulate operations a second: a guess that finished jobs correct
    start: float = 15.0  #: seconds that a process takes before and after its work
    margin: float = 12.0  #: seconds between the end of the trainings and that of the budget


@dataclass(frozen=True)
class Job:
    """One file to obtain: a base model, or the accuracy behind one generator."""

    kind: Kind  #: BASE or RESULT
    cell: Cell
    recipe: str  #: of the base model

    def file(self, kind: Kind, folder: Path) -> Path:
        return locate_file(kind, self.cell, self.recipe, folder)

    def target(self, folder: Path) -> Path:
        return self.file(self.kind, folder)

    @property
    def name(self) -> str:
        return self.target(Path()).stem

    @property
    def comparison(self) -> bool:
        """Whether it is plain EOPM."""
        return self.kind is Kind.RESULT and self.cell.spec.trainer is None

    def own(self) -> tuple[str, ...]:
        """How the names of its files begin."""
        kinds = (self.kind,) if self.kind is Kind.BASE else (Kind.UNPROTECTED, Kind.GENERATOR, self.kind)
        return tuple(f"{self.file(kind, Path()).stem}." for kind in kinds)


# -- which jobs there are ---------------------------------------------------------------------------------------


def of_table(
    recipe: str,
    dataset: str,
    base: str,
    faults: str = "neuralfuse_2022",
    rate: float = 0.01,
    generators: Sequence[str] = GENERATORS,
    trainer: str = "staged",
) -> list[Job]:
    """The cells of a base model that the paper's table has, in the order of `generators`."""
    found = select_cells(TABLES[rate], [dataset], [base], faults=[faults])
    by_name = {cell.spec.name: change_trainer(cell, trainer) for cell in found}
    return [Job(Kind.RESULT, by_name[name], recipe) for name in generators if name in by_name]


def with_bases(jobs: Sequence[Job]) -> list[Job]:
    """Each base model before the first job that needs it."""
    found: dict[Job, None] = {}
    for job in jobs:
        found.setdefault(
            Job(Kind.BASE, replace(job.cell, generator=None, faults="", bit_error_rate=0), job.recipe)
        )
        found.setdefault(job)
    return list(found)


def full_jobs(recipe: str) -> list[Job]:
    """In order of value."""

    def of(dataset: str, base: str, *options: object, **more: object) -> list[Job]:
        """Look-ups first: staged training takes over all that they trained."""
        by = "paper" if (dataset, base) == ("cifar10", "VGG11") else recipe
        looked_up = of_table(by, dataset, base, *options, generators=LOOKED_UP, trainer="lookup", **more)
        return looked_up + of_table(by, dataset, base, *options, **more)

    bases, other = ("VGG11", "ResNet18", "VGG16", "VGG19", "ResNet50"), "iid_flips"
    jobs = of("cifar10", "VGG11")
    jobs += of_table("paper", "cifar10", "VGG11", generators=("UNetL", "ConvS"), trainer="eopm")
    for base in bases[1:]:
        jobs += of("cifar10", base)
    for base in bases:
        jobs += of("cifar10", base, other)
    for faults in ("neuralfuse_2022", other):
        for base in bases:
            jobs += of("cifar10", base, faults, 0.005)
    for rate in (0.01, 0.005):
        for base in bases:
            jobs += of("gtsrb", base, rate=rate) if has("gtsrb", base, rate) else []
    # ResNet18 first: the paper's gain is smallest there
    for rate in (0.01, 0.005):
        for base in ("ResNet18", "VGG11", "VGG16", "VGG19", "ResNet50"):
            jobs += of("cifar100", base, rate=rate) if has("cifar100", base, rate) else []
    return with_bases(jobs)


def has(dataset: str, base: str, rate: float) -> bool:
    return any((cell.dataset, cell.base) == (dataset, base) for cell in select_cells(TABLES[rate]))


def small_jobs(recipe: str) -> list[Job]:
    """A base model, and one generator by each trainer."""
    found = select_cells("table1", generators=["UNetS"], faults=["neuralfuse_2022"], smoke=True)[:1]
    return with_bases(
        [
            Job(Kind.RESULT, change_trainer(found[0], trainer), recipe)
            for trainer in ("lookup", "staged", "eopm")
        ]
    )


SCALES = {
    "full": Scale(full_jobs, common=("--precision", "bfloat16"), eopm=("--precision", "bfloat16", "--epochs", "1000")),
    "small": Scale(
        small_jobs,
        common=("--smoke", "--base-epochs", "2"),
        base=("--epochs", "2"),
        stages=("--classifier-epochs", "1", "--pattern-epochs", "1"),
        staged=("--drawing-epochs", "1", "--epochs", "1", "--n-models", "1"),
        eopm=("--n-models", "1", "--epochs", "50"),
        speed=2e10,
        start=5.0,
        margin=1.0,
    ),
}  # fmt: skip


def estimate(job: Job, scale: Scale, share: float) -> float:
    """Seconds, where nothing is taken over from other jobs."""
    if job.comparison:
        return share + 2 * scale.start
    kinds = (Kind.BASE,) if job.kind is Kind.BASE else (Kind.GENERATOR, Kind.UNPROTECTED, Kind.RESULT)
    from faultsim.training.classifier import choose_recipe
    from neuralfuse.stages import EOPM_STAGE

    epochs = choose_recipe(job.recipe, job.cell.dataset).epochs
    planned = plan_steps([job.cell], job.recipe, Path(), (job.kind,))
    work = sum(
        count_operations(
            step, base_epochs=epochs, epochs=EOPM_STAGE["max_epochs"], n_models=EOPM_STAGE["n_models"]
        )
        for step in planned
        if step.kind in kinds
    )
    return work / scale.speed + scale.start
