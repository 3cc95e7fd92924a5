"""A measured chip

A simulated chip is a seed. A measured chip is a list of the cells that failed on a tester. This tutorial writes such a
list, reads it, and compares the accuracy on it with that on simulated chips of the same bit error rate.
"""

# %% The list of failing cells
# One line for each failing cell: the highest voltage at which it fails, its array, row and column, and what it reads
# (0 or 1; -1 for the inverse of what was stored). Here a tester is played by a simulated chip whose map is saved to
# the same format.

from pathlib import Path

from faultsim import Chip, FaultKind, FaultModel, map_chip

tester = map_chip(
    Chip(2026), [0.90, 0.86, 0.83, 0.80], arrays=132, faults=FaultModel(FaultKind.STUCK_AT_RANDOM)
)
tester.save("chip.csv")
print(*Path("chip.csv").read_text().splitlines()[:9], sep="\n")

# %% Reading it
# `FaultMap` refuses cells outside the arrays and cells named twice. It knows how far down was measured: below that
# voltage more cells fail than it lists, so nothing is computed there.

from faultsim import FaultMap, FaultsimError

measured = FaultMap.load("chip.csv")
print(measured)
for voltage in (0.90, 0.86, 0.83, 0.80):
    print(f"{voltage:.2f} Vmin: {len(measured.at(voltage)):6,} failing cells")
try:
    measured.at(0.75)
except FaultsimError as error:
    print("0.75 Vmin:", error)

# %% Accuracy on it
# A `MeasuredChip` goes wherever a `Chip` goes. The bundled network DigitsVGG is the model.

from faultsim import MeasuredChip, evaluate, evaluation_chips
from faultsim.studies.subject import load_subject

subject = load_subject("DigitsVGG", images=200)
chip = MeasuredChip.load("chip.csv")
for voltage in (0.86, 0.83, 0.80):
    result = evaluate(subject.model, subject.data, [chip], voltage=voltage, stored=subject.stored)
    print(f"{voltage:.2f} Vmin, measured chip: {100 * result.mean:.1f} %")

# %% Simulated chips of the same kind
# The measured chip is one sample. Simulated chips say how much the next one may differ.

faults = FaultModel(FaultKind.STUCK_AT_RANDOM)
result = evaluate(
    subject.model,
    subject.data,
    evaluation_chips(seed=0, count=5),
    voltage=0.80,
    faults=faults,
    stored=subject.stored,
)
print(f"0.80 Vmin, five simulated chips: {100 * result.worst:.1f} to {100 * result.best:.1f} %")

# %% From the shell
#
#     faultsim chip 7 --voltage 0.83 --out chip.png          # draw the failing cells of a simulated chip
#     faultsim sweep-voltage --fault-map chip.csv            # sweep on the measured one
