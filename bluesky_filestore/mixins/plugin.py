"""What all mixins for areaDetector's file plugins have in common: safe staging, honest descriptions, counted frames."""

import uuid
from collections import OrderedDict
from datetime import datetime
from pathlib import PurePath, PureWindowsPath
from typing import Any

from bluesky_filestore.errors import PathError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.paths import (
    PathSemantics,
    fill_in,
    from_uri,
    pure_path,
    semantics_of,
    with_trailing_separator,
)

from .base import check_choice
from .file_paths import PathInfo
from .file_records import check_opened_file, file_name, free_number, put_name, put_path
from .frames import FileStoreWithFrames
from .frames_written import FrameCount
from .priming import Prime, UnprimedFilePluginError, prime, why_unprimed
from .staging import PutBackReport, StageGuard, Undo, devices_below
from .waiting import (
    CaptureSetting,
    PathSetting,
    TimedSetting,
    components_with,
    optional,
    values_before,
    wait_until_connected,
)

__all__ = ["FileStorePluginBase"]

_log = get_logger(__name__)

_OFF = (0, "0", "Disable", "No", False)
_FLUSH = 6
"""Ending a capture writes what is left in memory to the disk: so many times longer it may take."""


def _unique_name() -> str:
    # Without the last stanza: the names of old areaDetector versions are short.
    return "-".join(str(uuid.uuid4()).split("-")[:-1])


def _names(uri: str, directory: PurePath) -> bool:
    """Whether a URI is what ophyd-async makes of a directory: the path as it is, with nothing in it quoted."""
    unquoted = uri.removeprefix("file://localhost").replace("\\", "/").strip("/")
    return uri.startswith("file://localhost/") and unquoted == directory.as_posix().strip("/")


class FileStorePluginBase(StageGuard, FileStoreWithFrames):
    """Base of the mixins for areaDetector's file plugins.

    A class with it has a `stage` that first sees that nothing is in the way, then runs those that were written, and
    puts everything back if one fails; see `StageGuard`.

    Parameters
    ----------
    stage_timeout : float, optional
        Seconds that each wait may take at stage and unstage.
    prime : {'auto', 'require', 'never'}, optional
        What to do at stage if the plugin has not yet seen the kind of frames that will come: take one, refuse, or go
        on all the same.
    **kwargs
        See `FileStoreWithFrames` and `FileStoreBase`.
    """

    _own_name = ""
    _create_dir_depth = 0

    def __init__(
        self,
        *args: Any,
        stage_timeout: float = 10.0,
        prime: str = "auto",
        **kwargs: Any,
    ) -> None:
        self._prime: Prime = check_choice("prime", prime, Prime)
        self.stage_timeout = stage_timeout
        super().__init__(*args, **kwargs)
        # Asking the class, not the object, does not wait for a lazy component to connect.
        if getattr(type(self), "create_directory", None) is not None:
            self.stage_sigs.update({"create_directory": -3})
        self.stage_sigs.update(
            [("auto_increment", "Yes"), ("array_counter", 0), ("auto_save", "Yes"), ("num_capture", 0)]
        )
        self._known_pair: tuple[Any, Any] | None = None

    # -- names ---------------------------------------------------------------------------------------------------------

    def make_filename(self) -> tuple[str, str, str]:
        """Decide where this stage's files go: a hook for subclasses, asked once a stage.

        Returns
        -------
        filename : str
            The beginning of the file's name.
        read_path : str
            The directory as its readers see it.
        write_path : str
            The directory as the IOC sees it.
        """
        if self._path_provider is not None:
            return self._ask_provider(self._path_provider(self.name))
        now = datetime.now()
        return self._make_name(), fill_in(self.read_path_template, now), fill_in(self.write_path_template, now)

    def _ask_provider(self, answer: Any) -> tuple[str, str, str]:
        info = PathInfo(answer) if isinstance(answer, str | PurePath) else answer
        given = pure_path(info.directory_path, self._flavour_of(info.directory_path))
        elsewhere = getattr(info, "read_directory_path", None)
        uri = getattr(info, "directory_uri", None)
        if elsewhere is None and uri and not _names(uri, given):
            # Below a directory of Windows ophyd-async appends to a URI with backslashes, which no name there has.
            elsewhere = from_uri(uri.replace("\\", "/") if isinstance(given, PureWindowsPath) else uri)
        self._create_dir_depth = int(getattr(info, "create_dir_depth", 0) or 0)
        read = self._ensure_absolute_under_root(given if elsewhere is None else elsewhere)
        write = self._ensure_absolute_under_root(given) if elsewhere is None else given
        return info.filename or self._make_name(), with_trailing_separator(read, semantics_of(read)), str(write)

    def _make_name(self) -> str:
        self._own_name = _unique_name()
        return self._own_name

    def _flavour_of(self, path: str | PurePath) -> PathSemantics:
        """Its own, if it is absolute; else that of the IOC."""
        try:
            return semantics_of(path)
        except PathError:
            return self.path_semantics

    # -- staging -------------------------------------------------------------------------------------------------------

    def _prepare_to_stage(self) -> None:
        """Whatever must be right before the first `stage` method of this object runs."""
        self._frame_count = None
        self._streams = None
        # Else a plugin that is switched off now would tell of the last stage's file again.
        self._resource_collected = False
        signals = (optional(self, name) for name in ("file_path", "file_name", "file_number", "capture"))
        wait_until_connected(self, [signal for signal in signals if signal is not None], self.stage_timeout)
        self._will_write = self._is_enabled_at_stage(self)
        self._writers = self._enabled_writers()
        if not self._will_write:
            return
        capture = optional(self, "capture")
        if capture is not None and capture.get() not in (0, "Done"):
            _log.warning(
                "%s was still capturing to %s, perhaps for a client that was killed; that capture is ended now.",
                self.name,
                optional(self, "full_file_name") and self.full_file_name.get(),
            )
            CaptureSetting(capture, self, _FLUSH * self.stage_timeout).set(0).wait()
        if self._prime != "never":
            self._ensure_primed()

    def _ensure_primed(self) -> None:
        sigs = self._resolved_stage_sigs()
        ports = [(sig, value) for sig, value in sigs.items() if getattr(sig, "attr_name", "") == "nd_array_port"]
        with Undo(self) as undo:
            for signal, value in ports:
                undo.set(TimedSetting(signal, self, self.stage_timeout), value)
            reason, settings = why_unprimed(self, self._known_pair)
        if reason is None:
            return
        if self._prime == "require":
            raise UnprimedFilePluginError(
                f"{self.name} is not ready to write what the camera will send: {reason}. Let it see one frame, "
                f"or create it with prime='auto'."
            )
        self._known_pair = (settings, prime(self, ports, self.stage_timeout))

    def _resolved_stage_sigs(self) -> "OrderedDict[Any, Any]":
        """``stage_sigs`` by signal, with ``capture`` at the end, whatever was added when."""
        sigs = OrderedDict((getattr(self, k) if isinstance(k, str) else k, v) for k, v in self.stage_sigs.items())
        capture = optional(self, "capture")
        if capture in sigs:
            sigs.move_to_end(capture)
        return sigs

    def _is_enabled_at_stage(self, plugin: Any) -> bool:
        enable = optional(plugin, "enable")
        value = plugin.stage_sigs.get("enable", plugin.stage_sigs.get(enable))
        if value is None and enable is not None:
            value = enable.get()
        return value is None or value not in _OFF

    def _enabled_writers(self) -> list[str]:
        """The attribute names of all file plugins of the detector that will write, in component order."""
        names = components_with(self.parent, "collect_asset_docs")
        return [name for name in names if self._is_enabled_at_stage(getattr(self.parent, name))]

    def stage(self) -> list[object]:
        """Say where the files go, see that the IOC can write there, apply ``stage_sigs``, and capture at the very end.

        Raises
        ------
        StageError
            Of a kind that says what is wrong; all settings have been put back then.
        """
        sigs = self._resolved_stage_sigs()
        if not self._will_write:
            sigs.pop(optional(self, "capture"), None)
            return self._stage_with(sigs)
        self._create_dir_depth = 0
        filename, read_path, write_path = self.make_filename()
        if self._create_dir_depth and (create_directory := optional(self, "create_directory")) is not None:
            sigs[create_directory] = self._create_dir_depth
        # A relative template of windows flavour becomes posix under a posix root, and the other way round.
        by_template = self._path_provider is None and self._read_path_template is not None
        flavour = self.path_semantics if by_template else self._flavour_of(write_path)
        self._set_first(sigs)
        put_path(self, write_path, flavour, self.stage_timeout)
        number = self._free_number(sigs, filename, read_path, write_path, flavour)
        number = put_name(self, filename, number, self.stage_timeout)
        staged = self._stage_with(sigs)
        self._fp = with_trailing_separator(read_path, semantics_of(read_path))
        self._fn = file_name(self, self._fp, filename, number)
        if self._opens_at_stage():
            opened = file_name(self, with_trailing_separator(write_path, flavour), filename, number)
            check_opened_file(self, opened, flavour, self.stage_timeout)
        self._frame_count = FrameCount(self, self._counter)
        return staged

    def _free_number(
        self, sigs: "OrderedDict[Any, Any]", name: str, read_path: str, write_path: str, flavour: PathSemantics
    ) -> int:
        # The template is set later, but the number must be known before the capture begins.
        mode = self.file_write_mode.get()
        return free_number(
            self,
            str(sigs.get(self.file_template, self.file_template.get())),
            name,
            with_trailing_separator(read_path, semantics_of(read_path)),
            with_trailing_separator(write_path, flavour),
            flavour=flavour,
            series=self._counter == "file_number" or mode in (0, "Single"),
            is_new=name == self._own_name,
        )

    def _set_first(self, sigs: "OrderedDict[Any, Any]") -> None:
        """What must be set before ``FilePath``; and remember what a failure has to put back besides ``stage_sigs``."""
        undo = self._staging_undo if self._staging_undo is not None else Undo(self)
        undo.remember(PathSetting(self.file_path, self, self.stage_timeout))
        for signal in (self.file_name, self.file_number):
            undo.remember(TimedSetting(signal, self, self.stage_timeout))
        # Until it is to capture, a plugin that gathers or streams writes nothing; with AutoSave one that is at Single
        # writes what comes late of somebody's frames, and counts FileNumber on. What is set first is put back last.
        for name in ("file_write_mode", "create_directory"):
            signal = optional(self, name)
            if signal is not None and signal in sigs:
                setting = TimedSetting(signal, self, self.stage_timeout)
                before = setting.get()
                setting.set(sigs.pop(signal)).wait()
                values_before(self)[setting] = before

    def _stage_with(self, sigs: "OrderedDict[Any, Any]") -> list[object]:
        # ophyd's stage waits for each signal for ever; these waits end, at stage and at unstage.
        capture = optional(self, "capture")
        asked = self.stage_sigs
        self.stage_sigs = OrderedDict(
            ((CaptureSetting if signal is capture else TimedSetting)(signal, self, self.stage_timeout), value)
            for signal, value in sigs.items()
        )
        try:
            staged: list[object] = super().stage()
        finally:
            self.stage_sigs = asked
        return staged

    def _opens_at_stage(self) -> bool:
        lazy = optional(self, "lazy_open")
        capturing = any(key in self.stage_sigs for key in ("capture", optional(self, "capture")))
        return capturing and (lazy is None or lazy.get() in _OFF)

    def unstage(self) -> list[object]:
        """Put everything back that can be, which ends the capture; what can't be is named in the log.

        Raises
        ------
        StageError
            If the capture does not end although the IOC answers; after everything else has been put back.
        MissingFramesError, ExtraFramesError
            If documented frames are not in the files, unless ``confirm_frames="never"``; likewise.
        """
        errors = self._count_at_unstage()
        for setting in values_before(self):
            if isinstance(setting, CaptureSetting):
                setting.timeout = _FLUSH * self.stage_timeout
        report = PutBackReport(self.stage_timeout)
        for device in devices_below(self):
            report.attach(device)
        unstaged = super().unstage()
        report.log(self.name)
        self._not_put_back = report.problems
        errors += report.captures
        errors += self._check_closed_file() if not errors else []
        self._frame_count = None
        self._raise_or_hand_over(errors)
        return unstaged
