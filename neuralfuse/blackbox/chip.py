"""A model on a simulated chip, as a black box."""

import threading

import numpy as np
import torch
from torch import nn

from faultsim.faults import Chip, FaultKind, FaultModel
from faultsim.stored import StoredWeights

from .box import checked_images


class ModelOnChip:
    """`model` with its weights as `chip` reads them at a bit error rate: corrupted once and held, or, for transient
    faults, drawn anew for every batch (whose number is the index of the access, as in faultsim.evaluate).

    May be asked by several threads; the model runs for one at a time. It is put into evaluation mode, and keeps its own
    weights.
    """

    def __init__(
        self,
        model: nn.Module,
        stored: StoredWeights,
        chip: Chip,
        *,
        bit_error_rate: float,
        faults: FaultModel,
    ) -> None:
        self._model, self._stored = model.eval(), stored
        self._chip, self._rate, self._faults = chip, bit_error_rate, faults
        self._alone = threading.Lock()
        self._access = 0
        self._weights = self._read()

    def _read(self) -> list[torch.Tensor]:
        found = self._stored.read_chips([self._chip], self._rate, None, self._faults, self._access)
        return [weight[0] for weight in found]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """As BlackBox.predict."""
        images = checked_images(images)
        with self._alone, torch.inference_mode():
            if self._access and self._faults.kind is FaultKind.TRANSIENT:
                self._weights = self._read()
            self._access += 1
            with self._stored.replaced(self._weights):
                inputs = torch.tensor(images, device=self._weights[0].device)
                return self._model(inputs).argmax(1).cpu().numpy()
