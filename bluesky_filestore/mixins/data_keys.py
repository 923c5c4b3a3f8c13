"""What each external array is called, and what is said of it before it is read."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .frame_format import FrameFormat

__all__ = ["AliasedKeys", "data_key_name", "describe_frames", "external_key"]


def data_key_name(image_name: str, attribute: str, writers: Sequence[str]) -> str:
    """The data key of one of several file plugins for the images that the detector calls `image_name`.

    Parameters
    ----------
    image_name : str
        What the detector's trigger mixin calls the images, e.g. ``"det_image"``.
    attribute : str
        The file plugin's attribute name on the detector, e.g. ``"tiff"``.
    writers : sequence of str
        The attribute names of all file plugins that write during this stage, in component order. The first keeps the
        plain key.

    Examples
    --------
    >>> data_key_name("det_image", "hdf5", ["hdf5", "tiff"])
    'det_image'
    >>> data_key_name("det_image", "tiff", ["hdf5", "tiff"])
    'det_image_tiff'
    """
    return f"{image_name}_{attribute}" if attribute in writers[1:] else image_name


def external_key(key: str, image_name: str | None, override: str) -> str:
    """The data key where the user has chosen a name.

    Of several keys of one detector (light, dark), only the images proper take the name itself.

    Examples
    --------
    >>> external_key("det_image", "det_image", "diffraction"), external_key("dark", None, "diffraction")
    ('diffraction', 'diffraction_dark')
    """
    return override if key in (image_name, override) else f"{override}_{key}"


def describe_frames(frames: FrameFormat, count: int, source: str) -> dict[str, Any]:
    """The data key of `count` frames a point, its shape and dtype those that are in the files.

    Examples
    --------
    >>> described = describe_frames(FrameFormat((512, 640), "uint8"), 5, "PV:13SIM1:")
    >>> described["shape"], described["dtype_numpy"]
    ([5, 512, 640], '|u1')
    """
    return {
        "shape": [count, *frames.shape],
        "source": source,
        "dtype": "array",
        "dtype_numpy": frames.dtype_str,
    }


class AliasedKeys(OrderedDict[str, Any]):
    """Data keys that are also found, and set, under the name that the detector has for its images.

    Subclasses in the wild write ``described[self.parent._image_name]``; a second file plugin's images are called
    otherwise, and must not take the name of the first's.

    Parameters
    ----------
    items : mapping
        The data keys, or their readings.
    aliases : mapping of str to str
        The true key by the other name; those names are not listed.

    Examples
    --------
    >>> keys = AliasedKeys({"det_image_tiff": {"shape": [1]}}, {"det_image": "det_image_tiff"})
    >>> keys["det_image"]["dtype_str"] = "|u1"
    >>> dict(keys)
    {'det_image_tiff': {'shape': [1], 'dtype_str': '|u1'}}
    """

    def __init__(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), aliases: Any = None) -> None:
        self._aliases = dict(aliases or {})
        super().__init__()
        for key, value in dict(items).items():
            self[key] = value

    def _true(self, key: Any) -> Any:
        return self._aliases.get(key, key)

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(self._true(key))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(self._true(key), value)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(self._true(key))

    def get(self, key: str, default: Any = None) -> Any:
        """The value under the key or its other name."""
        return super().get(self._true(key), default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value under the key or its other name, which is set if missing."""
        return super().setdefault(self._true(key), default)

    def pop(self, key: str, *default: Any) -> Any:
        """Take out what is under the key or its other name."""
        return super().pop(self._true(key), *default)
