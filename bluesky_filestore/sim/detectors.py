"""Ready-made detectors for the simulated IOC."""

import os
from pathlib import PurePath
from typing import Any

from ophyd import Component, EpicsSignal
from ophyd.areadetector.cam import SimDetectorCam
from ophyd.areadetector.detectors import SimDetector
from ophyd.areadetector.plugins import HDF5Plugin_V34, TIFFPlugin_V34

from bluesky_filestore.errors import IOCUnreachableError
from bluesky_filestore.mixins import FileStoreHDF5IterativeWrite, FileStoreTIFFIterativeWrite, SingleTrigger
from bluesky_filestore.mixins.base import FileStoreBase

__all__ = ["HDF5FilePlugin", "SimDetectorHDF5", "SimDetectorTIFF", "TIFFFilePlugin"]

_ACQUIRE_TIME = 0.005
"""Seconds; short, so that demonstrations and tests are."""


class _Cam(SimDetectorCam):
    """The camera with the record that lets an acquisition wait for the plugins' queues."""

    wait_for_plugins = Component(EpicsSignal, "WaitForPlugins", string=True, kind="config")


class _OptionsOfDetector(FileStoreBase):
    """A file store that is told by its detector where to write, since components are made with the class."""

    def __init__(self, *args: Any, parent: Any, **kwargs: Any) -> None:
        super().__init__(*args, parent=parent, **{**kwargs, **parent.file_store_options})


class HDF5FilePlugin(HDF5Plugin_V34, _OptionsOfDetector, FileStoreHDF5IterativeWrite):
    """The HDF5 plugin with a file store."""


class TIFFFilePlugin(TIFFPlugin_V34, _OptionsOfDetector, FileStoreTIFFIterativeWrite):
    """The TIFF plugin with a file store."""


class _SimDetector(SingleTrigger, SimDetector):
    """A simulated camera that takes a few frames a trigger, with a file plugin.

    Parameters
    ----------
    prefix : str
        What the records begin with.
    name : str
        The detector's name; its images are ``<name>_image``.
    write_path_template, root : str
        Where the files go; see `bluesky_filestore.FileStoreBase`.
    num_images : int, optional
        Frames a trigger; later ``detector.cam.stage_sigs["num_images"]``.
    image_name : str, optional
        Another name for the images.
    **file_store_options
        Whatever else the file store takes: ``prime=``, ``confirm_frames=``, ``stage_timeout=`` ...

    Raises
    ------
    PathError
        If the root is not absolute, or the template not under it.
    IOCUnreachableError
        If no IOC answers.
    """

    cam = Component(_Cam, "cam1:")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        write_path_template: str,
        root: str | PurePath = "/",
        num_images: int = 1,
        image_name: str | None = None,
        **file_store_options: Any,
    ) -> None:
        self.file_store_options = {"write_path_template": write_path_template, "root": root, **file_store_options}
        try:
            super().__init__(prefix, name=name, image_name=image_name)
        except TimeoutError as error:
            raise IOCUnreachableError(
                f"no IOC answers for {prefix!r} ({error}); expected one that serves {prefix}cam1:Acquire. Start one "
                f"with 'bluesky-filestore sim' or SimulatedIOC, and set the EPICS_CA_... variables that it prints; "
                f"now EPICS_CA_ADDR_LIST is {os.environ.get('EPICS_CA_ADDR_LIST')!r}."
            ) from error
        for plugin in (getattr(self, attribute) for attribute in self.component_names):
            if isinstance(plugin, FileStoreBase):
                # A beginner's mistake is better told here than at the first stage.
                _ = plugin.read_path_template, plugin.write_path_template
        self.cam.stage_sigs.update(
            [
                ("num_images", num_images),
                ("acquire_time", _ACQUIRE_TIME),
                ("acquire_period", _ACQUIRE_TIME),
                ("wait_for_plugins", "Yes"),
            ]
        )


class SimDetectorHDF5(_SimDetector):
    """A simulated camera whose frames go into one HDF5 file a stage."""

    _default_read_attrs = ("hdf5",)

    hdf5 = Component(HDF5FilePlugin, "HDF1:")


class SimDetectorTIFF(_SimDetector):
    """A simulated camera each of whose frames goes into a TIFF file."""

    _default_read_attrs = ("tiff",)

    tiff = Component(TIFFFilePlugin, "TIFF1:")
