"""The frames of a file store: what they are called, described as, counted against and announced by.

`_frame_count` and, with ``asset_docs="stream"``, `_streams` are there from the end of `stage` on, the count until
`unstage`, the stream's documents until the next `stage`, since they may be collected late. In a flight `_flight_start`
frames of the file belong to points before it, and `_flight_documented` of its own are announced. `_writers` are the
file plugins of the detector that write in this stage, `_will_write` whether this one does. The thread that runs the
plan touches these; a flyer's watch reads the count.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from event_model import ComposeStreamResourceBundle
from ophyd.areadetector.detectors import DetectorBase
from ophyd.device import Staged

from bluesky_filestore.errors import StageError
from bluesky_filestore.model.compose import compose_stream_resource

from .base import FileStoreBase, check_choice
from .data_keys import AliasedKeys, data_key_name, describe_frames, external_key
from .frames_written import ConfirmFrames, FrameCount
from .upstream import seen_format

__all__ = ["FileStoreWithFrames"]

AssetDocs = Literal["datum", "stream"]


class StreamDocuments:
    """What has been asked for and not been told yet, of one file or file series.

    An index stands for the frames of one point, counted from the beginning of the file over all data keys: so each
    index says exactly which frames are meant, whatever the keys are interleaved like.
    """

    def __init__(self, spec: str, path: str, parameters: Mapping[str, Any]) -> None:
        self._spec = spec
        self._path = path
        self._parameters = parameters
        self._bundles: dict[str, ComposeStreamResourceBundle] = {}
        self._pending: list[tuple[str, int, int]] = []
        self._next = 0
        self.keys: dict[str, None] = {}
        """The data keys there have been, in their order."""

    @property
    def pending(self) -> int:
        """How many ranges of indices have not been collected."""
        return len(self._pending)

    def add(self, key: str, count: int = 1) -> None:
        """The next `count` indices belong to `key`."""
        self.keys[key] = None
        self._pending.append((key, self._next, self._next + count))
        self._next += count

    def skip(self, count: int) -> None:
        """The first `count` indices of the file belong to nobody here."""
        self._next += count

    def renew(self) -> None:
        """Begin new StreamResources with the next documents: another run must be complete in itself."""
        self._bundles.clear()

    def collect(self) -> Iterator[tuple[str, Any]]:
        """Hand out what is pending, and first of all the StreamResource of each key."""
        pending, self._pending = self._pending, []
        for key, start, stop in pending:
            if key not in self._bundles:
                self._bundles[key] = compose_stream_resource(
                    spec=self._spec, path=self._path, data_key=key, parameters=self._parameters
                )
                # A copy: bluesky writes the run's uid into it.
                yield "stream_resource", dict(self._bundles[key].stream_resource_doc)
            yield "stream_datum", self._bundles[key].compose_stream_datum({"start": start, "stop": stop})


class FileStoreWithFrames(FileStoreBase):
    """A file store that knows what its frames are like, and counts them.

    Parameters
    ----------
    confirm_frames : {'point', 'unstage', 'never'}, optional
        When to count the written frames against the documented ones.
    asset_docs : {'datum', 'stream'}, optional
        Whether to tell of the frames by Resource and Datum or, as newer readers prefer, by StreamResource and
        StreamDatum.
    data_key : str, optional
        The data key of the images; by default the trigger mixin's image name, to which all file plugins of a detector
        but the first add their attribute name.
    **kwargs
        See `FileStoreBase`.
    """

    _counter: ClassVar[str] = "num_captured"
    """The record that counts the frames written."""

    stage_timeout: float
    _will_write = True

    def __init__(
        self,
        *args: Any,
        confirm_frames: str = "point",
        asset_docs: str = "datum",
        data_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._confirm_frames: ConfirmFrames = check_choice("confirm_frames", confirm_frames, ConfirmFrames)
        self._asset_docs: AssetDocs = check_choice("asset_docs", asset_docs, AssetDocs)
        self._data_key = data_key
        self._streams: StreamDocuments | None = None
        self._frame_count: FrameCount | None = None
        self._flight_start = 0
        self._flight_documented = 0
        self._writers: list[str] = []
        super().__init__(*args, **kwargs)

    def get_frames_per_point(self) -> int:
        """Frames of one trigger: the camera's ``num_images``. A hook for subclasses."""
        return int(self.parent.cam.num_images.get())

    def _data_key_of(self, key: str) -> str:
        if self._data_key is not None:
            return external_key(key, self._image_name, self._data_key)
        return data_key_name(key, getattr(self, "attr_name", ""), self._writers)

    @property
    def _image_name(self) -> str | None:
        return getattr(self.parent, "_image_name", None)

    def _generate_resource(self, resource_kwargs: dict[str, Any]) -> None:
        if self._asset_docs == "datum":
            super()._generate_resource(resource_kwargs)
            return
        if self._fn is None:
            raise StageError(f"{self.name} does not know its file yet; call _generate_resource after stage().")
        self._resource_kwargs = resource_kwargs
        parameters = {name: value for name, value in resource_kwargs.items() if name != "frame_per_point"}
        parameters["multiplier"] = resource_kwargs.get("frame_per_point", 1)
        frames = seen_format(self)
        if frames is not None:
            parameters["chunk_shape"] = (1, *frames.shape)
        self._resource_collected = False
        self._streams = StreamDocuments(self.filestore_spec, self._fn, parameters)

    @property
    def tells_streams(self) -> bool:
        """Whether it is staged, writes, and tells of its frames by StreamDatum."""
        return self._streams is not None and self._frame_count is not None

    def begin_flight(self) -> None:
        """From now on each frame is an event; see `FlyableFileStore`."""
        if self._streams is None or self._frame_count is None or self._resource_kwargs is None:
            raise StageError(f"{self.name} is not staged with asset_docs='stream', so it can't fly.")
        self._flight_start = self._frame_count.written()
        self._generate_resource({**self._resource_kwargs, "frame_per_point": 1})
        self._streams.skip(self._flight_start)
        self._flight_documented = 0

    def flown(self) -> int:
        """Frames written since `begin_flight`."""
        return 0 if self._frame_count is None else self._frame_count.written() - self._flight_start

    def document_flight(self, index: int) -> None:
        """Queue the documents of the flight's frames up to `index`."""
        if self._streams is None or self._frame_count is None or index <= self._flight_documented:
            return
        for key in self._predicted_keys():
            self._streams.add(key, index - self._flight_documented)
        self._frame_count.documented += index - self._flight_documented
        self._frame_count.counted = self._frame_count.documented
        self._flight_documented = index

    def describe_flight(self) -> dict[str, dict[str, Any]]:
        """The data key of one frame."""
        described = self._make_data_key()
        return {key: {**described, "shape": [1, *described["shape"][1:]]} for key in self._predicted_keys()}

    def _renew_resource(self, resource_kwargs: dict[str, Any]) -> None:
        if self._streams is None:
            super()._renew_resource(resource_kwargs)
        else:
            self._streams.renew()

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        """Hand out the documents made since the last time, each once, in order."""
        yield from super().collect_asset_docs()
        if self._streams is not None:
            self._resource_collected = True
            yield from self._handed_out.completed(self._streams.collect())

    def _known_keys(self) -> dict[str, None]:
        return super()._known_keys() | (self._streams.keys if self._streams is not None else {})

    def _uncollected(self) -> int:
        return super()._uncollected() + (self._streams.pending if self._streams is not None else 0)

    def _predicted_keys(self) -> tuple[str, ...]:
        if self._staged != Staged.yes or not self._will_write or self._image_name is None:
            return ()
        return (self._data_key_of(self._image_name),)

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any] | None) -> str | None:
        """Make a Datum under this plugin's own data key, if it writes at all; see `FileStoreBase.generate_datum`."""
        if not self._will_write:
            return None
        datum_id = None
        if self._streams is None:
            datum_id = super().generate_datum(self._data_key_of(key), timestamp, datum_kwargs)
        else:
            self._check_key(self._data_key_of(key))
            self._streams.add(self._data_key_of(key))
        frames = (self._resource_kwargs or {}).get("frame_per_point")
        if self._frame_count is not None and frames is not None:
            self._frame_count.documented += int(frames)
        return datum_id

    def _make_data_key(self) -> dict[str, Any]:
        """Shape and dtype from the plugin's own records; the detector's, if it tells none."""
        frames = seen_format(self)
        describes_itself = getattr(type(self.parent), "make_data_key", None) is not DetectorBase.make_data_key
        described = super()._make_data_key() if describes_itself or frames is None else {}
        # A shape that the beamline's own make_data_key chose stands; one that it took over from ophyd is a guess.
        own_shape = describes_itself and not self._is_stock_shape(described.get("shape"))
        if frames is not None and not own_shape:
            described |= describe_frames(frames, self.get_frames_per_point(), f"PV:{self.parent.prefix}")
        return described | {"external": "FILESTORE:" if self._streams is None else "STREAM:"}

    def _is_stock_shape(self, shape: Any) -> bool:
        if shape is None:
            return True
        try:
            stock_shape = DetectorBase.make_data_key(self.parent)["shape"]
        except AttributeError:
            # The detector lacks what ophyd's asks for: then nobody has taken over its answer.
            return False
        return list(shape) == list(stock_shape)

    def _with_image_name(self, items: "OrderedDict[str, Any]") -> "OrderedDict[str, Any]":
        image_name = self._image_name
        if image_name is None or image_name in items or self._data_key_of(image_name) not in items:
            return items
        return AliasedKeys(items, {image_name: self._data_key_of(image_name)})

    def describe(self) -> "OrderedDict[str, dict[str, Any]]":
        """The data keys; those of the images are found under the detector's name for them, too."""
        return self._with_image_name(super().describe())

    def read(self) -> "OrderedDict[str, dict[str, Any]]":
        """The readings; with ``confirm_frames="point"``, once all frames are written.

        Raises
        ------
        MissingFramesError, ExtraFramesError
            If the plugin has written fewer or more frames than the documents promise.
        """
        if self._confirm_frames == "point":
            self._confirm()
        return self._with_image_name(super().read())

    def _count_at_unstage(self) -> list[Exception]:
        """With ``confirm_frames="unstage"`` what is wrong with the frames, before the plugin ends its capture."""
        return _error_of(self._confirm) if self._confirm_frames == "unstage" else []

    def _confirm(self) -> None:
        """Wait until the frames that are documented are written, and look at the files of those that have their own."""
        if self._frame_count is not None:
            self._frame_count.confirm(self.stage_timeout)
            self._check_single_files(self._frame_count)

    def _check_closed_file(self) -> list[Exception]:
        """What is wrong with the frames in the one file, after the plugin has closed it."""
        count = self._frame_count
        if count is None or self._confirm_frames == "never":
            return []
        return _error_of(lambda: self._check_stream_file(count))

    def _check_single_files(self, count: FrameCount) -> None:
        """Look at each file of its own that has been documented; for subclasses that write such."""

    def _check_stream_file(self, count: FrameCount) -> None:
        """Look into the file that holds all frames; for subclasses that write one."""


def _error_of(check: Callable[[], None]) -> list[Exception]:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - it is raised when everything has been put back
        return [error]
    return []
