"""The ophyd side: mixins that let areaDetector's file plugins write files and describe them in documents."""

from ophyd.areadetector.filestore_mixins import new_short_uid, new_uid, resource_factory
from ophyd.areadetector.trigger_mixins import (
    ContinuousAcquisitionTrigger,
    MultiTrigger,
    TriggerBase,
)

from .base import FileStoreBase
from .file_paths import PathInfo, PathProvider
from .file_stores import (
    FileStoreHDF5,
    FileStoreHDF5IterativeWrite,
    FileStoreHDF5Single,
    FileStoreHDF5SingleIterativeWrite,
    FileStoreIterativeWrite,
    FileStoreTIFF,
    FileStoreTIFFIterativeWrite,
    FileStoreTIFFSquashing,
)
from .flying import FlyableFileStore
from .plugin import FileStorePluginBase
from .single_trigger import SingleTrigger
from .statuses import ADTriggerStatus

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
