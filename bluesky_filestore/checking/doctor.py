"""Is a detector ready to take data? One line a check, before any is taken."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

from .directories import check_directory, check_disk_space, check_name_length, check_path_flavour
from .finding import Finding, Report, Verdict, fine, wrong
from .probe import probe_detector
from .readiness import (
    check_frames,
    check_idle,
    check_left_behind,
    check_priming,
    check_staging_order,
    check_trigger,
)
from .reading import check_codec, check_compression, check_data_key, check_handler
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
    ("codec", check_codec),
)
"""What is looked at, in this order; a check that does not apply gives None."""


_NO_ANSWER = wrong("nobody answers", "Start the IOC, or correct the prefix or EPICS_CA_ADDR_LIST")


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
    try:
        plugins = file_plugins(detector)
    except Exception as error:  # noqa: BLE001 - a detector of whatever kind gets a report, not a traceback
        advice = "Connect it first: a component of it cannot be made"
        return Report((Finding("file plugins", _name_of(detector), False, _describe_failure(error), advice),))
    findings = [finding for plugin in plugins for finding in _examine(plugin)]
    if not plugins:
        words = "no component has a file store mixin, so no frames will be documented"
        advice = "Add a file plugin, e.g. class MyHDF5(HDF5Plugin, FileStoreHDF5IterativeWrite)"
        findings.append(Finding("file plugins", _name_of(detector), False, words, advice))
    elif probe:
        parent = getattr(plugins[0], "parent", None)
        findings += probe_detector(plugins[0] if parent is None else parent, findings)
    return Report(tuple(findings))


def _name_of(device: Any) -> str:
    return str(getattr(device, "name", type(device).__name__))


def _examine(plugin: Any) -> Iterator[Finding]:
    name = _name_of(plugin)
    connection = _run_check(_connect, plugin)
    yield from _as_findings("IOC", name, connection)
    if connection is not None and connection.advice == _NO_ANSWER.advice:
        return
    try:
        subject = Subject.of(plugin)
        will_write = subject.will_write
    except Exception as error:  # noqa: BLE001 - a detector of whatever kind gets a report, not a traceback
        yield Finding("stage_sigs", name, False, _describe_failure(error), "Look at the keys and values of stage_sigs")
        # The rest is looked at as it is set now.
        subject, will_write = Subject.at_present(plugin), True
    if not will_write:
        yield Finding("enabled", name, None, "it is disabled once staged, and will write nothing")
        return
    for check, look in CHECKS:
        yield from _as_findings(check, name, _run_check(look, subject))


def _connect(plugin: Any) -> Verdict:
    try:
        plugin.file_path.get()
    except TimeoutError as error:
        return replace(_NO_ANSWER, words=f"nobody answers: {str(error).rstrip('.')}")
    return fine("it answers")


def _run_check(check: Callable[[Any], Verdict | None], subject: Any) -> Verdict | None:
    try:
        return check(subject)
    except Exception as error:  # noqa: BLE001 - what one check stumbles over is a finding, and the others go on
        return wrong(_describe_failure(error), "Look whether the IOC serves what the class of the plugin asks for")


def _describe_failure(error: Exception) -> str:
    try:
        words = str(error).rstrip(".")
    except Exception:  # noqa: BLE001 - an error of others may be unable to say what it is
        words = "it cannot say what is wrong"
    return f"this could not be looked at: {type(error).__name__}: {words}"


def _as_findings(check: str, plugin: str, verdict: Verdict | None) -> Iterator[Finding]:
    if verdict is not None:
        yield Finding(check, plugin, verdict.ok, verdict.words, verdict.advice)
