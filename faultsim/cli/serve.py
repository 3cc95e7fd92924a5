"""`faultsim serve-model`: a model on a simulated chip as a black box behind HTTP."""

from typing import Annotated

import typer

from ..errors import FaultsimError
from ..show.units import format_percent
from .option_groups import FaultOptions, ModelOptions, PointOptions, expand_options
from .options import DeviceOption


@expand_options
def serve_model(
    *,
    network: ModelOptions,
    classes: Annotated[
        int | None,
        typer.Option(
            help="Number of classes, if --weights does not say. [default: 10]",
            show_default=False,
        ),
    ] = None,
    chip: Annotated[int, typer.Option(help="Seed of the simulated chip.")] = 0,
    point: PointOptions,
    memory: FaultOptions,
    device: DeviceOption = "auto",
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. There is no password: everybody who reaches it can use it."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 8000,
    max_batch: Annotated[int, typer.Option(help="Largest number of images per request.")] = 1024,
    max_body: Annotated[int, typer.Option(help="Largest request, in MiB.")] = 16,
    max_seconds: Annotated[
        float, typer.Option(help="Time limit for the body of a request, in seconds.")
    ] = 30.0,
) -> None:
    """Serve predictions of a model on a chip over HTTP.

    Nothing but predictions leaves the server.

    GET / describes the input and the limits; POST /predict takes images, float32 [B, 3, 32, 32] in [-1, 1], as the
    bytes of a .npy file (application/x-npy) or as {"images": [...]} (application/json), and answers their class numbers
    in the same format. Once it listens, it prints one line that ends in its address. Ctrl-C or SIGTERM ends it. Give
    --bit-error-rate 0 for a chip without failing cells.
    """
    import torch

    from neuralfuse.blackbox.chip import ModelOnChip
    from neuralfuse.blackbox.server import format_address, listen, serve
    from neuralfuse.blackbox.wire import Description, Limits

    from ..data.dataset import SIDE
    from ..faults import Chip
    from ..kernel.devices import choose_device
    from ..studies.conditions import Conditions
    from ..studies.subject import count_classes, find_model, load_model

    _, rate = point.point()
    faults = memory.fault_model()
    simulated = Chip(chip)
    limits = Limits(max_batch, max_body << 20, max_seconds)
    where = choose_device(device)
    name, file, trained = find_model(network.model, network.weights)
    known = trained.get("num_classes")
    if classes is not None and (known is not None or ":" in name):
        raise FaultsimError(
            "--classes cannot be combined with these weights, or a model of your own, which say how many there are"
        )
    count = known if known is not None else 10 if classes is None else classes
    loaded, stored, _ = load_model(name, file, count, where, network.per_channel)
    shape = (3, SIDE, SIDE)
    found = count_classes(name, loaded, torch.zeros(2, *shape, device=where))
    box = ModelOnChip(loaded, stored, simulated, bit_error_rate=rate, faults=faults)
    # what it is trained for, not how it is made
    images = trained.get("dataset")
    description = Description(
        f"{images} classifier" if isinstance(images, str) else "classifier", shape, found, limits
    )
    with listen(host, port) as listener:
        url = format_address(listener)
        # for whoever runs the server: what it answers over HTTP doesn't tell
        conditions = Conditions(faults, point.voltage_curve(), share=stored.share)
        told = f"{description.name} on chip {chip} (bit error rate {format_percent(rate)}; {conditions})"
        serve(box, description, listener, lambda: print(f"serving {told} at {url}", flush=True))
