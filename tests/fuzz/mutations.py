"""Damage and malice, drawn at random: what becomes of a valid file's bytes."""

import gzip
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    b"0", b"-1", b"1", b"2", b"1e999", b"-1e999", b"1e308", b"1e-308", b"5e-324", b"NaN", b"nan", b"inf", b"-inf",
    b"Infinity",
    b"true", b"null", b"[]", b"{}", b'"x"', b"0x7fffffff", b"0x" + b"f" * 900, b"2147483647", b"2147483648",
    b"4294967295", b"9223372036854775807", b"9223372036854775808", b"99999999999999999999", b"1000000000000",
    b"9" * 400, b"9" * 5000, b"0." + b"1" * 5000, b"1_0", b"\xd9\xa1", b"0" * 4000 + b"1", b"1e4300", b"0.5",
)  # fmt: skip
TEXTS = (
    b",",
    b"\n",
    b"\r",
    b'"',
    b"\\",
    b"\x00",
    b"\xff",
    b"#",
    b":",
    b"[",
    b"{",
    b"\xe2\x80\xa8",
    b" ",
    b";",
    b"\x1b[2J",
)
NESTED = (
    b"[" * 100_000,
    b"[" * 40 + b"]" * 40,
    b'{"a":' * 3000,
    b"]" * 2000,
    b"]q\x00" * 30_000,
    b"(" * 50_000,
)
_NUMBER = re.compile(rb"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 50))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    begin, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return rng.choice((content[:begin], content[begin:end], content[:begin] + content[end:]))


def repeat(content: bytes, rng: random.Random) -> bytes:
    begin, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    times = min(rng.choice((2, 3, 100, 10_000)), 1 + (1 << 20) // max(1, end - begin))
    return content[:begin] + content[begin:end] * times + content[end:]


def insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice((*TEXTS, rng.randbytes(rng.choice((1, 8, 300))))) + content[at:]


def nest(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(NESTED) + content[at:]


def replace_number(content: bytes, rng: random.Random) -> bytes:
    found = list(_NUMBER.finditer(content[: 1 << 16]))
    if not found:
        return flip_bits(content, rng)
    at = rng.choice(found)
    return content[: at.start()] + rng.choice(NUMBERS) + content[at.end() :]


def set_word(content: bytes, rng: random.Random) -> bytes:
    """A length or an offset becomes another."""
    form = rng.choice(("<I", "<Q", ">I", "<H"))
    size = struct.calcsize(form)
    if len(content) < size:
        return content
    at = rng.randrange(min(len(content) - size + 1, 4096))
    value = rng.choice(
        (0, 1, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, rng.getrandbits(64))
    )
    return content[:at] + struct.pack(form, value % (1 << 8 * size)) + content[at + size :]


def swap_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    if rng.random() < 0.3:
        del lines[a]
    return b"\n".join(lines)


ANY: tuple[Mutation, ...] = (flip_bits, cut, repeat, insert, nest, replace_number, set_word, swap_lines)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One mutation, sometimes several."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(ANY)(content, rng)
    return content[: 8 << 20]


ODD = (
    None,
    True,
    False,
    [],
    {},
    "x",
    "",
    "\ud800",
    0,
    -1,
    1,
    2**31,
    2**63,
    10**80,
    0.5,
    -0.5,
    1e300,
    [[]],
    [None],
    {"a": {}},
)


def inside_json(content: bytes, rng: random.Random) -> bytes:
    """A value anywhere in a JSON text, or in one of its lines, becomes an odd one, or is left out."""
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        return mutate(content, rng)
    places: list[tuple[dict | list, str | int]] = []

    def walk(node: object) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places or rng.random() < 0.05:
        value = rng.choice(ODD)
    else:
        for _ in range(rng.choice((1, 1, 2))):
            node, key = rng.choice(places)
            if isinstance(node, dict) and rng.random() < 0.2:
                node.pop(key, None)
            else:
                node[key] = rng.choice((*ODD, [node.get(key)] if isinstance(node, dict) else 7))
    lines[at] = json.dumps(value).encode()
    return b"\n".join(lines)


# -- inside of containers --------------------------------------------------------------------------------------------


def inside_zip(content: bytes, rng: random.Random) -> bytes:
    """An entry changed, and the archive whole again: its sums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = rng.choice(list(entries))
    match rng.randrange(5):
        case 0:
            del entries[name]
        case 1:
            entries[name + rng.choice(("x", "/", ".npy", "\u00e9"))] = entries[name]
        case _:
            entries[name] = mutate(entries[name], rng)
    made = io.BytesIO()
    ways = (
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_STORED,
        zipfile.ZIP_LZMA,
        zipfile.ZIP_BZIP2,
    )
    with zipfile.ZipFile(made, "w", rng.choice(ways)) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    return made.getvalue()


def flip_in_other_ways(content: bytes, rng: random.Random) -> bytes:
    """The archive compressed in a way that NumPy never writes, with bits flipped."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice((zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    return flip_bits(made.getvalue(), rng)


PAX = (
    b"30 GNU.sparse.map=1,2,3,x,5,66\n", b"99999999999999999999 size=1\n", b"9" * 5000 + b" size=1\n",
    b"12 size=-99\n", b"24 GNU.sparse.size=1e999\n", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
    b"20 path=../../../etc\n", b"11 mtime=x\n", b"0 a=b\n", b"-5 a=b\n", b"27 size=9223372036854775807\n",
    b"9 uid=-x\n",
)  # fmt: skip


def inside_tar(content: bytes, rng: random.Random) -> bytes:
    """The tar archive changed, its headers' sums right, and compressed again."""
    plain = bytearray(gzip.decompress(content))
    heads = [at for at in range(0, len(plain), 512) if plain[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(heads)
    match rng.randrange(4):
        case 0:
            records = b"".join(rng.choice(PAX) for _ in range(rng.choice((1, 2, 5))))
            records = records[: rng.choice((len(records), 40))]
            head = bytearray(plain[at : at + 512])
            head[124:136] = b"%011o\x00" % rng.choice((len(records), len(records), 0o7777777777))
            head[156:157] = rng.choice((b"x", b"g", b"L", b"K", b"S", b"X"))
            plain[at:at] = summed(head) + records + bytes(-len(records) % 512)
        case 1:
            head = bytearray(plain[at : at + 512])
            head[124:136] = rng.choice(
                (b"7" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"x" * 12, bytes(12))
            )
            plain[at : at + 512] = summed(head)
        case 2:
            head = bytearray(plain[at : at + 512])
            head[rng.randrange(512)] = rng.randrange(256)
            plain[at : at + 512] = summed(head)
        case _:
            plain = bytearray(mutate(bytes(plain), rng))
    return gzip.compress(bytes(plain), 1)


def summed(head: bytearray) -> bytes:
    """A tar header with the sum that it ought to have."""
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\x00 " % sum(head)
    return bytes(head)


METADATA = (
    "[" * 100_000, "{", "[]", "7", '{"num_classes": true}', '{"num_classes": 1000000000000}', '{"generator": []}',
    '{"generator": {}}', '{"model": 7}', '{"facts": []}', '{"facts": {}}', '{"facts": {"curve": 7}}', '{"a": 1e999}',
    '{"a": ' + "9" * 5000 + "}", '{"format": NaN}', '{"format": [' + "[" * 90 + "]" * 90 + "]}",
)  # fmt: skip


def inside_safetensors(content: bytes, rng: random.Random) -> bytes:
    """The header changed, its length right; or numbers that are none in a tensor."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    tensors = [name for name in header if name != "__metadata__"]
    name = rng.choice(tensors)
    match rng.randrange(6):
        case 0:
            header["__metadata__"] = {"faultsim": rng.choice(METADATA)}
        case 1:
            told = header["__metadata__"]["faultsim"].encode()
            header["__metadata__"]["faultsim"] = rng.choice((mutate, inside_json))(told, rng).decode("latin1")
        case 2:
            other = rng.choice(
                (name + ".x", "optimizer.x.y", "optimizer.0", "optimizer." + "9" * 5000 + ".step", "a.b", "")
            )
            header[other] = header.pop(name)
        case 3:
            begin, end = header[name]["data_offsets"]
            if end - begin >= 4:
                at = begin + 4 * rng.randrange((end - begin) // 4)
                value = rng.choice((float("nan"), float("inf"), -float("inf"), 1e38, -1.0, 3e38, 0.0))
                data[at : at + 4] = struct.pack("<f", value)
        case 4:
            header[name]["shape"] = rng.choice(
                ([], [0], [-1], [2**62, 4], header[name]["shape"][::-1], [1, *header[name]["shape"]])
            )
        case _:
            header[name]["dtype"] = rng.choice(("F16", "BF16", "I8", "U8", "F64", "BOOL", "F8_E4M3", "X"))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)
