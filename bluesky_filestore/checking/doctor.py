"""Is a detector ready to take data? One line a check, before any is taken."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from bluesky_filestore.mixins.waiting import pv_name

from .finding import Finding, Report, Verdict, fine, wrong
from .places import check_directory, check_disk_space, check_name_length, check_path_flavour
from .probe import probe_detector
from .readiness import check_frames, check_idle, check_left_behind, check_priming, check_staging_order, check_trigger
from .reading import check_compression, check_data_key, check_handler
from .subject import Subject, file_plugins

__all__ = ["CHECKS", "doctor"]

Check: TypeAlias = Callable[[Subject], Verdict | None]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("use", check_idle),
    ("left behind", check_left_behind),
    ("priming", check_priming),
    ("size and type", check_frames),
    ("staging order", check_staging_order),
    ("trigger", check_trigger),
    ("path", check_path_flavour),
    ("directory", check_directory),
    ("name length", check_name_length),
    ("disk space", check_disk_space),
    ("data key", check_data_key),
    ("handler", check_handler),
    ("compression", check_compression),
)
"""What is looked at, in this order; a check that does not apply gives None."""


def doctor(detector: Any, *, probe: bool = False) -> Report:
    """Look whether a detector's file plugins will write frames that are found again.

    Nothing on the IOC is changed, unless a probe is asked for.

    Parameters
    ----------
    detector : ophyd.Device
        A detector with file plugins, or one such plugin; with this package's mixins or with ophyd's.
    probe : bool, optional
        Also stage the detector, trigger it once, read it, unstage it, and look for the frame where the documents say.

    Returns
    -------
    Report
        It shows itself with one line a check; `Report.ok` says whether there is no problem.
    """
    plugins = file_plugins(detector)
    findings = [finding for plugin in plugins for finding in _examine(plugin)]
    if not plugins:
        words = "no component has a file store mixin, so no frames will be documented"
        advice = "Add a file plugin, e.g. class MyHDF5(HDF5Plugin, FileStoreHDF5IterativeWrite)"
        findings.append(Finding("file plugins", _name_of(detector), False, words, advice))
    elif probe:
        findings += probe_detector(Subject.of(plugins[0]).detector, findings)
    return Report(tuple(findings))


def _name_of(device: Any) -> str:
    return str(getattr(device, "name", type(device).__name__))


def _examine(plugin: Any) -> Iterator[Finding]:
    connection = _attempt(_connect, plugin)
    yield from _as_findings("IOC", plugin, connection)
    if connection is None or connection.ok is False:
        return
    try:
        subject = Subject.of(plugin)
        will_write = subject.will_write
    except Exception as error:  # noqa: BLE001 - a detector of whatever kind gets a report, not a traceback
        yield Finding("stage_sigs", plugin.name, False, _stumbled(error), "Look at the keys and values of stage_sigs")
        return
    if not will_write:
        yield Finding("enabled", plugin.name, None, "it is disabled once staged, and will write nothing")
        return
    for name, check in CHECKS:
        yield from _as_findings(name, plugin, _attempt(check, subject))


def _connect(plugin: Any) -> Verdict:
    try:
        plugin.file_path.get()
    except TimeoutError:
        words = f"nobody answers for {pv_name(plugin.file_path)}"
        return wrong(words, "Start the IOC, or correct the prefix or EPICS_CA_ADDR_LIST")
    return fine("it answers")


def _attempt(check: Callable[[Any], Verdict | None], subject: Any) -> Verdict | None:
    try:
        return check(subject)
    except Exception as error:  # noqa: BLE001 - what one check stumbles over is a finding, and the others go on
        return wrong(_stumbled(error), "Look whether the IOC serves what the class of the plugin asks for")


def _stumbled(error: Exception) -> str:
    return f"this could not be looked at: {type(error).__name__}: {str(error).rstrip('.')}"


def _as_findings(check: str, plugin: Any, verdict: Verdict | None) -> Iterator[Finding]:
    if verdict is not None:
        yield Finding(check, plugin.name, verdict.ok, verdict.words, verdict.advice)
