"""SCALE-Sim itself, as an engine: the only module that imports the `scalesim` package.

Only SCALE-Sim's compute part runs: it makes the demand matrices, the address of every SRAM access in every
cycle, and counts while it does. Its memory part adds DRAM traffic and traces on disk and changes no count
here. SCALE-Sim works in this process; what is printed meanwhile is dropped, its `exit()` becomes an
EnergyError, and it writes no file. Layers of equal shape are simulated once. Several layers run at the same
time, in threads: NumPy copies large matrices without holding the interpreter's lock.
"""

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from . import closed_form
from .accelerator import PAPER, Accelerator, Dataflow
from .counts import LayerCounts, NetworkCounts
from .errors import EnergyError
from .layers import Layer

MEMORY_LIMIT = 1 << 30
"""Bytes that all simulations together may take, by default."""


def count(
    layers: Iterable[Layer],
    accelerator: Accelerator = PAPER,
    workers: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> NetworkCounts:
    """Count the accesses and cycles of all layers with SCALE-Sim.

    Parameters
    ----------
    layers
        From `trace_layers` or `read_topology`.
    accelerator
        Default: the paper's.
    workers
        Layers that run at the same time, fewer while they would take more than `memory_limit`. Default: one for each
        CPU core.
    memory_limit
        Bytes that all of them together may take.

    Raises
    ------
    EnergyError
        When SCALE-Sim is missing or stops, and for a layer that alone would pass the limit.
    """
    layers = tuple(layers)
    distinct: dict[Layer, Layer] = {}  # shape -> the first layer that has it
    for layer in layers:
        distinct.setdefault(_shape(layer), layer)
        if (needed := memory_of(layer, accelerator)) > memory_limit:
            raise EnergyError(
                f"layer {layer.name!r} would take {needed / 2**20:,.0f} MiB in SCALE-Sim, over the limit "
                f"of {memory_limit / 2**20:,.0f} MiB; use the closed form, which gives the same counts"
            )
    _parts()
    budget = _Budget(memory_limit)

    def run(shape: Layer) -> LayerCounts:
        with budget.taking(memory_of(shape, accelerator)):
            return _simulate(distinct[shape], accelerator)

    # the longest first, so that no core waits for a long one at the end
    order = sorted(distinct, key=lambda s: -closed_form.count_layer(s, accelerator).cycles)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
    ):
        results = dict(zip(order, pool.map(run, order), strict=True))
    return NetworkCounts(
        "scalesim",
        accelerator,
        layers,
        tuple(results[_shape(layer)].times(layer.repeats) for layer in layers),
    )


def _shape(layer: Layer) -> Layer:
    """Return what decides the counts of one run: a name changes nothing, and repeats only multiply."""
    return replace(layer, name="", repeats=1)


def memory_of(layer: Layer, accelerator: Accelerator = PAPER) -> int:
    """Estimate the bytes that SCALE-Sim takes for one layer at most, from the matrices that it makes.

    It makes the address matrix of the inputs from about 15 matrices of that size. Then the demand matrices grow fold by
    fold, with a row per cycle and a column per row or column of the array; the old and the new copy of the one that
    grows exist together. All numbers take 8 bytes. Fifteen measured peaks, from a fully connected layer to a 224x224
    stem, lie between 0.91 and 0.97 times this.
    """
    cycles = closed_form.count_layer(replace(layer, repeats=1), accelerator).cycles + 1
    inputs = layer.output_pixels * layer.window
    demand = cycles * (3 * max(accelerator.rows, accelerator.columns) + accelerator.rows)
    others = layer.weights + layer.output_pixels * layer.filters
    return int(1.05 * 8 * (max(15 * inputs, demand + 2 * inputs) + others))


class _Budget:
    """Let simulations wait until the ones before them have given their memory back."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


def _parts() -> tuple[Any, ...]:
    """Import the classes of SCALE-Sim that are needed."""
    try:
        from scalesim.compute.operand_matrix import operand_matrix
        from scalesim.compute.systolic_compute_is import systolic_compute_is
        from scalesim.compute.systolic_compute_os import systolic_compute_os
        from scalesim.compute.systolic_compute_ws import systolic_compute_ws
        from scalesim.scale_config import scale_config
        from scalesim.topology_utils import topologies
    except ImportError as error:
        raise EnergyError(
            f"the scalesim engine needs SCALE-Sim ({error}); install it with 'pip install \"faultsim[energy]\"', "
            "or use the closed form, which gives the same counts"
        ) from error
    systolic = {
        Dataflow.OUTPUT_STATIONARY: systolic_compute_os,
        Dataflow.WEIGHT_STATIONARY: systolic_compute_ws,
        Dataflow.INPUT_STATIONARY: systolic_compute_is,
    }
    try:  # SCALE-Sim 3 wants a layout object, and SCALE-Sim 2 knows none
        from scalesim.layout_utils import layouts
    except ImportError:
        return scale_config, topologies, (), operand_matrix, systolic
    return scale_config, topologies, (layouts(),), operand_matrix, systolic


def _simulate(layer: Layer, accelerator: Accelerator) -> LayerCounts:
    """Run one layer through SCALE-Sim's compute part once."""
    scale_config, topologies, layout, operand_matrix, systolic = _parts()
    try:
        config = scale_config()
        config.set_arr_dims(accelerator.rows, accelerator.columns)
        config.set_dataflow(accelerator.dataflow.value)
        config.set_buffer_sizes_kb(
            accelerator.input_sram_kib, accelerator.weight_sram_kib, accelerator.output_sram_kib
        )
        config.force_valid()
        topology = topologies()
        topology.load_layer_params_from_list(
            "layer",
            [
                "layer",
                layer.input_height,
                layer.input_width,
                layer.kernel_height,
                layer.kernel_width,
                layer.channels,
                layer.filters,
                layer.stride_height,
                layer.stride_width,
                1,
                1,  # sparsity 1:1, all weights present
            ],
        )
        operands = operand_matrix()
        operands.set_params(config, topology, *layout, 0)
        matrices = []
        for matrix in (operands.get_ifmap_matrix, operands.get_filter_matrix, operands.get_ofmap_matrix):
            status, addresses = matrix()
            if status != 0:
                raise EnergyError(f"SCALE-Sim made no operand matrix for {layer} (status {status})")
            matrices.append(addresses)
        inputs, weights, outputs = matrices
        compute = systolic[accelerator.dataflow]()
        compute.set_params(
            config_obj=config, ifmap_op_mat=inputs, filter_op_mat=weights, ofmap_op_mat=outputs
        )
        # once only: a second call would add to the same counters
        compute.create_demand_matrices()
    except SystemExit as error:
        raise EnergyError(f"SCALE-Sim stopped at {layer} with exit status {error.code}") from error
    except AssertionError as error:
        raise EnergyError(f"SCALE-Sim refused {layer}: {error}") from error
    input_reads, output_writes = int(compute.get_ifmap_requests()), int(compute.get_ofmap_requests())
    return LayerCounts(
        filter_reads=int(compute.get_filter_requests()),
        input_reads=input_reads,
        output_writes=output_writes,
        cycles=len(compute.get_ofmap_demand_mat()) - 1,
        # an entry of -1 in a demand matrix is a cycle without an access
        input_overcount=input_reads - int((compute.get_ifmap_demand_mat() >= 0).sum()),
        output_overcount=output_writes - int((compute.get_ofmap_demand_mat() >= 0).sum()),
    )
