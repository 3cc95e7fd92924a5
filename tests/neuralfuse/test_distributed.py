"""Several processes share the training of a generator, and it is the one that a single process trains."""

import contextlib
import json
import socket
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faultsim import FaultModel, StoredWeights, data, prepare_qat
from faultsim.checkpoint import read_file
from faultsim.cli import main
from neuralfuse.distributed import ALONE, Ranks
from neuralfuse.eopm import EOPM
from neuralfuse.generators import NeuralFuse, UNet
from tests.forked import FAULTSIM, Done, Forked, run

TRAIN = [
    *("train-generator", "--generator", "UNetS", "--bit-error-rate", "0.02"),
    *("--n-models", "2", "--batch-size", "24", "--device", "cpu"),
]
# Runs faultsim on 40 digits; the process of rank $FAILS, if any, fails in the second step of the second epoch.
SCRIPT = """
import os, sys
import torch
import faultsim.data
from faultsim.cli import main
from faultsim.errors import FaultsimError
from neuralfuse.eopm import EOPM

load, backward = faultsim.data.load, EOPM.backward

def some(name, split, data_dir):
    return load(name, split, data_dir).subset(torch.arange(40))

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
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(1176, 10))
    x, y = torch.rand(images, 3, 16, 16) * 2 - 1, torch.randint(0, 10, [images])
    fuse = NeuralFuse(prepare_qat(UNet(2))).double().train()
    options = {"bit_error_rate": 0.02, "faults": FaultModel.preset("neuralfuse_2022"), "n_models": n_models}
    with EOPM(model.double(), StoredWeights.of(model), ranks=ranks, **options) as eopm:
        for step in (0, 1):  # gradients of two steps add up
            losses = eopm.backward(fuse, x.double(), y, step)
    assert fuse.generator.down[0][1].num_batches_tracked == 2
    return [loss.tolist() for loss in losses], [p.grad.flatten().tolist() for p in fuse.parameters()]


CASES = ((4, 5), (4, 2), (1, 1))
"""N and images; in the last case there are two passes, for three processes."""
AT_ONCE = """
import json, os, sys, torch
sys.path.insert(0, sys.argv[1])
from test_distributed import CASES, step_of
from neuralfuse.distributed import join
answers = []
for count, port in enumerate(sys.argv[2:], 2):
    os.environ |= {"WORLD_SIZE": str(count), "MASTER_PORT": port}
    if int(os.environ["RANK"]) >= count:
        continue
    with join(torch.device("cpu")) as (ranks, device):
        found = [step_of(ranks, *case) for case in CASES]
        try:
            ranks.agree(bytes(ranks.first), device, "something")
        except ValueError as error:
            found.append(str(error))
    answers.append([ranks.rank, ranks.count, found])
print(json.dumps(answers))
"""


def environment(rank: int) -> dict[str, str]:
    """What torchrun would tell a process on one machine; how many there are and the port besides."""
    place = {"MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "by hand"}
    return {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}


def free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as closing:
        listeners = [closing.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("localhost", 0))
        return [str(listener.getsockname()[1]) for listener in listeners]


def test_gradients_do_not_depend_on_the_number_of_processes():
    """Three processes, the first two of them also as a run of two; N + 1 is no multiple of either."""
    ports = free_ports(2)
    processes = [Forked(AT_ONCE, [Path(__file__).parent, *ports], env=environment(rank)) for rank in range(3)]
    by_rank = [json.loads(process.communicate()[0]) for process in processes]
    alone = [step_of(ALONE, *case) for case in CASES]
    for count in (2, 3):
        answers = [answer for of_rank in by_rank for answer in of_rank if answer[1] == count]
        assert [rank for rank, _, _ in answers] == list(range(count))
        assert all(found == answers[0][2] for _, _, found in answers)  # the same bits on all
        *shared, complaint = answers[0][2]
        assert complaint == f"the {count} processes of this run differ in something"
        for (losses, gradients), (own_losses, own_gradients) in zip(shared, alone, strict=True):
            assert losses == pytest.approx(own_losses, rel=1e-12)
            for ours, theirs in zip(gradients, own_gradients, strict=True):
                torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-10, atol=1e-14)


def torchrun(program: list[object], arguments: list[object], fails: str = "none") -> Done:
    """A finished run of two processes of `program`."""
    words = ["--standalone", "--nproc-per-node=2", *program, *arguments]
    return run("from torch.distributed.run import main; main()", words, env={"FAILS": fails})


def reported(done: Done) -> list[str]:
    """Lines of faultsim on stderr; torchrun has its own."""
    return [line for line in done.err.splitlines() if line.startswith(("faultsim: ", "epoch "))]


def test_a_run_of_two_processes_is_a_run(tmp_path, monkeypatch, threads):
    """It ends when one process fails, goes on from there, and writes once what a single process writes; that one can go
    on with it."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    train = [*TRAIN, "--out", out / "shared.safetensors", "--epochs", 2]
    first = torchrun([script], train, fails="1")
    assert first.status != 0
    assert [line[:5] for line in reported(first)] == ["epoch", "fault"]
    assert reported(first)[1] == "faultsim: error: the cause"
    (port,) = free_ports(1)
    settings = {"FAILS": "none", "WORLD_SIZE": "2", "MASTER_PORT": port}
    processes = [Forked(SCRIPT, train, env=environment(rank) | settings) for rank in range(2)]
    whole, second = map(Done.of, processes)
    assert (whole.status, second.status) == (0, 0)
    assert [line.split(":")[0] for line in reported(whole)] == ["epoch 2/2"]
    assert whole.out.count("written to") == 1
    assert (second.out, reported(second)) == ("", [])
    assert sorted(path.name for path in out.iterdir()) == [
        f"shared.{end}" for end in ("log.jsonl", "safetensors", "state.safetensors")
    ]
    assert read_file(out / "shared.safetensors")[1]["world_size"] == 2
    shared = read_file(out / "shared.state.safetensors")[1]["facts"]

    def alone(name: str, epochs: int) -> dict:
        with pytest.raises(SystemExit):
            main([str(word) for word in (*TRAIN, "--out", out / f"{name}.safetensors", "--epochs", epochs)])
        return read_file(out / f"{name}.state.safetensors")[1]["facts"]

    threads(1)
    load = data.load
    monkeypatch.setattr(data, "load", lambda name, split, folder: load(name, split).subset(torch.arange(40)))
    own = alone("alone", 2)
    assert own["run"] == shared["run"]
    for ours, theirs in zip(shared["curve"], own["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert alone("shared", 3)["curve"][:2] == shared["curve"]
    log = [json.loads(line) for line in (out / "shared.log.jsonl").read_text().splitlines()]
    assert [entry["world_size"] for entry in log] == [2, 2, 1]


def test_a_mistake_that_all_meet_is_one_line(tmp_path):
    wrong = [*TRAIN, "--out", tmp_path / "g.safetensors", "--n-models", 0]
    store = torch.distributed.TCPStore(
        "localhost", 0, is_master=True
    )  # which torchrun's own process would hold
    settings = {"WORLD_SIZE": "2", "MASTER_PORT": str(store.port)}
    settings |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    processes = [Forked(FAULTSIM, wrong, env=environment(rank) | settings) for rank in range(2)]
    both = [Done.of(process) for process in processes]
    assert [done.status for done in both] == [2, 2]
    assert [line for done in both for line in reported(done)] == [
        "faultsim: error: 0 perturbed models: at least 1 is needed"
    ]
    assert [done.out for done in both] == ["", ""]
    assert not list(tmp_path.iterdir())
