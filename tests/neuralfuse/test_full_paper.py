"""Tables of the later, full paper: do they follow from counts, and are their cells measured as they say?"""

import json
from dataclasses import replace

import pytest
import torch

import neuralfuse
from faultsim import FaultsimError, load_subject
from faultsim.data import digits
from neuralfuse import published
from neuralfuse.files import read_generator
from neuralfuse.paper.actions import Actions
from neuralfuse.paper.cells import make_transfer_cells, select_cells
from neuralfuse.paper.plan import Kind, locate_file, plan_steps
from neuralfuse.paper.reproduction import compute
from neuralfuse.paper.result import read
from neuralfuse.paper.rows import collect_lines, find_published
from neuralfuse.paper.run import Plan, carry_out
from neuralfuse.paper.settings import Settings


def test_the_thirty_savings_by_macs_are_equal_to_the_digit() -> None:
    found = compute("full-table8")
    printed = [row for row in found.rows if row.quantity == "printed MACs"]
    assert len(printed) == 30
    for row in printed:
        assert f"{row.ours:.1f}" == f"{row.published:.1f}", row
    assert found.agrees


def test_the_efficiency_of_six_generators_but_for_three_known_rows() -> None:
    """Those three do not follow from the accuracies that the paper prints (published/README.md)."""
    found = compute("full-table3")
    assert len(found.rows) == 5 * 2 * 6
    odd = {row.subject for row in found.rows if not row.agrees}
    assert odd == {"VGG11 + UNetL at 1 %", "VGG16 + ConvS at 0.5 %", "VGG16 + DeConvL at 0.5 %"}


def test_the_later_paper_prints_the_same_costs() -> None:
    now = {row["model"]: row for row in published.read_table("full_costs") if row["dataset"] == "cifar10"}
    for row in published.read_table("model_costs"):
        assert now[row["model"]]["parameters"] == row["parameters"]
        assert now[row["model"]]["macs"] == row["macs"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("full-table10", 10),
        ("full-table11", 10),
        ("full-table21", 20),
        ("full-table22", 28),
        ("full-table23", 28),
    ],
)
def test_every_published_row_has_its_cell(name: str, count: int) -> None:
    cells = select_cells(name, faults=("iid_flips",))
    assert len(cells) == count
    assert all(find_published(cell).perturbed_fused is not None for cell in cells)


def test_rows_by_hand() -> None:
    (cell,) = (
        cell
        for cell in select_cells("full-table22", (), ["VGG19"], ["UNetL"], ["iid_flips"])
        if cell.bits == 4
    )
    row = find_published(cell)
    assert (row.clean, row.perturbed, row.perturbed_std) == (87.5, 14.7, 6.0)
    assert (row.clean_fused, row.perturbed_fused, row.perturbed_fused_std) == (87.2, 34.4, 20.5)
    weights = [cell.spec.weight for cell in select_cells("full-table10", (), ["VGG19"], (), ["iid_flips"])]
    assert weights == [10, None, 1, 0.1, 0.01]  # 5 is that of all tables


def test_eight_bits_and_lambda_five_are_cells_of_the_other_tables() -> None:
    """They are computed once, under the names of files that run directories have already."""
    five = [c for c in select_cells("full-table10", faults=("iid_flips",)) if c.spec.weight is None]
    assert set(five) <= set(select_cells("table1", faults=("iid_flips",)))


def test_fewer_bits_share_the_trainings(tmp_path) -> None:
    cells = select_cells("full-table22", (), ["ResNet18"], ["ConvL"], ["iid_flips"])
    steps = plan_steps(cells, "paper", tmp_path)
    kinds = [step.kind for step in steps]
    assert [kinds.count(kind) for kind in (Kind.BASE, Kind.GENERATOR)] == [1, 1]
    assert [kinds.count(kind) for kind in (Kind.UNPROTECTED, Kind.RESULT)] == [7, 7]  # 8 to 2 bits
    name = locate_file(Kind.RESULT, replace(cells[0], bits=4), "paper", tmp_path).name
    assert name == "result-ConvL-ResNet18-cifar10-paper-4bits-iid_flips-0.005-from-ResNet18-0.01.json"


def test_other_models_of_fewer_bits_are_transfers_to_themselves() -> None:
    """The rows that Table 22 has, and those of models and generators that it does not measure."""
    wide = make_transfer_cells(
        "cifar10", ["VGG19"], ["VGG19"], ["ConvL", "UNetL"], [0.01], [0.005], ["iid_flips"], range(8, 1, -1)
    )
    assert set(wide) == set(select_cells("full-table22", (), ["VGG19"], (), ["iid_flips"]))
    (other,) = make_transfer_cells(
        "cifar10", ["VGG11"], ["VGG11"], ["UNetS"], [0.01], [0.005], ["iid_flips"], [3]
    )
    assert (other.bits, find_published(other)) == (3, None)


def test_one_perturbation_for_all_images_learns_and_is_read_back(tmp_path) -> None:
    """It begins as no perturbation, fights a constant bias of the images, and costs a read of its 3,072 weights."""
    torch.manual_seed(0)
    made = neuralfuse.create("UIP")
    fuse, x = neuralfuse.NeuralFuse(made), 0.5 * torch.rand(4, 3, 32, 32)
    assert torch.equal(fuse(x), x)
    optimizer = torch.optim.Adam(made.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        fuse(x).mean(0).square().sum().backward()
        optimizer.step()
    assert fuse(x).mean(0).abs().max() < 0.02
    assert torch.equal(made(x)[0], made(x)[3])
    neuralfuse.save(tmp_path / "uip.safetensors", fuse, "UIP")
    saved = read_generator(tmp_path / "uip.safetensors")
    torch.testing.assert_close(
        saved.network.weight, made.weight, atol=float(made.weight.detach().abs().max()) / 250, rtol=0
    )
    assert saved.create_variant(torch.device("cpu"), (3, 32, 32)).transform_accesses == 3072 // 8
    with pytest.raises(FaultsimError, match="for images of 3x32x32, not 3x64x64"):
        fuse(torch.zeros(1, 3, 64, 64))


@pytest.mark.filterwarnings("ignore:without bit errors")
def test_two_surrogates_are_trained_for_at_once(tmp_path, monkeypatch) -> None:
    """100 digits: the file names both surrogates, and a result in front of a third model is refused with others."""
    few = {split: digits.load_digits(split).subset(torch.arange(100)) for split in ("train", "test")}
    monkeypatch.setattr(digits, "load_digits", few.__getitem__)
    settings = Settings.choose(smoke=True, base_epochs=1, epochs=1, n_models=1)
    cells = make_transfer_cells(
        "digits", ["DigitsNet+DigitsVGG"], ["VGG11"], ["ConvS"], [0.015], [0.01], ["iid_flips"]
    )
    plan = Plan.of({"transfer": cells}, tmp_path, settings)
    assert [step.cell.base for step in plan.steps if step.kind is Kind.BASE] == [
        "VGG11",
        "DigitsNet",
        "DigitsVGG",
    ]
    carry_out(plan, tmp_path, device="cpu")
    (generator,) = tmp_path.glob("generator-ConvS-DigitsNet+DigitsVGG-*0.015.safetensors")
    trained = read_generator(generator).metadata
    surrogates = [
        load_subject(weights=step.file).network["weights"]
        for step in plan.steps[:4]
        if step.kind is Kind.BASE
    ][1:]
    assert [trained["base"]["weights"], *(one["weights"] for one in trained["surrogates"])] == surrogates
    assert trained["cost"]["base_forward"] == 2 * 2 * 100
    (line,) = collect_lines(cells, tmp_path, kept=False)
    (result,) = line.results
    assert [one["weights"] for one in result.configuration["generator"]["surrogates"]] == surrogates[1:]
    # the second surrogate is trained anew, otherwise
    for path in [*tmp_path.glob("base-DigitsVGG-*"), *tmp_path.glob("result-*.json")]:
        path.unlink()
    other = Settings.choose(smoke=True, base_epochs=1, epochs=1, n_models=1, seed=1)
    actions = Actions(other, None, torch.device("cpu"), lambda line: None)
    actions.carry_out(next(step for step in plan.steps if step.cell.base == "DigitsVGG"))
    with pytest.raises(FaultsimError, match="was trained with another base model"):
        carry_out(plan, tmp_path, device="cpu")


def test_the_published_rows_of_two_surrogates() -> None:
    (cell,) = make_transfer_cells(
        "cifar10", ["ResNet18+VGG19"], ["VGG11"], ["UNetL"], [0.015], [0.01], ["iid_flips"]
    )
    row = find_published(cell)
    assert (row.clean_fused, row.perturbed_fused, row.perturbed_fused_std) == (85.9, 82.3, 4.1)
    assert row.perturbed == 42.2
    with pytest.raises(FaultsimError, match="unknown base model 'VGG20'"):
        make_transfer_cells("cifar10", ["ResNet18+VGG20"], ["VGG11"], ["UNetL"], [0.015], [0.01])


def test_images_that_are_not_there() -> None:
    with pytest.raises(FaultsimError, match="ImageNet-10, whose images faultsim does not have"):
        select_cells("full-table24")


def test_a_small_version_is_trained_and_measured(tmp_path, monkeypatch) -> None:
    """100 digits, tiny networks: base model and generator are trained with 8 bits, and read with 8 and with 3."""
    few = {split: digits.load_digits(split).subset(torch.arange(100)) for split in ("train", "test")}
    monkeypatch.setattr(digits, "load_digits", few.__getitem__)
    settings = Settings.choose(smoke=True, base_epochs=6, epochs=1, n_models=1)
    cells = select_cells("full-table22", (), (), ["ConvS"], ["iid_flips"], smoke=True)
    cells = [cell for cell in cells if cell.bits in (None, 3)]
    carry_out(Plan.of({"full-table22": cells}, tmp_path, settings), tmp_path, device="cpu")
    by_bits = {line.cell.bits: line.results[0] for line in collect_lines(cells, tmp_path, kept=False)}
    assert list(by_bits) == [None, 3]
    (base,) = (path for path in tmp_path.glob("base-*.safetensors") if ".state" not in path.name)
    subject = load_subject(weights=base, format="int3")
    weights = [layer.decode() for layer in subject.stored.layers]
    with torch.inference_mode(), subject.stored.replaced(weights):
        right = sum(int((subject.model(x).argmax(1) == y).sum()) for x, y in subject.data)
    assert by_bits[3].correct["clean"] == [right]
    for path in tmp_path.glob("result-*.json"):
        about = json.loads(path.read_text())["cell"]
        assert ("bits" in about) == ("bits" in path.name)
        assert "weight" not in about["generator"]
        assert read(path).cell.bits == about.get("bits")
