"""Reproduce a table

Tables 6, 7 and 8 and Figure 2 of the NeuralFuse paper need no training: they follow from the networks alone. They are
computed on the spot and laid beside the published values.
"""

# %% Table 7: energy saving
# For each base model (rows) and generator, at 0.83 Vmin, where the bit error rate is 1 %.

import neuralfuse

table = neuralfuse.reproduce("table7")
print(table.title)
for row in table.rows[:6]:
    print(
        f"{row.subject:10} {row.quantity:10} ours {row.ours:6.2f}  published {row.published:6.2f}  {row.agrees}"
    )
print(f"{sum(row.agrees for row in table.rows)} of {len(table.rows)} values agree ({table.criterion})")

# %% Tables that need training
# Table 1 is the accuracy of 15 base models behind six generators. Each cell needs a trained base model and a trained
# generator. `faultsim reproduce` makes a plan, trains what is missing, most valuable cells first, and resumes when it
# is started again:
#
#     faultsim reproduce table1 --dataset cifar10 --base VGG11 --generator ConvS --out run
#     faultsim reproduce table1 --budget 25m --out run
#     faultsim reproduce --status
#
# On the digits the whole paper takes minutes, as a rehearsal:
#
#     faultsim reproduce all --smoke --out smoke
#
# The published values are data of the package, so that you can compare your own results with them:

from neuralfuse import published

rows = [
    row
    for row in published.read_table("relaxed_access")
    if row["table"] == "table1" and row["base_model"] == "VGG11"
]
for row in [row for row in rows if row["dataset"] == "cifar10"][:3]:
    print(f"VGG11 + {row['generator']}: {row['perturbed_acc_nf']} % at a bit error rate of 1 %")
