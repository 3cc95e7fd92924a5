"""NeuralFuse in front of a black box

A NeuralFuse generator is a small network in front of the input. It runs at a safe voltage and changes the image so
that a faulty base model still says the right class. It needs no access to that model when it is used: the base model
may be a device, a service, or a file. Here it is a Python function that only answers class numbers.
"""

# %% A device of which only predictions can be had
# The function below stands for your device driver. Behind it, the bundled DigitsVGG runs on simulated chip 11 at a
# bit error rate of 3 %.

import numpy as np
import torch

from faultsim import Chip, perturbed
from faultsim.studies.subject import load_subject

subject = load_subject("DigitsVGG")


def device(images: np.ndarray) -> np.ndarray:
    """float32 [B, 3, 32, 32] in [-1, 1] -> class numbers [B]."""
    with torch.no_grad(), perturbed(subject.model, Chip(11), bit_error_rate=0.03, stored=subject.stored):
        return subject.model(torch.from_numpy(images)).argmax(1).numpy()


images, labels = subject.data[0]
print(f"{len(labels)} images, {100 * np.mean(device(images.numpy()) == labels.numpy()):.1f} % right")

# %% A generator from a file
# ConvQS comes with the package. `neuralfuse.load` reads the file that `faultsim train-generator` wrote and gives a
# torch module: F(x) = clamp(x + G(x), -1, 1).

import neuralfuse
from neuralfuse.bundled import GENERATORS

fuse = neuralfuse.load(GENERATORS["DigitsVGG"].weights)
with torch.no_grad():
    shown = fuse(images)
print(f"behind ConvQS: {100 * np.mean(device(shown.numpy()) == labels.numpy()):.1f} % right")

# %% Accuracy over the whole test set, and over several devices
# `evaluate_restricted` counts right answers of each black box, alone and behind the generator. The boxes get NumPy
# images and answer class numbers; nothing else crosses the line.

from faultsim import FaultModel
from neuralfuse.blackbox.box import PythonCallable
from neuralfuse.blackbox.chip import ModelOnChip
from neuralfuse.blackbox.evaluation import evaluate_restricted

boxes = [PythonCallable(device, "the device")] + [
    ModelOnChip(subject.model, subject.stored, Chip(seed), bit_error_rate=0.03, faults=FaultModel())
    for seed in (12, 13)
]
found = evaluate_restricted(boxes, subject.data, fuse)
for name, alone, fused in zip(
    ("device", "chip 12", "chip 13"), found.alone.accuracies, found.fused.accuracies, strict=True
):
    print(f"{name}: {100 * alone:5.1f} % alone, {100 * fused:5.1f} % behind ConvQS")

# %% What it costs
# The generator reads its own weights at the safe voltage. Count them before you call it a saving.

from energy import count_weight_accesses

own = count_weight_accesses(fuse, (3, 32, 32))
print(f"ConvQS reads {100 * own / subject.accesses:.1f} % as many weight words as DigitsVGG")

# %% From the shell
# The same over HTTP, with the server in another process, container or machine:
#
#     faultsim serve-model --model DigitsVGG --chip 11 --bit-error-rate 3% --port 8000
#     faultsim evaluate-blackbox --endpoint http://127.0.0.1:8000 --generator convqs.safetensors --dataset digits
