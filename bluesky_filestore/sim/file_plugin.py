"""The file plugins: when they open, write and close files, as NDPluginFile does, its traps included.

The modes of ``FileWriteMode``, and what ``Capture`` does in them:

======= =============================== ========================== ==================================================
mode    ``Capture=1``                   a frame                    ``Capture=0``, or ``NumCapture`` frames are there
======= =============================== ========================== ==================================================
Single  refused                         a file, with ``AutoSave``
Capture begins to gather                gathered in `_captured`    with ``AutoSave`` all are written, to one file
Stream  opens `_file`; refused if the   added to `_file`, which    closes `_file`
        plugin has seen no frame        ``LazyOpen`` opens now
======= =============================== ========================== ==================================================

`_file` is open between these, and None else. All of it happens in the event loop of the IOC.
"""

from abc import abstractmethod
from typing import Protocol

from .file_name import create_directory, expand_template, on_disk, with_separator
from .frame import Frame, FrameMismatchError
from .plugin import Plugin, Wiring
from .records import Records

__all__ = ["FilePlugin", "OpenFile"]

_SINGLE, _CAPTURE, _STREAM = range(3)
"""FileWriteMode."""


class OpenFile(Protocol):
    """A file that frames go into."""

    def write(self, frame: Frame) -> None:
        """Add a frame."""

    def close(self) -> None:
        """Finish the file."""


class FilePlugin(Plugin):
    """A plugin that writes frames to files; see `Plugin` for the parameters."""

    counts_all = False
    holds_many = True
    """Whether one file can hold many frames."""

    codecs: frozenset[str] = frozenset()
    """The codecs whose frames it can write; of others it keeps silent."""

    def __init__(self, records: Records, prefix: str, wiring: Wiring) -> None:
        super().__init__(records, prefix, wiring)
        self._file: OpenFile | None = None
        self._captured: list[Frame] = []
        self.writers["FilePath"] = self._write_file_path
        self.writers["Capture"] = self._write_capture
        self.writers["WriteFile"] = self._write_file_now

    @abstractmethod
    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """Make the file `name` for frames like this one."""

    def _write_file_path(self) -> None:
        """Complete the path, and make the directory if ``CreateDirectory`` was set before."""
        p = self.parameters
        path = with_separator(p.text("FilePath"))
        depth = p.integer("CreateDirectory")
        p.set("FilePath", path)
        directory = on_disk(path)
        if path and depth and not directory.is_dir():
            try:
                create_directory(directory, depth)
            except OSError as error:
                p.set("WriteMessage", f"Error creating directory {path}: {error.strerror or 'too deep'}")
        p.set("FilePathExists", int(bool(path) and directory.is_dir()))

    def _write_capture(self) -> None:
        p = self.parameters
        if not p.integer("Capture"):
            self._end_capture()
            return
        p.set("FullFileName", "")
        lazy = bool(p.integer("LazyOpen"))
        mode = p.integer("FileWriteMode")
        if mode == _SINGLE or (self.last is None and not lazy) or not self._may_capture():
            p.set("Capture", 0)
            return
        if mode == _STREAM:
            if lazy:
                p.set("WriteMessage", "Lazy Open...")
            elif self.holds_many and self.last is not None and not self._open(self.last, stream=True):
                p.set("Capture", 0)
        self._captured = []
        p.set("NumCaptured", 0)
        # Who waits for Capture_RBV finds the file's name in FullFileName_RBV.
        p.postpone("Capture")
        if mode == _STREAM:
            p.set("WriteFile", 1)

    def _may_capture(self) -> bool:
        """Whether the plugin's settings let it capture; shows the reason if not."""
        return True

    def _end_capture(self) -> None:
        """Close what is open, write what Capture mode has gathered, and show that capturing is over."""
        p = self.parameters
        mode = p.integer("FileWriteMode")
        p.set("Capture", 0)
        if mode == _CAPTURE and p.integer("AutoSave") and self._captured:
            self._write_captured()
        if mode == _STREAM:
            if self._close():
                self._show_ok()
            p.set("WriteFile", 0)
            if p.integer("LazyOpen"):
                p.set("WriteMessage", "Lazy Open...")

    def _write_file_now(self) -> None:
        """``WriteFile`` put by hand: the gathered frames, or the latest one."""
        p = self.parameters
        if p.integer("WriteFile") and p.integer("FileWriteMode") != _STREAM:
            if p.integer("FileWriteMode") == _CAPTURE and self._captured:
                self._write_captured()
            elif self.last is not None:
                self._write_files([self.last])
            p.set("WriteFile", 0)

    def work(self, frame: Frame) -> None:
        """Save the frame, if and how the plugin's mode says so."""
        p = self.parameters
        mode = p.integer("FileWriteMode")
        if frame.codec and frame.codec not in self.codecs:
            return
        if mode == _SINGLE:
            if not p.integer("AutoSave"):
                return
            self._count_array()
            p.set("WriteFile", 1)
            p.flush()
            self._write_files([frame])
            p.set("NumCaptured", 1)
            p.set("WriteFile", 0)
        elif p.integer("Capture"):
            self._count_array()
            if mode == _CAPTURE:
                self._captured.append(frame)
                p.set("NumCaptured", len(self._captured))
            elif not self._stream(frame):
                self._end_capture()
                return
            if 0 < p.integer("NumCapture") <= p.integer("NumCaptured"):
                self._end_capture()

    def _count_array(self) -> None:
        self.parameters.set("ArrayCounter", self.parameters.integer("ArrayCounter") + 1)

    def _stream(self, frame: Frame) -> bool:
        """Add a frame to the open file, opening it if that was put off; False if it could not be added."""
        if self._file is None and not self._open(frame, stream=self.holds_many):
            return False
        if not self._write(frame):
            return False
        if not self.holds_many:
            self._close()
        self.parameters.set("NumCaptured", self.parameters.integer("NumCaptured") + 1)
        return True

    def _write_captured(self) -> None:
        frames, self._captured = self._captured, []
        self._write_files(frames)

    def _write_files(self, frames: list[Frame]) -> None:
        """Write frames that are at hand: all to one file if it can hold them, else each to its own."""
        if self.holds_many and len(frames) > 1:
            if self._open(frames[0], stream=True):
                all(self._write(frame) for frame in frames)
                self._close()
            return
        for frame in frames:
            if self._open(frame, stream=False):
                self._write(frame)
                self._close()

    def _open(self, like: Frame, *, stream: bool) -> bool:
        """Open the next file; False, with the reason in ``WriteMessage``, if that fails."""
        self._close()
        name = "the file"
        try:
            name = self._next_name()
            self._file = self.open_file(name, like, stream=stream)
        except (OSError, ValueError) as error:
            reason = "" if isinstance(error, OSError) else f" ({error})"
            self._show_error(f"Error opening file {name}, status=3{reason}")
            return False
        self._show_ok()
        return True

    def _next_name(self) -> str:
        """The name of the next file; the number moves on whether or not the file can be opened."""
        p = self.parameters
        number = p.integer("FileNumber")
        path = p.text("FilePath")
        name = expand_template(p.text("FileTemplate"), path, p.text("FileName"), number)
        p.set("FilePathExists", int(bool(path) and on_disk(path).is_dir()))
        if p.integer("AutoIncrement"):
            p.set("FileNumber", number + 1)
        p.set("FullFileName", name)
        return name

    def _write(self, frame: Frame) -> bool:
        """Add a frame to the open file; False, with the reason in ``WriteMessage``, if that fails."""
        if self._file is None:
            return False
        try:
            self._file.write(frame)
        except (OSError, FrameMismatchError) as error:
            self._show_error(f"Error writing file {self.parameters.text('FullFileName')}, status=3 ({error})")
            return False
        self._show_ok()
        return True

    def _close(self) -> bool:
        """Close the file, if one is open; False, with the reason in ``WriteMessage``, if that fails."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            self._show_error(f"Error closing file {self.parameters.text('FullFileName')}, status=3 ({error})")
            return False
        return True

    def _show_ok(self) -> None:
        self.parameters.set("WriteStatus", 0)
        self.parameters.set("WriteMessage", "")

    def _show_error(self, message: str) -> None:
        self.parameters.set("WriteStatus", 1)
        self.parameters.set("WriteMessage", message)
