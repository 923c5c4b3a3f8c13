"""The ophyd side: mixins that let areaDetector's file plugins write files and describe them in documents."""

from ophyd.areadetector.filestore_mixins import new_short_uid, new_uid, resource_factory
from ophyd.areadetector.trigger_mixins import (
    ADTriggerStatus,
    ContinuousAcquisitionTrigger,
    MultiTrigger,
    TriggerBase,
)

from .base import FileStoreBase
from .flying import FlyableFileStore
from .hdf5 import FileStoreHDF5, FileStoreHDF5Single
from .iterative import (
    FileStoreHDF5IterativeWrite,
    FileStoreHDF5SingleIterativeWrite,
    FileStoreIterativeWrite,
    FileStoreTIFFIterativeWrite,
)
from .path_providers import PathInfo, PathProvider
from .plugin import FileStorePluginBase
from .single_trigger import SingleTrigger
from .tiff import FileStoreTIFF, FileStoreTIFFSquashing

__all__ = [
    "ADTriggerStatus",
    "ContinuousAcquisitionTrigger",
    "FileStoreBase",
    "FileStoreHDF5",
    "FileStoreHDF5IterativeWrite",
    "FileStoreHDF5Single",
    "FileStoreHDF5SingleIterativeWrite",
    "FileStoreIterativeWrite",
    "FileStorePluginBase",
    "FileStoreTIFF",
    "FileStoreTIFFIterativeWrite",
    "FileStoreTIFFSquashing",
    "FlyableFileStore",
    "MultiTrigger",
    "PathInfo",
    "PathProvider",
    "SingleTrigger",
    "TriggerBase",
    "new_short_uid",
    "new_uid",
    "resource_factory",
]
