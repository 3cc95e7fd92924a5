"""SCALE-Sim's counts by formula, for all three dataflows.

With an array of R rows and C columns, P output pixels, K weights per filter, F filters, and ceilings
throughout:

| dataflow | filter reads | input reads | output writes             | cycles                          |
|----------|--------------|-------------|---------------------------|---------------------------------|
| os       | K F (P/R)    | P K (F/C)   | P F + (P/R) (F/C) (R + C) | (P/R) (F/C) (K + R + C - 2) - 1 |
| ws       | K F          | P K (F/C)   | P F (K/R)                 | (K/R) (F/C) (P + 2R + C - 2) - 1 |
| is       | K F (P/C)    | P K         | P F (K/R)                 | (K/R) (P/C) (F + 2R + C - 2) - 1 |

The array works in folds: pieces of the computation that fit into R x C. An operand that stays in the array is
read once; one that streams is read once per fold. Weight- and input-stationary arrays write a partial sum of
every output for each of the K/R folds along the window.

What SCALE-Sim's counters hold beyond its own traces, and what is reported as over-count here:
- Output writes, output-stationary: R + C extra for each fold; a hand count gives P F (SCALE-Sim issue 166).
- Input reads, all dataflows: SCALE-Sim rounds the output size up where frameworks round down, so a strided
  layer can have windows that hang over the edge of the padded map. Those reads are counted, although they
  have no address.

A hand count of input-stationary writes: 6 output pixels, 3 filters and a window of 8 on a 4x4 array are
2 folds along the window and 2 along the pixels (4 + 2). Each fold writes pixels x filters values, so
2 x (4 x 3 + 2 x 3) = 36 = P F (K/R). SCALE-Sim before the fix of its issue 43 overwrote the counter in each
fold and reported the last one alone, 2 x 3 = 6.
"""

from collections.abc import Iterable

from .accelerator import PAPER, Accelerator, Dataflow
from .counts import LayerCounts, NetworkCounts
from .layers import Layer


def count_layer(layer: Layer, accelerator: Accelerator = PAPER) -> LayerCounts:
    """Count the accesses and cycles of one layer, all repeats included."""
    rows, columns = accelerator.rows, accelerator.columns
    height, width = layer.output_height, layer.output_width
    pixels, window, filters = height * width, layer.window, layer.filters
    inside = (  # elements of all windows that lie on the padded map, P K at most
        _overlap(layer.input_height, layer.kernel_height, layer.stride_height, height)
        * _overlap(layer.input_width, layer.kernel_width, layer.stride_width, width)
        * layer.channels
    )
    output_overcount = 0
    match accelerator.dataflow:
        case Dataflow.OUTPUT_STATIONARY:
            folds, stream = _ceil(pixels, rows) * _ceil(filters, columns), window + rows + columns - 2
            filter_reads = window * filters * _ceil(pixels, rows)
            input_passes = _ceil(filters, columns)
            output_overcount = folds * (rows + columns)
            output_writes = pixels * filters + output_overcount
        case Dataflow.WEIGHT_STATIONARY:
            folds, stream = _ceil(window, rows) * _ceil(filters, columns), pixels + 2 * rows + columns - 2
            filter_reads = window * filters
            input_passes = _ceil(filters, columns)
            output_writes = pixels * filters * _ceil(window, rows)
        case Dataflow.INPUT_STATIONARY:
            folds, stream = _ceil(window, rows) * _ceil(pixels, columns), filters + 2 * rows + columns - 2
            filter_reads = window * filters * _ceil(pixels, columns)
            input_passes = 1
            output_writes = pixels * filters * _ceil(window, rows)
    repeats = layer.repeats
    return LayerCounts(
        filter_reads=repeats * filter_reads,
        input_reads=repeats * pixels * window * input_passes,
        output_writes=repeats * output_writes,
        cycles=repeats * (folds * stream - 1),
        input_overcount=repeats * (pixels * window - inside) * input_passes,
        output_overcount=repeats * output_overcount,
    )


def count(layers: Iterable[Layer], accelerator: Accelerator = PAPER) -> NetworkCounts:
    """Count the accesses and cycles of all layers."""
    layers = tuple(layers)
    return NetworkCounts(
        "closed-form", accelerator, layers, tuple(count_layer(layer, accelerator) for layer in layers)
    )


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _overlap(size: int, kernel: int, stride: int, outputs: int) -> int:
    """Return the sum over the windows along one axis of what lies on the map; only the last one can hang over."""
    last = size - (outputs - 1) * stride
    return outputs * kernel if last >= kernel else (outputs - 1) * kernel + max(0, last)
