"""Commands in this process."""

import pytest

from faultsim.cli import main


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Return its exit status, stdout and stderr."""
    with pytest.raises(SystemExit) as status:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status.value.code or 0, out, err
