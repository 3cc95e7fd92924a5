"""Entries of a comparison by their labels, such as secded:zero, base:FILE or my_module:my_entry."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import FaultsimError
from ..mitigations import (
    SECDED,
    BitMasking,
    BoostedLayers,
    InPlaceCode,
    MemoryMitigation,
    Parity,
    RobustBits,
    Together,
    WordMasking,
)
from ..models import import_object
from .cascade import CONFIDENCE, ask_first, split_confidence
from .entries import Entry, boost_layers, protect_memory, replace_base
from .model_entries import restrict_activations, write_for_each_chip
from .sweep_result import Variant


class Kind(NamedTuple):
    """A kind of entries that has a name."""

    make: Callable[..., MemoryMitigation | Entry]
    """It is called with the parameter, or without one."""
    parameter: str = ""
    """What the parameter can be; empty where there is none."""


def _robust_bits(bits: str = "2") -> RobustBits:
    return RobustBits(int(bits)) if bits.isdecimal() else _refuse("robust-bits", bits)


def _boosted(parameter: str = "") -> BoostedLayers | Entry:
    patterns, _, volts = parameter.partition("@")
    try:
        voltage = float(volts) if volts else None
    except ValueError:
        raise FaultsimError(f"boosted:{parameter}: {volts!r} is no voltage") from None
    layers = tuple(patterns.split("+")) if patterns else ()
    return BoostedLayers(layers, voltage) if layers and voltage else boost_layers(layers, voltage)


def _base(file: str = "") -> Entry:
    if not file:
        raise FaultsimError("base needs the weight file of another base model: base:FILE")
    return replace_base(file)


def _cascade(parameter: str = "") -> Entry:
    file, confidence = split_confidence(parameter)
    if not file:
        raise FaultsimError("cascade needs the weight file of a little network: cascade:FILE@0.7")
    return ask_first(file, CONFIDENCE if confidence is None else confidence)


def _refuse(kind: str, parameter: str) -> RobustBits:
    raise FaultsimError(f"{kind}:{parameter}: it can be {kind}:{KINDS[kind].parameter}")


KINDS: Mapping[str, Kind] = {
    "secded": Kind(SECDED, "keep, zero or reread"),
    "in-place": Kind(InPlaceCode, "keep, zero or reread"),
    "parity": Kind(Parity, "weight or word"),
    "word-masking": Kind(WordMasking, "weight or word"),
    "bit-masking": Kind(BitMasking),
    "robust-bits": Kind(_robust_bits, "1 to 8"),
    "boosted": Kind(_boosted, "PATTERN@VOLTAGE, where + joins patterns"),
    "fault-aware": Kind(write_for_each_chip),
    "range-restriction": Kind(restrict_activations, "clamp or zero"),
    "base": Kind(_base, "a weight file"),
    "cascade": Kind(_cascade, "FILE@CONFIDENCE"),
}
"""All that faultsim has. neuralfuse.entries has those with a generator."""
_NAMED = re.compile(r"([^=:@/]+)=(.+)", re.DOTALL)


def parse_entry(label: str, kinds: Mapping[str, Kind] = KINDS) -> MemoryMitigation | Entry:
    """Make an entry from its label.

    Parameters
    ----------
    label
        KIND or KIND:PARAMETER; several on the memory joined by +, such as secded:zero+robust-bits:2;
        package.module:name of a mitigation or an entry of your own: a MemoryMitigation (the class or an instance), a
        Variant, or a function that takes a Setting. NAME= before it names the variant.
    kinds
        By their names.

    Raises
    ------
    FaultsimError
        For a kind or a parameter that is not known, and what cannot be imported.
    """
    label = label.strip()
    if named := _NAMED.fullmatch(label):
        return _rename(parse_entry(named[2], kinds), named[1].strip())
    if len(parts := _split(label)) > 1:
        return Together(tuple(_parse_part(part, kinds) for part in parts))
    name, colon, parameter = label.partition(":")
    kind = kinds.get(name)
    if kind is not None and (kind.parameter or not parameter):
        return kind.make(parameter) if parameter else kind.make()
    if kind is None and colon and parameter.isidentifier():
        return _import_entry(label)
    known = ", ".join(
        f"{name}:X (X: {kind.parameter})" if kind.parameter else name for name, kind in kinds.items()
    )
    raise FaultsimError(f"unknown mitigation {label!r}: it can be {known}; your own is package.module:name")


_ON_MEMORY = "secded|in-place|parity|word-masking|bit-masking|robust-bits|boosted"


def _split(label: str) -> list[str]:
    """Split a label at each + that a kind on the memory follows: a + also joins patterns of boosted layers."""
    return re.split(rf"\+(?=(?:{_ON_MEMORY})(?:[:+]|$))", label)


def _parse_part(label: str, kinds: Mapping[str, Kind]) -> MemoryMitigation:
    found = parse_entry(label, kinds)
    if not isinstance(found, MemoryMitigation):
        raise FaultsimError(
            f"{label!r} cannot be joined by +: mitigations on the memory can, of boosted layers with patterns and a "
            "voltage, boosted:PATTERN@VOLTAGE"
        )
    return found


def as_entry(given: MemoryMitigation | Entry | Variant) -> Entry:
    """Return an entry as it is, that of a mitigation on the memory, or that of a variant."""
    if isinstance(given, MemoryMitigation):
        return protect_memory(given)
    if isinstance(given, Variant):
        return lambda setting: given
    return given


def _rename(given: MemoryMitigation | Entry, name: str) -> Entry:
    entry = as_entry(given)
    return lambda setting: replace(entry(setting), name=name)


def _import_entry(label: str) -> MemoryMitigation | Entry:
    found = import_object(label, "mitigation")
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # the user's class may fail in any way
            name = label.partition(":")[2]
            raise FaultsimError(
                f"mitigation {label!r}: {name}() failed ({type(error).__name__}: {error}); it has to work without "
                "arguments"
            ) from error
    if isinstance(found, MemoryMitigation):
        return found
    if isinstance(found, Variant) or callable(found):
        return as_entry(found)
    raise FaultsimError(
        f"mitigation {label!r} is of type {type(found).__name__}; give a MemoryMitigation, a Variant, or a function "
        "that takes a Setting and returns a Variant"
    )
