"""Arrays of a run as they are read: straight from the files where these are in reach, else through the catalog."""

from .file_array import FileArray, open_array

__all__ = ["FileArray", "open_array"]
