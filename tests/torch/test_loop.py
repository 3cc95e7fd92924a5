"""Training that is kept within an epoch and stops at a deadline ends where an uninterrupted one does."""

import math
import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from faultsim import FaultsimError
from faultsim.data import Augmentation, Dataset
from faultsim.inference.graphs import Graphed
from faultsim.training.classifier import RECIPES, choose_recipe
from faultsim.training.loop import SCHEDULES, Loop, OutOfTime, Pace, create_schedule

EPOCHS, BATCH = 3, 8


def images(count: int = 30) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)
    return Dataset(pixels, torch.arange(count) % 2, ("a", "b"), "made", "train")


def loop(state=None, pace=None, name="linear", identity=None, on_step=lambda number: None) -> Loop:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step(inputs: Tensor, labels: Tensor, number: Tensor) -> Tensor:
        on_step(int(number))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return torch.stack([loss, inputs.mean()])

    data = images()
    return Loop(
        modules={"module": model},
        optimizer=optimizer,
        step=step,
        values=2,
        data=data,
        batch_size=BATCH,
        seed=0,
        augment=Augmentation(padding=2),
        identity=identity or {"run": 1},
        state=state,
        schedule=create_schedule(name, optimizer, 1e-2, EPOCHS * 4),
        pace=pace or Pace(),
    )


def run(made: Loop, report=lambda entry: None, epochs: int = EPOCHS) -> list[dict]:
    made.run(epochs, lambda epoch, means: {"epoch": epoch, "loss": means[0], "light": means[1]}, report)
    return made.curve


def weights(made: Loop) -> list[Tensor]:
    return list(made.modules["module"].state_dict().values())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_stopped_at_every_step_ends_where_an_uninterrupted_one_does(name, tmp_path):
    whole, numbers = loop(name=name), []
    curve = run(whole)
    state, stops, said = tmp_path / "state.safetensors", [], []
    for _ in range(100):
        part = loop(state, Pace(deadline=0.0), name, on_step=numbers.append)
        part.resume()
        try:
            run(part, said.append)
        except OutOfTime as stop:
            stops.append(str(stop))
            continue
        break
    assert len(stops) == EPOCHS * 4 - 1, "every step but the last"
    where = [text.removeprefix("the time is up ").split(":")[0] for text in stops[:5]]
    assert where == ["in epoch 1 of 3"] * 3 + ["after epoch 1 of 3", "in epoch 2 of 3"]
    assert numbers == list(range(EPOCHS * 4))
    assert part.curve == curve == said
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights(part), weights(whole), strict=True))


def test_the_state_is_kept_within_an_epoch(tmp_path, monkeypatch):
    """Every minute of a clock that a step advances by 25 s: after the third of four steps, and at the end."""
    clock, kept = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def passes(number: int) -> None:
        clock[0] += 25.0

    made = loop(tmp_path / "state.safetensors", Pace(seconds=60.0), on_step=passes)
    monkeypatch.setattr(
        "faultsim.training.loop.save_state",
        lambda path, modules, optimizer, facts: kept.append((len(facts["curve"]), facts["done"])),
    )
    run(made, epochs=2)
    assert kept == [(0, 3), (1, 0), (1, 3), (2, 0)]


def test_a_state_of_another_run_is_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    run(loop(state), epochs=1)
    with pytest.raises(FaultsimError, match="belongs to a run with other options"):
        loop(state, identity={"run": 2}).resume()


def test_the_learning_rate_follows_its_schedule():
    rates = {}
    for name in SCHEDULES:
        parameter = nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        found, made = [], create_schedule(name, optimizer, 0.5, 100)
        for _ in range(100):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if made is not None:
                made.step()
        rates[name] = found
    assert rates["constant"] == [0.5] * 100
    assert rates["linear"] == pytest.approx([0.5 * (1 - step / 100) for step in range(100)])
    assert max(rates["one_cycle"]) == pytest.approx(0.5, rel=1e-3)
    assert rates["one_cycle"][0] < 0.05 > rates["one_cycle"][-1]
    with pytest.raises(FaultsimError, match="constant, linear, one_cycle"):
        create_schedule("cosine", optimizer, 0.5, 100)


def test_the_short_recipe_goes_as_far_as_the_papers():
    """The sum of the learning rates over all steps of CIFAR-10 differs by less than a quarter; nothing else of the
    optimizer differs."""
    paper, short = choose_recipe("paper", "cifar10"), choose_recipe("paper_short", "cifar10")
    assert (short.momentum, short.weight_decay) == (paper.momentum, paper.weight_decay) == (0.9, 0.0)

    def distance(of) -> float:
        steps = of.epochs * math.ceil(50_000 / of.batch_size)
        return steps * of.learning_rate * (0.5 if of.schedule == "linear" else 1.0)

    assert distance(short) == pytest.approx(distance(paper), rel=0.25)
    assert choose_recipe("paper", "cifar100").epochs == 2 * paper.epochs
    assert choose_recipe("paper_short", "cifar100").epochs == 2 * short.epochs
    assert {of.schedule for of in RECIPES.values()} == set(SCHEDULES)


def test_a_recipe_may_have_other_epochs_and_another_learning_rate():
    usual = choose_recipe("fine_tune", "cifar10")
    assert choose_recipe("fine_tune", "cifar10", usual.epochs, usual.learning_rate) == usual
    other = choose_recipe("fine_tune", "cifar10", 14, 0.03)
    assert other == replace(
        usual, name="fine_tune, 14 epochs, learning rate 0.03", epochs=14, learning_rate=0.03
    )
    for wrong in (0.0, -1e-3, math.nan, math.inf):
        with pytest.raises(FaultsimError, match="it must be above 0"):
            choose_recipe("fine_tune", "cifar10", learning_rate=wrong)


def test_on_a_cpu_a_function_runs_as_it_is_written():
    calls = []
    call = Graphed(lambda x: calls.append(x) or x + 1, torch.device("cpu"))
    inputs = [torch.full([2], float(i)) for i in range(6)]
    assert [float(call(x)[0]) for x in inputs] == [1, 2, 3, 4, 5, 6]
    assert all(ours is theirs for ours, theirs in zip(calls, inputs, strict=True))


@pytest.mark.cuda
def test_a_replayed_step_is_the_step_as_written():
    """Training of a small network on a GPU: captured and as written, the last batch of an epoch being smaller."""
    found = []
    for captured in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2)
        ).cuda()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=torch.tensor(1e-2, device="cuda"), momentum=0.9, fused=True
        )
        entered = []

        def step(inputs, labels, number, model=model, optimizer=optimizer, entered=entered):
            entered.append(1)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            return torch.stack([loss, number.float()])

        made = Loop(
            modules={"module": model}, optimizer=optimizer, step=step, values=2, data=images().to("cuda"),
            batch_size=BATCH, seed=0, augment=Augmentation(padding=2), identity={},
            schedule=create_schedule("linear", optimizer, 1e-2, 5 * 4), captured=captured,
        )  # fmt: skip
        curve = run(made, epochs=5)
        assert int(made.number) == 20
        assert len(entered) == (3 + 1 + 5 if captured else 20), (
            "three as written, the capture, and the small batches"
        )
        found.append(([entry["loss"] for entry in curve], [entry["light"] for entry in curve], weights(made)))
    (losses, numbers, ours), (plain_losses, plain_numbers, theirs) = found
    assert losses == pytest.approx(plain_losses, rel=1e-3)
    assert numbers == plain_numbers
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-4)


@pytest.mark.cuda
def test_what_cannot_be_captured_runs_as_written(caplog):
    call = Graphed(lambda x: x * 2 if float(x.sum()) > 0 else x, torch.device("cuda"))
    for i in range(6):
        assert call(torch.full([2], float(i), device="cuda")).tolist() == [2.0 * i, 2.0 * i]
    assert caplog.text.count("runs without a CUDA graph") == 1
    # and nothing else suffers from the attempt
    assert len(set(torch.rand(1000, device="cuda").tolist())) > 900
    drawn = Graphed(lambda x: x + torch.rand_like(x), torch.device("cuda"))
    assert len({float(drawn(torch.zeros(1, device="cuda"))) for _ in range(50)}) > 45
    assert drawn.graph is not None
