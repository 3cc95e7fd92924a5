"""Cost of a training: image passes and seconds."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from faultsim.errors import FaultsimError


@dataclass(frozen=True)
class Cost:
    """Passes of single images; a pass through a part of the generator counts as one."""

    base_forward: int = 0
    """Through base models, clean or perturbed."""
    base_backward: int = 0
    generator_forward: int = 0
    generator_backward: int = 0
    seconds: float = 0.0
    """Of all sessions."""

    @classmethod
    def of(cls, images: int, base: int, generator: int, seconds: float) -> Self:
        """Return the cost of `images` images that each pass forward and backward `base` and `generator` times."""
        return cls(base * images, base * images, generator * images, generator * images, seconds)

    @classmethod
    def read(cls, described: Any) -> Self:
        """Parse what describe() returned, from a file's metadata. Raises FaultsimError for anything else."""
        names = [field.name for field in fields(cls)]
        try:
            values = {name: described[name] for name in names}
            if not all(value >= 0 for value in values.values()):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise FaultsimError(
                f"the cost of a training needs {', '.join(names)}, not {described!r:.100}"
            ) from None
        return cls(**values)

    def __add__(self, other: "Cost") -> "Cost":
        mine, theirs = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})

    def describe(self) -> dict:
        """Return JSON values, for metadata and results."""
        return {**asdict(self), "seconds": round(self.seconds, 1)}
