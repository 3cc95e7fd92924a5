"""The EOPM benchmark measures what it says, in a small run."""

import torch

from faultsim import StoredWeights, models
from neuralfuse.bench import time_eopm


def test_the_three_formulations_are_timed_in_turn():
    torch.manual_seed(0)
    model = models.create("DigitsNet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    passes = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: passes.append(1))
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([1, 2])
    found = time_eopm(
        model, StoredWeights.of(model), "ConvS", images, labels, n_models=3, precision="bfloat16", rounds=4
    )
    assert [len(samples) for samples in found["samples"]] == [4, 4, 4]
    assert all(seconds > 0 for samples in found["samples"] for seconds in samples)
    assert found["over_parts"] == found["eopm"] / found["parts"]
    assert found["naive_over"] == found["naive"] / found["eopm"]
    check, warm_up, step = (
        2 + 2,
        3 * 2,
        3 * 4,
    )  # passes: both formulations once with N = 1; then N = 1, and N = 3
    assert len(passes) == check + warm_up + 4 * step, "the hooks go with the model's copies"
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
