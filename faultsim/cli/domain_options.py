"""Options that say which cells of the weight memory never fail, or have a voltage of their own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..faults import FaultModel

DomainsOption = Annotated[
    Path | None,
    typer.Option(
        "--domains",
        metavar="FILE",
        help="Voltage domains, .toml or .json: which layers and which bits of a weight never fail or have a voltage "
        "of their own. [default: none]",
        show_default=False,
    ),
]
ProtectBitsOption = Annotated[
    int | None,
    typer.Option(
        "--protect-bits",
        metavar="K",
        help="The K most significant bits of each weight lie in cells that never fail. [default: 0]",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class DomainOptions:
    """Which cells never fail, or have a voltage of their own."""

    domains: DomainsOption = None
    protect_bits: ProtectBitsOption = None

    def add_to(self, faults: "FaultModel") -> "FaultModel":
        """Return the fault model with these domains; those of the file come first."""
        from ..domains import Domain, load_domains

        found = () if self.domains is None else load_domains(self.domains)
        if self.protect_bits is not None:
            found += (Domain.top_bits(self.protect_bits),)
        return replace(faults, domains=found)
