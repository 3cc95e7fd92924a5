"""Are the draws the published ones, and the same as ever? The vectors in tests/vectors decide."""

import hashlib

import numpy as np
import torch

from faultsim.formats import Format
from faultsim.kernel import ops, reference
from faultsim.kernel.native import native
from tests.core import format_reads

KINDS = {"flip": (0, 0), "stuck": (1, 2**33), "transient": (2, 2**32)}


def test_philox_gives_the_published_vectors(vectors):
    rows = vectors("philox4x32.txt")
    assert len(rows) == 3
    for row in rows:
        words = [int(word, 16) for word in row]
        counter, key, expected = words[:4], words[4] | words[5] << 32, words[6:]
        assert native().philox4x32(key, counter) == expected
        assert reference.philox4x32(key, np.array(counter, np.uint32)).tolist() == expected


def _fault_sets(vectors):
    for seed, offset, p, kind, ones, access, *place, weights, failing, bits, digest in vectors(
        "fault_sets.txt"
    ):
        place = dict(zip(("base", "blocks", "word", "repeat"), map(int, place), strict=True))
        answer = [failing, bits, digest]
        yield int(seed), int(offset), float(p), kind, float(ones), int(access), place, int(weights), answer


def _answer(failing: np.ndarray, states: np.ndarray) -> list[str]:
    bits = np.flatnonzero(np.unpackbits(failing, bitorder="little"))
    digest = hashlib.sha256(failing.tobytes() + states.tobytes()).hexdigest()
    return [str(bits.size), ",".join(str(bit) for bit in bits[:5]), digest]


def test_reference_draws_the_recorded_fault_sets(vectors):
    seen = 0
    for seed, offset, p, kind, ones, access, place, weights, answer in _fault_sets(vectors):
        assert _answer(*reference.fault_mask(weights, seed, p, kind, ones, access, offset, **place)) == answer
        seen += 1
    assert seen >= 15


def test_kernels_draw_the_recorded_fault_sets(vectors, engine):
    for seed, offset, p, kind, ones, access, place, weights, answer in _fault_sets(vectors):
        code, one = KINDS[kind]
        failing, states = torch.ops.faultsim.fault_mask(
            torch.zeros(weights, dtype=torch.int8, device=engine.device),
            ops.encode_chips([seed], engine.device),
            ops.encode_rate(p, engine.device),
            [code, round(ones * one)],
            list(place.values()),
            torch.tensor([offset], device=engine.device),
            torch.tensor([access], device=engine.device),
        )
        assert _answer(failing[0].cpu().numpy(), states[0].cpu().numpy()) == answer


def test_reference_decodes_the_recorded_reads(vectors):
    rows = vectors("format_reads.txt")
    assert [name for name, *_ in rows] == [stored.name for stored in format_reads.list_formats()]
    for name, *expected in rows:
        assert format_reads.answer_by_reference(Format.parse(name)) == expected, name


def test_kernels_decode_the_recorded_reads(vectors, engine):
    for name, *expected in vectors("format_reads.txt"):
        stored, read = Format.parse(name), {}
        image = format_reads.make_image(stored)
        scale, center = format_reads.encode_grid(stored)
        for output in format_reads.OUTPUTS:
            numbers = torch.ops.faultsim.corrupt_decode(
                torch.from_numpy(image).to(engine.device),
                name,
                [format_reads.WEIGHTS],
                getattr(torch, output),
                torch.from_numpy(scale).to(engine.device),
                None if center is None else torch.from_numpy(center).to(engine.device),
                -1,
                ops.encode_chips([format_reads.SEED], engine.device),
                ops.encode_rate(format_reads.RATE, engine.device),
                [0, 0],
                [0, 0, 16, 1],
            )
            read[output] = numbers[0].cpu().view(torch.uint8).numpy().view(format_reads.BITS[output])
        clean = format_reads.decode(stored, image, "float32")
        assert format_reads.answer(clean, read) == expected, name
