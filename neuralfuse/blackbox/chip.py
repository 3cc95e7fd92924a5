"""A model on a simulated chip, as a black box."""

import threading

import numpy as np
import torch
from torch import nn

from faultsim.faults import Chip, FaultKind, FaultModel
from faultsim.stored import StoredWeights

from .box import check_images


class ModelOnChip:
    """A black box made of a model whose weights are read by a chip at a bit error rate.

    The weights are corrupted once; with transient faults they are read again for every batch, whose number is the index
    of the access, as in faultsim.evaluate. Several threads may call `predict`; the model runs for one at a time. It is
    put into evaluation mode and keeps its own weights.
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
        """Return the class of each image (see BlackBox.predict)."""
        images = check_images(images)
        with self._alone, torch.inference_mode():
            if self._access and self._faults.kind is FaultKind.TRANSIENT:
                self._weights = self._read()
            self._access += 1
            with self._stored.replaced(self._weights):
                inputs = torch.tensor(images, device=self._weights[0].device)
                return self._model(inputs).argmax(1).cpu().numpy()
