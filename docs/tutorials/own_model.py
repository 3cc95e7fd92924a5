"""Your own model and your own SRAM curve

You need: any trained `torch.nn.Module`, batches of test data, and a table of your memory's bit error rates. This
tutorial trains a small network on handwritten digits so that it has one, in a few seconds.
"""

# %% A trained model
# Nothing here is special to faultsim: plain torch, and scikit-learn's handwritten digits.

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
pixels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
labels = torch.tensor(labels)
train, test = slice(0, 1200), slice(1200, None)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(40):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(pixels[train]), labels[train])
    loss.backward()
    optimizer.step()

test_data = [(pixels[test], labels[test])]  # any iterable of batches (inputs, targets)
right = (model(pixels[test]).argmax(1) == labels[test]).float().mean()
print(f"accuracy in float32: {100 * right:.0f} %")

# %% Which weights lie in the faulty memory
# All floating-point parameters of two or more dimensions: they are quantized to int8 and stored one after the other.
# Biases stay in float and never fail. `select=` chooses otherwise.

from faultsim import StoredWeights

stored = StoredWeights.of(model)
print(stored.summary())

# %% A voltage curve
# The characterization of your SRAM is a CSV file with three columns. Voltages must fall or rise monotonically; in
# between, the bit error rate is interpolated log-linearly. The energy may be relative, as here, or in picojoules
# (`energy_per_access_pj`).

from pathlib import Path

from faultsim import VoltageCurve

Path("my_sram.csv").write_text(
    "voltage,bit_error_rate,energy_per_access\n"
    "0.80,0,1.00\n"
    "0.75,1e-5,0.88\n"
    "0.70,2e-4,0.77\n"
    "0.65,4e-3,0.66\n"
    "0.60,4e-2,0.56\n"
)
curve = VoltageCurve.from_csv("my_sram.csv")
print(
    f"at 0.62 V: bit error rate {curve.bit_error_rate(0.62):.4f}, energy {curve.energy_per_access(0.62):.3f}"
)

# %% Accuracy on chips
# A chip is a seed: it says which cells fail first when the voltage falls. `evaluate` measures the accuracy on each
# chip. One number says little, so it also gives the spread and the 95 % confidence interval of the mean.

from faultsim import evaluate, evaluation_chips

chips = evaluation_chips(seed=0, count=10)
result = evaluate(model, test_data, chips, voltage=0.62, curve=curve)
low, high = result.interval
print(
    f"0.62 V: {100 * result.mean:.1f} % on average, {100 * result.worst:.1f} % on the worst of {len(chips)} chips"
)
print(f"95 % interval of the mean: {100 * low:.1f} % to {100 * high:.1f} %")

# %% A sweep
# `sweep` measures at several voltages and counts the energy of the weight memory. Its result prints as a table, in a
# terminal and in a notebook; `pandas.DataFrame(result.rows())` makes a data frame of it.

from faultsim import sweep

result = sweep(model, test_data, chips, voltages=[0.80, 0.70, 0.65, 0.62, 0.60], curve=curve)
for row in result.rows():
    mean, saving = 100 * row["mean"], 100 * row["energy_saving"]
    print(f"{row['voltage']:.2f} V: {mean:.1f} %, {saving:.1f} % of the energy saved")
result.plot("sweep.png")
best = result.cheapest(accuracy=0.83)
print(f"the cheapest voltage with at least 83 % accuracy: {best.point.voltage:.2f} V")

# %% One chip, looked at closely
# Inside the block the model computes with the weights as chip 7 reads them. Your parameters are never written to.

from faultsim import Chip, perturbed

before = model[0].weight.clone()
with torch.no_grad(), perturbed(model, Chip(7), voltage=0.60, curve=curve):
    wrong = (model[0].weight - before).abs().gt(0.1).float().mean()
    faulty = (model(pixels[test]).argmax(1) == labels[test]).float().mean()
print(f"chip 7: {100 * wrong:.0f} % of the first layer's weights are off by more than 0.1")
print(f"accuracy on it: {100 * faulty:.0f} %")
print("the model's own weights are unchanged:", torch.equal(before, model[0].weight))

# %% Another kind of fault
# "1 % bit errors" means nothing without the kind of fault: here the failing cells are stuck at a random value, so
# only half of them read wrong, and the memory has the layout of the code published with the NeuralFuse paper.

from faultsim import FaultModel

for name in ("iid flips", "neuralfuse_2022"):
    faults = FaultModel() if name == "iid flips" else FaultModel.preset(name)
    result = evaluate(model, test_data, chips, bit_error_rate=0.02, faults=faults)
    print(f"2 % bit errors, {name}: {100 * result.mean:.1f} % ± {100 * result.std:.1f}")

# %% From the shell
# The same for a whole range of voltages, with a picture, CSV files, and resumption after an interruption:
#
#     faultsim sweep-voltage --model my_project:net --data my_project:scenes --curve my_sram.csv --out sweep
