"""The file stores that a beamline builds its plugins from: one HDF5 file for all frames, or a file for each frame."""

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bluesky_filestore.errors import StageError

from .base import FileStoreBase
from .causes import bytes_of_frame
from .data_keys import data_key_name
from .file_records import fill_template
from .frames_written import FrameCount
from .ndattributes import AttributeStore, find_attributes, texts_of_attributes, wanted_attributes
from .plugin import FileStorePluginBase
from .priming import prime
from .waiting import TimedSetting, optional
from .written_files import broken_file

__all__ = [
    "FileStoreHDF5",
    "FileStoreHDF5IterativeWrite",
    "FileStoreHDF5Single",
    "FileStoreHDF5SingleIterativeWrite",
    "FileStoreIterativeWrite",
    "FileStoreTIFF",
    "FileStoreTIFFIterativeWrite",
    "FileStoreTIFFSquashing",
]

_DEFAULT_LAYOUT = ("AD_HDF5", "AD_HDF5_SWMR", "AD_HDF5_TS", "AD_HDF5_SWMR_TS")
"""The specs whose readers look where the default layout puts the frames; who has his own knows his file."""


class FileStoreHDF5(FileStorePluginBase):
    """All frames between stage and unstage go into one HDF5 file (``FileWriteMode`` Stream).

    ``num_capture`` 0 captures whatever arrives; any other number ends the capture after that many frames.
    See `FileStorePluginBase` for the other parameters.

    Parameters
    ----------
    swmr : bool, optional
        Write in HDF5's SWMR mode, so that the file can be read while it grows: ``SWMRMode`` On, and each frame flushed
        (``NumFramesChunks`` and ``NumFramesFlush`` 1; the latter stays so, as the IOC does not take its 0 back). The
        spec is AD_HDF5_SWMR then.
    attributes : sequence of str or mapping of str to str, optional
        NDAttributes that become data keys beside the images, a value a frame: ``["temperature"]`` is
        ``det_temperature`` of a detector ``det``. The camera or a plugin up to this one has to send each
        (``NDAttributesFile``), but for NDArrayUniqueId, NDArrayTimeStamp, NDArrayEpicsTSSec, NDArrayEpicsTSnSec and
        ColorMode, which are always there. A mapping says their types, where the XML is out of reach or says none:
        ``{"temperature": "f8"}``.
    """

    filestore_spec = "AD_HDF5"

    def __init__(
        self, *args: Any, swmr: bool = False, attributes: Sequence[str] | Mapping[str, str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._swmr = swmr
        self._wanted_attributes = wanted_attributes(attributes)
        self._attributes = [AttributeStore(name, self._asset_docs) for name in self._wanted_attributes]
        self._attributes_seen: dict[str, str] = {}
        if swmr:
            self.filestore_spec = "AD_HDF5_SWMR"
            self.stage_sigs.update([("swmr_mode", "On")])
        self.stage_sigs.update(
            [("file_template", "%s%s_%6.6d.h5"), ("file_write_mode", "Stream"), ("capture", 1)],
        )

    def get_frames_per_point(self) -> int:
        """Frames of one trigger: ``num_capture``, or the camera's ``num_images`` if that is 0."""
        return int(self.num_capture.get()) or super().get_frames_per_point()

    def _set_first(self, sigs: "OrderedDict[Any, Any]") -> None:
        super()._set_first(sigs)
        if not self._swmr:
            return
        # Not below the chunks, which go first. It is not in stage_sigs: the IOC does not take its old value back.
        for name in ("num_frames_chunks", "num_frames_flush"):
            signal = optional(self, name)
            if signal is not None and int(signal.get()) != 1:
                TimedSetting(signal, self, self.stage_timeout).set(1).wait()

    def _resolved_stage_sigs(self) -> "OrderedDict[Any, Any]":
        if self._swmr and optional(self, "swmr_mode") is None:
            raise StageError(
                f"{self.name} was made with swmr=True, but it has no record SWMRMode; expected a class of a newer "
                f"areaDetector such as HDF5Plugin_V34, or swmr=False."
            )
        return super()._resolved_stage_sigs()

    def stage(self) -> list[object]:
        """Stage, open the file, and make its Resource."""
        staged = super().stage()
        if self._will_write:
            self._generate_resource({"frame_per_point": self.get_frames_per_point()})
            found = find_attributes(self, self._wanted_attributes)
            for store in self._attributes:
                store.begin(self, self._attribute_key(store.attribute), found[store.attribute], swmr=self._swmr)
        return staged

    def unstage(self) -> list[object]:
        """Unstage; see `FileStorePluginBase.unstage`."""
        for store in self._attributes:
            store.end()
        return super().unstage()

    def _check_stream_file(self, count: FrameCount) -> None:
        if self._fn is not None and self.filestore_spec in _DEFAULT_LAYOUT:
            count.check_stream_file(Path(self._fn), [store.known.dataset for store in self._attributes])

    # -- attributes ----------------------------------------------------------------------------------------------------

    def _attribute_key(self, name: str) -> str:
        if self._data_key is not None:
            return f"{self._data_key}_{name}"
        return data_key_name(f"{self.parent.name}_{name}", getattr(self, "attr_name", ""), self._writers)

    def _prepare_to_stage(self) -> None:
        super()._prepare_to_stage()
        if self._will_write and self._attributes:
            # Whatever is wrong with them shows before anything is set.
            find_attributes(self, self._wanted_attributes)

    def _ensure_primed(self) -> None:
        super()._ensure_primed()
        told = texts_of_attributes(self) if self._attributes else {}
        texts = {pv: text for pv, text in told.items() if text}
        if texts != self._attributes_seen and self._prime == "auto" and self._opens_at_stage():
            # A file that is opened at stage has the attributes of the last frame that the plugin saw.
            sigs = self._resolved_stage_sigs()
            ports = [(sig, value) for sig, value in sigs.items() if getattr(sig, "attr_name", "") == "nd_array_port"]
            prime(self, ports, self.stage_timeout)
        self._attributes_seen = texts

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any] | None) -> str | None:
        """Make a Datum, and one of each attribute with the same arguments; see `FileStoreBase.generate_datum`."""
        made = super().generate_datum(key, timestamp, datum_kwargs)
        if self._will_write:
            queued = (doc for name, doc in reversed(self._asset_docs_cache) if name == "datum")
            numbered = next((doc["datum_kwargs"] for doc in queued if doc["datum_id"] == made), datum_kwargs)
            for store in self._attributes:
                store.generate_datum(str(store._data_key), timestamp, numbered)
        return made

    def describe(self) -> "OrderedDict[str, dict[str, Any]]":
        """The data keys, those of the attributes after that of the images."""
        described = super().describe()
        for store in self._attributes:
            described.update(store.describe())
        return described

    def read(self) -> "OrderedDict[str, dict[str, Any]]":
        """The readings; see `FileStorePluginBase.read`."""
        readings = super().read()
        for store in self._attributes:
            readings.update(store.read())
        return readings

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        """Hand out the documents made since the last time, those of the frames first."""
        yield from super().collect_asset_docs()
        for store in self._attributes:
            yield from store.collect_asset_docs()

    def begin_flight(self) -> None:
        """From now on each frame is an event; see `FlyableFileStore`."""
        super().begin_flight()
        for store in self._attributes:
            store.begin_flight_after(self._flight_start)

    def document_flight(self, index: int) -> None:
        """Queue the documents of the flight's frames up to `index`."""
        new = index - self._flight_documented
        super().document_flight(index)
        for store in self._attributes:
            store.document_frames(new)

    def describe_flight(self) -> dict[str, dict[str, Any]]:
        """The data keys of one frame."""
        described = super().describe_flight()
        for store in self._attributes:
            described.update(store.describe())
        return described


class FileStoreSeries(FileStorePluginBase):
    """Base of the mixins that write each frame to a file of its own (``FileWriteMode`` Single)."""

    _counter = "file_number"
    _is_hdf5: ClassVar[bool] = False
    """Whether its files are HDF5, perhaps compressed, so that their size tells little."""
    _template: ClassVar[str] = "%s%s_%6.6d"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage_sigs.update([("file_template", self._template), ("file_write_mode", "Single")])

    def stage(self) -> list[object]:
        """Stage, and make the Resource of the directory and of the template of its files."""
        staged = super().stage()
        if self._will_write:
            self._fn = self._fp
            self._generate_resource(
                {
                    "template": self.file_template.get(),
                    "filename": self.file_name.get(),
                    "frame_per_point": self.get_frames_per_point(),
                }
            )
        return staged

    def _check_single_files(self, count: FrameCount) -> None:
        kwargs, directory = self._resource_kwargs or {}, self._fp
        if directory is None or not {"template", "filename"} <= set(kwargs):
            return

        def path_of(number: int) -> Path:
            values = (directory, kwargs["filename"], number)
            return Path(fill_template(kwargs["template"], values))

        # A TIFF of areaDetector's is never packed.
        least = bytes_of_frame(self) if self.filestore_spec == "AD_TIFF" else 0
        count.check_files(path_of, partial(broken_file, least_bytes=least, is_hdf5=self._is_hdf5))


class FileStoreHDF5Single(FileStoreSeries):
    """Each frame goes into an HDF5 file of its own (``FileWriteMode`` Single).

    One frame a file does not mean that ``num_images`` is ignored. See `FileStorePluginBase` for the parameters.
    """

    filestore_spec = "AD_HDF5_SINGLE"
    _is_hdf5 = True
    _template = "%s%s_%6.6d.h5"


class FileStoreTIFF(FileStoreSeries):
    """Each frame goes into a TIFF file of its own (``FileWriteMode`` Single).

    One frame a file does not mean that ``num_images`` is ignored. See `FileStorePluginBase` for the parameters.
    """

    filestore_spec = "AD_TIFF"
    _template = "%s%s_%6.6d.tiff"


class FileStoreTIFFSquashing(FileStoreTIFF):
    """Each TIFF file is the average of several frames, which the detector's process plugin makes.

    A trigger takes ``images_per_set * number_of_sets`` frames and leaves ``number_of_sets`` files. This mixin sets up
    the camera and the process plugin, too. See `FileStorePluginBase` for the other parameters.

    Parameters
    ----------
    images_per_set_name, number_of_sets_name : str, optional
        Names of the signals on the detector that hold the two numbers.
    cam_name, proc_name : str, optional
        Names of the camera and of the process plugin on the detector.
    """

    def __init__(
        self,
        *args: Any,
        images_per_set_name: str = "images_per_set",
        number_of_sets_name: str = "number_of_sets",
        cam_name: str = "cam",
        proc_name: str = "proc1",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._ips_name = images_per_set_name
        self._num_sets_name = number_of_sets_name
        self._cam_name = cam_name
        self._proc_name = proc_name
        cam, proc = getattr(self.parent, cam_name), getattr(self.parent, proc_name)
        self.stage_sigs.update(
            [
                (proc.nd_array_port, cam.port_name.get()),
                (proc.reset_filter, 1),
                (proc.enable_filter, 1),
                (proc.filter_type, "Average"),
                (proc.auto_reset_filter, 1),
                (proc.filter_callbacks, 1),
                ("nd_array_port", proc.port_name.get()),
            ]
        )

    def get_frames_per_point(self) -> int:
        """Files of one trigger: the number of sets."""
        return int(getattr(self.parent, self._num_sets_name).get())

    def stage(self) -> list[object]:
        """Stage, with the camera and the process plugin set to the two numbers."""
        cam, proc = getattr(self.parent, self._cam_name), getattr(self.parent, self._proc_name)
        images_per_set = int(getattr(self.parent, self._ips_name).get())
        self.stage_sigs.update(
            [(proc.num_filter, images_per_set), (cam.num_images, images_per_set * self.get_frames_per_point())]
        )
        return super().stage()


class FileStoreIterativeWrite(FileStoreBase):
    """Adds ``point_number``, counting from 0 at each stage, to the ``datum_kwargs``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._point_counter: Iterator[int] | None = None

    def stage(self) -> list[object]:
        """Stage, and begin to count."""
        staged = super().stage()
        self._point_counter = itertools.count()
        return staged

    def unstage(self) -> list[object]:
        """Unstage, and count no more."""
        self._point_counter = None
        return super().unstage()

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any] | None) -> str | None:
        """Make a Datum with the next point's number; see `FileStoreBase.generate_datum`."""
        if self._point_counter is None:
            raise StageError(f"{self} is not staged, so there is no point to count; stage it before it is triggered.")
        numbered = {**(datum_kwargs or {}), "point_number": next(self._point_counter)}
        return super().generate_datum(key, timestamp, numbered)


class FileStoreHDF5IterativeWrite(FileStoreHDF5, FileStoreIterativeWrite):
    """All frames of a stage in one HDF5 file, numbered by point."""


class FileStoreHDF5SingleIterativeWrite(FileStoreHDF5Single, FileStoreIterativeWrite):
    """Each frame in its own HDF5 file, numbered by point."""


class FileStoreTIFFIterativeWrite(FileStoreTIFF, FileStoreIterativeWrite):
    """Each frame in its own TIFF file, numbered by point."""
