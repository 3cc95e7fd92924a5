"""Energy of a network

The energy of the weight memory is the number of SRAM accesses times the energy of one access at the supply voltage.
The accesses follow from the shapes of the layers and from the accelerator. No weights and no data are needed.
"""

# %% From a network to its layers
# `trace_layers` runs the network once on shapes alone and lists what a systolic array computes.

from energy import PAPER, count, trace_layers
from faultsim import models

resnet = models.create("ResNet18")
layers = trace_layers(resnet, (3, 32, 32))
counts = count(layers, PAPER)
print(
    f"{PAPER.rows} x {PAPER.columns} array, {len(layers)} layers, {counts.weight_memory_accesses:,} weight accesses"
)
for layer, of_layer in list(zip(counts.layers, counts.counts, strict=True))[:3]:
    print(f"  {layer.name}: {of_layer.filter_reads:,} weights read, {of_layer.cycles:,} cycles")

# %% SCALE-Sim agrees
# The counts above come from a closed form. SCALE-Sim simulates each cycle and gives the same numbers, more slowly.
# (It needs the extra `energy`.) One layer is enough to show it.

print(
    count(layers[:1], PAPER, "scalesim").weight_memory_accesses
    == count(layers[:1], PAPER).weight_memory_accesses
)

# %% Energy saving
# The saving is relative to the same network at Vmin. A generator in front stays at Vmin and pays for its own reads:
# the paper's equation 2.

from energy import POLICIES, compute_saving, count_weight_accesses, find_break_even_voltage
from faultsim import VoltageCurve
from neuralfuse import create

curve = VoltageCurve.default()
reads = count_weight_accesses(resnet, (3, 32, 32))
for name in ("ConvL", "ConvS", "UNetS"):
    generator = count_weight_accesses(create(name), (3, 32, 32), policy=POLICIES["paper-generator"])
    saving = compute_saving(reads, curve, 0.83, generator)
    even = find_break_even_voltage(reads, generator, curve)
    print(f"{name}: saves {100 * saving:.1f} % at 0.83 Vmin, costs more than it saves above {even:.3f} Vmin")

# %% Your own network
# Any module that runs on meta tensors will do.

from torch import nn

own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
print(f"{count_weight_accesses(own, (3, 64, 64)):,} weight accesses")

# %% From the shell
#
#     faultsim energy --model ResNet18 --generator UNetL --voltage 0.83
#     faultsim energy --model my_project:net --engine both
