"""What chunks unpack to: one that is another's, or cut short, is an error, and never what was in the memory before."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_filters import filters_of, unpacked_size

FILTERS = {
    "gzip": {"compression": "gzip"},
    "gzip and shuffle": {"compression": "gzip", "shuffle": True},
    "gzip and sums": {"compression": "gzip", "fletcher32": True},
    "shuffle": {"shuffle": True},
    "sums": {"fletcher32": True},
    "lzf": {"compression": "lzf"},
    "szip": {"compression": "szip"},
    "scale and offset": {"scaleoffset": 0},
    "lz4": dict(hdf5plugin.LZ4()),
    "bitshuffle": dict(hdf5plugin.Bitshuffle()),
    "bitshuffle alone": dict(hdf5plugin.Bitshuffle(cname="none")),
    "bitshuffle and zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "blosc": dict(hdf5plugin.Blosc()),
    "blosc2": dict(hdf5plugin.Blosc2()),
    "zstd": dict(hdf5plugin.Zstd()),
    "bzip2": dict(hdf5plugin.BZip2()),
}
_random = np.random.default_rng(0)
DATA = {
    "random": _random.integers(0, 60000, (2, 48, 32), "u2"),
    "few": _random.poisson(0.1, (1, 300, 200)).astype("u2"),
    "constant": np.full((1, 100, 300), 7, "i4"),
    "ramp": np.arange(30000, dtype=">i4").reshape(1, 100, 300),
    "tiny": np.arange(15, dtype="u1").reshape(1, 3, 5),
}


@pytest.mark.parametrize("name", FILTERS)
def test_sizes(tmp_path, name):
    """What a chunk unpacks to is told without HDF5, or not at all where HDF5 looks itself."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, data in DATA.items():
            dataset = file.create_dataset(key, data=data, chunks=data.shape, **FILTERS[name])
            mask, payload = dataset.id.read_direct_chunk((0, 0, 0))
            expected = None if name == "blosc2" else data.nbytes
            assert unpacked_size(filters_of(dataset), mask, payload) == expected, key


@pytest.mark.parametrize("rows", [24, 96])
@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("name", FILTERS)
def test_chunk_of_another_shape(tmp_path, name, tiles, rows):
    """A chunk that was packed for another shape is refused whatever is read of it, and the others are read."""
    frames = _random.integers(0, 60000, (3, 48 * tiles, 32), "u2")
    other = np.resize(frames[1], (1, rows, 32))
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        strange = file.create_dataset("other", data=other, chunks=other.shape, **FILTERS[name])
        mask, payload = strange.id.read_direct_chunk((0, 0, 0))
        dataset = file.create_dataset("d", data=frames, chunks=(1, 48, 32), **FILTERS[name])
        dataset.id.write_direct_chunk((1, 0, 0), payload, mask)
    with HDF5Files() as files:
        assert (files.read(path, "d", [0, 2]) == frames[[0, 2]]).all()
        for wanted in ([1], range(3), [2, 1]):
            for part in ((), (slice(0, 3), 5)):
                with pytest.raises(UnreadableFileError, match=r"a\.h5 (has no data for frames 1 |cannot be read)"):
                    files.read(path, "d", wanted, part)
        assert (files.read(path, "d", [2, 0], (7,)) == frames[[2, 0], 7]).all()


def test_damaged_chunk(tmp_path):
    """A chunk that is damaged, in the middle or in its checksum, is an error."""
    frames = _random.integers(0, 99, (3, 48, 32), "u2")
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", data=frames, chunks=(1, 48, 32), compression="gzip")
        for number, place in ((1, 300), (2, -1)):
            mask, payload = dataset.id.read_direct_chunk((number, 0, 0))
            damaged = bytearray(payload)
            damaged[place] ^= 0xFF
            dataset.id.write_direct_chunk((number, 0, 0), bytes(damaged), mask)
    with HDF5Files() as files:
        assert (files.read(path, "d", [0]) == frames[0]).all()
        for number in (1, 2):
            with pytest.raises(UnreadableFileError, match=r"a\.h5 (cannot be read: chunk|has no data for frames)"):
                files.read(path, "d", [number])
