"""Bytes changed where it hurts: in what says where the pixels are, with checksums made right again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

_WIDTHS = (1, 2, 4, 8)
_ODD = (0, 1, 2, 7, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@dataclass
class Original:
    """A good file."""

    data: bytes
    frames: list[list[tuple[int, int]]]
    """Where the pixels of each frame are, from byte to byte."""
    sums: list[tuple[int, int]] = field(default_factory=list)
    """The blocks that have a checksum of HDF5's behind them, from byte to byte."""
    fields: list[int] = field(default_factory=list)
    """Where something of interest begins: entries of directories, messages, addresses."""


@dataclass
class Changed:
    """A file that was changed."""

    data: bytearray
    touched: list[tuple[int, int]] = field(default_factory=list)
    """Which bytes of it are not as they were, as far as that is known."""

    def is_touched(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether bytes between some were changed, moved or cut off."""
        return any(begin < end_of and begin_of < end for begin, end in ranges for begin_of, end_of in self.touched)

    def put(self, at: int, new: bytes) -> None:
        """Change some bytes."""
        new = new[: max(0, len(self.data) - at)]
        self.data[at : at + len(new)] = new
        self.touched.append((at, at + len(new)))


def changed(rng: random.Random, original: Original, big: bool = False) -> Changed:
    """The file with one to four things changed."""
    result = Changed(bytearray(original.data))
    pixels = sorted(each for frame in original.frames for each in frame)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        _change(rng, result, original, pixels, ">" if big else "<")
    if original.sums and rng.random() < 0.8:
        for begin, end in original.sums:
            if end + 4 <= len(result.data) and result.is_touched([(begin, end)]):
                result.data[end : end + 4] = lookup3(bytes(result.data[begin:end])).to_bytes(4, "little")
    return result


def _change(rng: random.Random, result: Changed, original: Original, pixels: list[tuple[int, int]], order: str) -> None:
    size = len(result.data)
    if not size:
        return
    at = _place(rng, size, original, pixels)
    kind = rng.choices(("put", "swap", "resize"), (81, 12, 7))[0]
    if kind == "put":
        result.put(at, _put_there(rng, result, at, original, pixels, order))
    elif kind == "resize":
        _resize(rng, result, at)
    else:
        other, length = _place(rng, size, original, pixels), rng.choice((4, 8, 12))
        here, there = bytes(result.data[at : at + length]), bytes(result.data[other : other + length])
        if len(here) == len(there) and abs(at - other) >= length:
            result.put(at, there)
            result.put(other, here)


def _put_there(
    rng: random.Random, result: Changed, at: int, original: Original, pixels: list[tuple[int, int]], order: str
) -> bytes:
    """What is to be at a place."""
    size, width = len(result.data), rng.choice(_WIDTHS)
    match rng.choices(("bit", "byte", "number", "near", "copy", "zeros"), (20, 15, 25, 10, 8, 3))[0]:
        case "bit":
            return bytes([result.data[at] ^ 1 << rng.randrange(8)])
        case "byte":
            return bytes([rng.choice((0, 1, 2, 3, 127, 128, 255, rng.randrange(256)))])
        case "near":
            old = int.from_bytes(result.data[at : at + width], "big" if order == ">" else "little")
            return _packed(order, width, old + rng.choice((-256, -8, -1, 1, 8, 256, old)))
        case "copy":
            begin, length = _place(rng, size, original, pixels), rng.choice((4, 8, 12, 16, 40, 64))
            return bytes(result.data[begin : begin + length])
        case "zeros":
            return bytes(rng.choice((8, 32, 128)))
    known = rng.choice(original.fields or [0])
    return _packed(order, width, rng.choice((*_ODD, size, size - 1, size + 1, rng.randrange(size), known)))


def _resize(rng: random.Random, result: Changed, at: int) -> None:
    size = len(result.data)
    match rng.choice(("cut", "cut", "cut", "cut", "more", "shift", "shift")):
        case "cut":
            cut = rng.choice((at, size - 1, rng.randrange(size)))
            result.touched.append((cut, 2**62))
            del result.data[cut:]
        case "more":
            result.data += bytes(rng.choice((1, 100, 5000)))
        case "shift":
            result.touched.append((at, 2**62))
            if rng.random() < 0.5:
                del result.data[at : at + rng.choice((1, 4, 12))]
            else:
                result.data[at:at] = rng.randbytes(rng.choice((1, 4, 12)))


def _place(rng: random.Random, size: int, original: Original, pixels: list[tuple[int, int]]) -> int:
    """Where to change something: mostly not among the pixels."""
    if original.fields and rng.random() < 0.4:
        return min(size - 1, rng.choice(original.fields) + rng.choice((0, 0, 0, 1, 2, 4, 8)))
    for _ in range(20):
        at = rng.randrange(size)
        if not any(begin <= at < end for begin, end in pixels):
            return at
    return rng.randrange(size)


def _packed(order: str, width: int, number: int) -> bytes:
    return (number % 256**width).to_bytes(width, "big" if order == ">" else "little")


def checksummed(data: bytes) -> list[tuple[int, int]]:
    """The blocks of an HDF5 file that have their checksum behind them, found by it."""
    found = []
    names = (b"\x89HDF", b"OHDR", b"OCHK", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB", b"BTHD", b"BTLF")
    for name in (*names, b"BTIN", b"FRHP", b"FHDB", b"FHIB", b"FSHD", b"FSSE", b"SMTB"):
        begin = data.find(name)
        while begin >= 0:
            for end in range(begin + 8, min(len(data) - 4, begin + 1400) + 1):
                if lookup3(data[begin:end]) == int.from_bytes(data[end : end + 4], "little"):
                    found.append((begin, end))
                    break
            begin = data.find(name, begin + 1)
    return sorted(found)


def lookup3(data: bytes) -> int:
    """The checksum of HDF5's metadata, by the one that is taken of it when it is read."""
    from bluesky_filestore.files import hdf5_sound

    return hdf5_sound._lookup3(data)
