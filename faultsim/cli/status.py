"""`faultsim status`: how far a run is."""

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption


def status(
    directory: Annotated[Path, typer.Argument(help="Directory of a run, as --out names it.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Show how far a run is.

    It prints what is done, running and failed, the time left, and the workers. It only reads, while the run goes on or
    afterwards, the directory of a sweep, comparison, vulnerability study or reproduction.
    """
    from ..io.run_status import read_status
    from ..show.status_table import describe_status, make_workers_table
    from .tables import print_json, print_table

    found = read_status(directory)
    if as_json:
        print_json(found.as_dict())
        return
    print("\n".join(describe_status(found)))
    if (table := make_workers_table(found)) is not None:
        print_table(table)
