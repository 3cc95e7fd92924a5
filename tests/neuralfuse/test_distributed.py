"""Several processes share the training of a generator, and it is the one that a single process trains."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faultsim import FaultModel, StoredWeights, prepare_qat
from faultsim.checkpoint import read_file
from neuralfuse.distributed import ALONE, Ranks
from neuralfuse.eopm import EOPM
from neuralfuse.generators import NeuralFuse, UNet

TRAIN = [
    *("train-generator", "--generator", "UNetS", "--bit-error-rate", "0.02"),
    *("--n-models", "2", "--batch-size", "64", "--device", "cpu"),
]
# Runs faultsim on 90 digits; the process of rank $FAILS, if any, fails in the second step of the second epoch.
SCRIPT = """
import os, sys
import torch
import faultsim.data
from faultsim.cli import main
from faultsim.errors import FaultsimError
from neuralfuse.eopm import EOPM

load, backward = faultsim.data.load, EOPM.backward

def some(name, split, data_dir):
    return load(name, split, data_dir).subset(torch.arange(90))

def failing(self, fuse, images, labels, step):
    if step == 3 and os.environ.get("RANK") == os.environ["FAILS"]:
        raise FaultsimError("the cause")
    return backward(self, fuse, images, labels, step)

faultsim.data.load, EOPM.backward = some, failing
main()
"""


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 9))
def test_shares_are_even_and_make_the_whole(models, images, count):
    shares = [list(Ranks(rank, count).pieces(models, images)) for rank in range(count)]
    done = Counter((p.model, image) for share in shares for p in share for image in range(p.start, p.stop))
    assert done == {(model, image): 1 for model in range(models) for image in range(images)}
    sizes = [sum(piece.stop - piece.start for piece in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for share in shares:  # weights are read for each piece: no model is read twice
        assert len({piece.model for piece in share}) == len(share)


def step_of(ranks: Ranks, n_models: int, images: int) -> tuple[list, list]:
    """Losses and gradients in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))
    x, y = torch.rand(images, 3, 8, 8) * 2 - 1, torch.randint(0, 10, [images])
    fuse = NeuralFuse(prepare_qat(UNet(2))).double().train()
    options = {"bit_error_rate": 0.02, "faults": FaultModel.preset("neuralfuse_2022"), "n_models": n_models}
    with EOPM(model.double(), StoredWeights.of(model), ranks=ranks, **options) as eopm:
        for step in (0, 1):  # gradients of two steps add up
            losses = eopm.backward(fuse, x.double(), y, step)
    assert fuse.generator.down[0][1].num_batches_tracked == 2
    return [loss.tolist() for loss in losses], [p.grad.flatten().tolist() for p in fuse.parameters()]


CASES = ((3, 5), (3, 2), (1, 2))
"""N and images. Of three processes none has whole models in the first case, and each one image or two in the last."""
AT_ONCE = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from test_distributed import CASES, step_of
from neuralfuse.distributed import joined
with joined(torch.device("cpu")) as (ranks, device):
    found = [step_of(ranks, *case) for case in CASES]
    try:
        ranks.agree(bytes(ranks.rank == 1), device, "something")
    except ValueError as error:
        found.append(str(error))
print(json.dumps([ranks.rank, ranks.count, found]))
"""


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_do_not_depend_on_the_number_of_processes(count):
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    place = {"WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    place["TORCHELASTIC_RUN_ID"] = "by hand"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, Path(__file__).parent],
            env={**os.environ, **{k: str(v) for k, v in {**place, "RANK": rank, "LOCAL_RANK": rank}.items()}},
            stdout=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert [answer[:2] for answer in answers] == [[rank, count] for rank in range(count)]
    *shared, complaint = answers[0][2]
    assert all(answer[2] == answers[0][2] for answer in answers)  # the same bits on all
    assert complaint == f"the {count} processes of this run differ in something"
    for case, (losses, gradients) in zip(CASES, shared, strict=True):
        alone_losses, alone = step_of(ALONE, *case)
        assert losses == pytest.approx(alone_losses, rel=1e-12)
        for ours, theirs in zip(gradients, alone, strict=True):
            torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-10, atol=1e-14)


def faultsim(program: list[object], arguments: list, processes: int = 0, fails: str = "none"):
    """A finished process of `program` (what torchrun or Python gets before the arguments)."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [str(word) for word in (sys.executable, *(launch if processes else []), *program, *arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "FAILS": fails},
        capture_output=True,
        text=True,
        timeout=300,
    )


def reported(done: subprocess.CompletedProcess) -> list[str]:
    """Lines of faultsim on stderr; torchrun has its own."""
    return [line for line in done.stderr.splitlines() if line.startswith(("faultsim: ", "epoch "))]


def test_a_run_of_two_processes_is_a_run(tmp_path):
    """It writes what one process writes, once; it goes on with another number; and an error of one ends all."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    train = [*TRAIN, "--out", tmp_path / "shared.safetensors", "--epochs", 2]
    first = faultsim([script], train, processes=2, fails="1")
    assert first.returncode != 0
    assert [line[:5] for line in reported(first)] == ["epoch", "fault"]
    assert reported(first)[1] == "faultsim: error: the cause"
    whole = faultsim([script], train, processes=2)
    assert whole.returncode == 0
    assert [line.split(":")[0] for line in reported(whole)] == ["epoch 2/2"]
    assert whole.stdout.count("written to") == 1
    assert sorted(path.name for path in tmp_path.glob("*[!y]")) == [
        f"shared.{end}" for end in ("log.jsonl", "safetensors", "state.safetensors")
    ]
    log = [json.loads(line) for line in (tmp_path / "shared.log.jsonl").read_text().splitlines()]
    assert [(entry["epoch"], entry["world_size"]) for entry in log] == [(1, 2), (2, 2)]

    faultsim([script], [*TRAIN, "--out", tmp_path / "alone.safetensors", "--epochs", 2])
    states = [read_file(tmp_path / f"{name}.state.safetensors") for name in ("shared", "alone")]
    (shared, facts), (alone, own) = states
    assert facts["facts"]["run"] == own["facts"]["run"]  # so either can go on with the other's number
    for ours, theirs in zip(facts["facts"]["curve"], own["facts"]["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert shared.keys() == alone.keys()
    assert read_file(tmp_path / "shared.safetensors")[1]["world_size"] == 2
    assert read_file(tmp_path / "alone.safetensors")[1]["world_size"] == 1


def test_a_mistake_that_all_meet_is_one_line(tmp_path):
    wrong = [*TRAIN, "--out", tmp_path / "g.safetensors", "--n-models", 0]
    done = faultsim(["-m", "faultsim"], wrong, processes=2)
    assert done.returncode != 0
    assert reported(done) == ["faultsim: error: 0 perturbed models: at least 1 is needed"]
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
