"""A black box made of an ONNX file, run by onnxruntime."""

from pathlib import Path

import numpy as np

from faultsim.errors import FaultsimError
from faultsim.support.extras import needs_extra

from .box import check_classes, check_images


class OnnxFile:
    """A classifier in ONNX, on the CPU.

    It must have one input, float32 [B, C, H, W]. Its first output must be scores [B, classes] or class numbers [B]. A
    model with a fixed batch size gets batches of that size.

    Parameters
    ----------
    path
        ONNX file.

    Raises
    ------
    FaultsimError
        For a file that cannot be read, or has other inputs.
    """

    def __init__(self, path: Path | str) -> None:
        with needs_extra("onnx"):
            import onnxruntime

        self.name = str(path)
        if not Path(path).is_file():
            raise FaultsimError(f"{path} does not exist")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(
                self.name, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise FaultsimError(
                f"{path} is no ONNX model that onnxruntime can run: {_first(error)}"
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            found = ", ".join(f"{i.type} {i.shape}" for i in inputs)
            raise FaultsimError(f"{path} takes {found}: one input, float [B, C, H, W], is needed")
        self._input = inputs[0].name
        self._batch, *self._shape = (n if isinstance(n, int) else None for n in inputs[0].shape)
        self._output = self._session.get_outputs()[0].name

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the class of each image (see BlackBox.predict)."""
        images = check_images(images)
        if any(n not in (None, m) for n, m in zip(self._shape, images.shape[1:], strict=True)):
            raise FaultsimError(f"{self.name} takes images {self._shape}, not {list(images.shape[1:])}")
        size = self._batch or len(images)
        answers = [self._run(images[i : i + size], size) for i in range(0, len(images), size)]
        return np.concatenate(answers)

    def _run(self, images: np.ndarray, size: int) -> np.ndarray:
        """Return the classes of one batch, padded to `size` images."""
        missing = [(0, size - len(images)), (0, 0), (0, 0), (0, 0)]
        try:
            found = self._session.run([self._output], {self._input: np.pad(images, missing)})[0]
        except Exception as error:  # as above
            raise FaultsimError(
                f"{self.name} fails on images {list(images.shape)}: {_first(error)}"
            ) from error
        if found.ndim == 2 and found.dtype.kind == "f" and found.shape[1]:
            found = found.argmax(1)
        return check_classes(found, size, self.name)[: len(images)]


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
