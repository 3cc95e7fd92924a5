"""`faultsim transfer`: generators trained for one base model in front of another, as with restricted access."""

from __future__ import annotations

from typing import Annotated

import typer

from .numerals import parse_numbers
from .option_groups import expand_options
from .options import JsonOption
from .run_options import RunOptions, check_only, names


@expand_options
def transfer(
    options: RunOptions,
    source: Annotated[
        list[str],
        typer.Option(
            help="Base models that generators are trained for, the surrogates; ResNet18+VGG19 trains for both at once."
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(help="Base models they are measured with; nothing of them is used in training."),
    ],
    generator: Annotated[
        list[str] | None,
        typer.Option(
            help="ConvL, ConvS, DeConvL, DeConvS, UNetL or UNetS. [default: ConvL,UNetL, as the paper]"
        ),
    ] = None,
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100, gtsrb or digits.")] = "cifar10",
    train_bit_error_rate: Annotated[
        str, typer.Option(help="Share of failing cells in training, like 0.015 or 1.5%; several with commas.")
    ] = "0.015",
    test_bit_error_rate: Annotated[
        str, typer.Option(help="Share of failing cells in evaluation, like 0.01 or 1%; several with commas.")
    ] = "0.01,0.005",
    bits: Annotated[
        str,
        typer.Option(
            help="Bits of a stored weight in evaluation, 2 to 8, quantized after training, which is at 8; several with "
            "commas."
        ),
    ] = "8",
    as_json: JsonOption = False,
) -> None:
    """Train generators with a surrogate of the base model.

    It trains generators for one base model and evaluates them in front of others, which stay black boxes. See section
    3.2 of the paper. What the run directory lacks is trained and evaluated on 10 chips, as by `faultsim reproduce`;
    each of the two commands continues in the other's directories. Rows of the paper's Tables 2 and 11 to 15, and of the
    full paper's Table 21 (two surrogates at once), show their published values. A target may be its own source: so
    other rows of the full paper's Tables 22 and 23 (--bits) are measured. --source, --target and --generator take lists
    with commas and may be repeated. For a model behind an HTTP server or in an ONNX file see `faultsim
    evaluate-blackbox`.
    """
    from neuralfuse.paper.cells import make_transfer_cells
    from neuralfuse.paper.rows import collect_lines

    from . import accuracy_table

    settings = options.settings()
    wanted = make_transfer_cells(
        dataset,
        names(source, "--source"),
        names(target, "--target"),
        names(generator, "--generator") or ["ConvL", "UNetL"],
        parse_numbers(train_bit_error_rate, "--train-bit-error-rate", rates=True),
        parse_numbers(test_bit_error_rate, "--test-bit-error-rate", rates=True),
        options.presets(),
        parse_numbers(bits, "--bits"),
    )
    if options.show:
        check_only(options.given, ("faults", "out", "show"), "--show, which computes nothing")
    if not options.carry_out({"transfer": wanted}, settings):
        return
    found = collect_lines(wanted, options.out, kept=options.show)
    if as_json:
        print(accuracy_table.as_json({"transfer": found}))
    else:
        accuracy_table.show_lines(found)
