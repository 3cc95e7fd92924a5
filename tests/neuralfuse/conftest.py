"""What files of tests share: `faultsim reproduce` in this process, and the bundled base model."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from faultsim import bundled, load_weights, models
from faultsim.cli import main
from neuralfuse.training import Base


@pytest.fixture
def run(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """`faultsim reproduce` on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            main(["reproduce", *map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=end.value.code or 0, out=out, err=err)

    return command


@pytest.fixture(scope="module")
def base() -> Base:
    """The bundled model and its stored weights."""
    model = models.create(bundled.MODEL)
    stored, _ = load_weights(model, bundled.WEIGHTS)
    return Base(model.eval(), stored)
