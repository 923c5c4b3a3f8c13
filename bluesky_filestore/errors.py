"""One base error; each error also has the builtin parent that people would catch.

Every message says what was found, what was expected and what to do.
"""

from bluesky_filestore.visible import visible, without_secrets

__all__ = [
    "AddressError",
    "CatalogAccessError",
    "CatalogDownError",
    "CatalogError",
    "CatalogFaultError",
    "CatalogUnreachableError",
    "ChangedFileError",
    "ChangingFileError",
    "DeviceNotFoundError",
    "DirectoryMissingError",
    "DocumentError",
    "DuplicateHandlerError",
    "ExtraFramesError",
    "FileExistsAlreadyError",
    "FileStoreError",
    "ForbiddenFileError",
    "HandlerNotFoundError",
    "HandoffError",
    "IOCUnreachableError",
    "LimitError",
    "LockedFileError",
    "ManifestError",
    "MissingFileError",
    "MissingFramesError",
    "MissingPackageError",
    "OptionError",
    "PackError",
    "PathError",
    "RelocatedRunError",
    "RelocationError",
    "RowsDifferError",
    "RunNotFoundError",
    "SourceError",
    "SpoolDamagedError",
    "SpoolError",
    "StageError",
    "StageTimeoutError",
    "TemplateError",
    "TruncatedFileError",
    "UnknownSpecError",
    "UnprimedPluginError",
    "UnreadableFileError",
]


class FileStoreError(Exception):
    """Base of all errors that this package raises on purpose.

    What they say of others, e.g. names of files and answers of servers, is shown as text that no terminal obeys, and
    without passwords of addresses.
    """

    def __str__(self) -> str:
        return visible(without_secrets(super().__str__()))


class PathError(FileStoreError, ValueError):
    """A path, root, URI or path_semantics that cannot mean what it would have to."""


class TemplateError(FileStoreError, ValueError):
    """A path or file-name template that is missing or cannot be filled in."""


class AddressError(FileStoreError, ValueError):
    """Parameters of a data source that do not say which frames its rows are."""


class OptionError(FileStoreError, ValueError):
    """An argument that cannot mean anything."""


class UnknownSpecError(FileStoreError, LookupError):
    """A Resource spec that nobody told us how to read."""


class HandlerNotFoundError(UnknownSpecError, KeyError):
    """A spec, looked up in the registry of handlers, that nobody has a handler for."""

    def __str__(self) -> str:
        # KeyError would show the message in quotation marks.
        return visible(without_secrets(Exception.__str__(self)))


class DuplicateHandlerError(FileStoreError, ValueError):
    """A handler for a spec that has one already."""


class UnreadableFileError(FileStoreError, OSError):
    """A data file that cannot be read (yet)."""


class ForbiddenFileError(UnreadableFileError, PermissionError):
    """A data file that may not be read."""


class MissingFileError(UnreadableFileError, FileNotFoundError):
    """A data file that is not there (yet)."""


class LockedFileError(UnreadableFileError, BlockingIOError):
    """A data file that its writer keeps closed to others."""


class TruncatedFileError(UnreadableFileError, EOFError):
    """A data file with fewer frames than are asked of it."""


class LimitError(UnreadableFileError):
    """More is asked for, or said to be there, than `bluesky_filestore.Limits` allow."""


class ChangedFileError(UnreadableFileError):
    """A data file that is not the one that was registered."""


class ChangingFileError(UnreadableFileError):
    """A data file that is written to while it is read as a whole."""


class ManifestError(FileStoreError, ValueError):
    """What says which files a run has, and does not say it as it should."""


class StageError(FileStoreError, RuntimeError):
    """A detector that cannot be staged so that its frames will be safe."""


class StageTimeoutError(StageError, TimeoutError):
    """A record that did not take the value it was waited for."""


class FileExistsAlreadyError(StageError, FileExistsError):
    """A file of another run is there under the name that the next file would have."""


class DirectoryMissingError(StageError, FileNotFoundError):
    """The IOC does not see the directory it shall write to."""


class UnprimedPluginError(StageError):
    """A file plugin whose idea of the frames is missing or stale."""


class MissingFramesError(FileStoreError, RuntimeError):
    """Frames that were asked for or documented and are not in the file."""


class MissingPackageError(FileStoreError, ModuleNotFoundError):
    """A package that is not installed; says which extra of this one brings it."""


class ExtraFramesError(FileStoreError, RuntimeError):
    """Frames in the file that nobody asked for, which move the others from their place."""


class DeviceNotFoundError(FileStoreError, LookupError):
    """No device under the name that was given."""


class IOCUnreachableError(FileStoreError, TimeoutError):
    """No IOC answers for the records that are needed."""


class DocumentError(FileStoreError, ValueError):
    """A document that breaks its schema, its references or the legal order."""


class CatalogError(FileStoreError, RuntimeError):
    """A catalog that did not do what was asked of it."""


class CatalogFaultError(CatalogError):
    """A catalog that failed while it did what was asked of it; it may succeed at another time."""


class RowsDifferError(CatalogError):
    """An event table that holds more or fewer rows than the catalog said it took."""

    def __init__(self, message: str, run: str) -> None:
        super().__init__(message)
        self.run = run


class OtherWriterError(CatalogError):
    """A run that another writer has made in the catalog: what is in it is not ours to change."""


class RelocatedRunError(OtherWriterError):
    """A run whose files went elsewhere since it was delivered: its documents would bring the old paths back."""


class RelocationError(FileStoreError, RuntimeError):
    """Files or runs that cannot be relocated, or not in this way."""


class CatalogUnreachableError(CatalogError, ConnectionError):
    """No catalog answers at the address."""


class CatalogDownError(CatalogUnreachableError):
    """Nobody listens at the address: a server that ended may begin again without what it took last."""


class CatalogAccessError(CatalogError, PermissionError):
    """The catalog answers, but not to these credentials."""


class SpoolError(FileStoreError, OSError):
    """A spool directory that cannot take documents."""


class SpoolDamagedError(SpoolError):
    """A spool database that cannot be read."""


class HandoffError(FileStoreError, ConnectionError):
    """That a run is complete was not taken by the one who is to know."""

    is_about_message = False
    """Whether another message may be taken."""


class SourceError(FileStoreError, ValueError):
    """Documents from elsewhere that cannot be read, or a source that gives none."""


class PackError(FileStoreError, ValueError):
    """A pack of runs that is not whole, is not what it says, or would have files go where they must not."""


class RunNotFoundError(FileStoreError, LookupError):
    """No run under the uid that was given, or more than one that begins so."""
