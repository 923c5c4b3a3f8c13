"""Runs that are complete, posted to an address: at least once, behind everything else.

=========  ==================================================  =======================================================
state      it is so while                                      a round, when it is woken or every some seconds
=========  ==================================================  =======================================================
watches    another process sends to this receiver              tries to get the lease
sends      it has the lease                                    posts what waits in the spool, one by one, oldest first
away       no answer came, or one that is about us             posts nothing, until a growing pause is over
closes     `close` was called                                  one last round, unless it is away
=========  ==================================================  =======================================================

A message that was taken (any 2xx) is removed from the spool, in a transaction of its own; who is killed between the two
sends it again. One that the receiver refuses for what it is (400, 409, 413, 422) is tried again later, and does not
keep the others. What becomes of those that are never taken says `bluesky_filestore.spool.handoffs`.

The thread alone has `_lease`, `_next_try`, `_wait` and `_later`.
"""

import base64
import hashlib
import hmac
import http.client
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from bluesky_filestore.errors import HandoffError, OptionError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.handoffs import (
    Handoff,
    acknowledge,
    handoff_lease,
    note_failure,
    register_receiver,
    waiting_handoffs,
)
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.visible import visible_line, without_secrets

from .completed import CompletedRun

if TYPE_CHECKING:
    from .settings import DeliverySettings

__all__ = ["Sender", "Webhook", "send_waiting"]

_logger = get_logger(__name__)
_ANSWER_SECONDS, _LOOK_SECONDS, _CLOSE_SECONDS = 10.0, 5.0, 2.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0
_AT_ONCE, _LENGTH, _MOST_SHOWN = 100, 8, 200
_ABOUT_THE_MESSAGE = (400, 409, 413, 422)
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, repr=False)
class Webhook:
    """An address that is sent a message about each run that is complete.

    Neither its text nor its `name` has anything of the address but the server: keys are in queries, users, and paths.

    Raises
    ------
    OptionError
        If it is no address of a web server.

    Examples
    --------
    >>> Webhook("https://hooks.example.org/services/T0/key")
    <Webhook https://hooks.example.org (b3cf2abf)>
    """

    url: str
    """The address; a user and password in it are sent as basic authentication."""
    secret: str = ""
    """What messages are signed with, if it is not empty."""

    def __post_init__(self) -> None:
        wrong = "is no address of a web server; expected e.g. webhook='https://example.org/hooks/runs'."
        if not isinstance(self.url, str) or not isinstance(self.secret, str):
            raise OptionError(f"a webhook, or its secret, of type {type(self.url).__name__} {wrong}")
        try:
            parts = urlsplit(self.url)
            is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and self.url.isascii()
        except ValueError:
            is_usable = False
        if not is_usable or any(character <= " " for character in self.url):
            raise OptionError(f"the webhook {wrong}")

    @cached_property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def name(self) -> str:
        """What it is called in spools and logs."""
        host = self._parts.netloc.rpartition("@")[2]
        return f"{self._parts.scheme}://{host} ({hashlib.sha256(self.url.encode()).hexdigest()[:_LENGTH]})"

    def __repr__(self) -> str:
        return f"<Webhook {self.name}>"

    def post(self, handoff: Handoff) -> None:
        """Send a message.

        Raises
        ------
        HandoffError
            If it was not taken.
        """
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "bluesky-filestore",
            "X-Filestore-Event-ID": handoff.id,
        }
        if self.secret:
            sign = hmac.new(self.secret.encode(), handoff.body, hashlib.sha256).hexdigest()
            headers["X-Filestore-Signature"] = f"sha256={sign}"
        parts = self._parts
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        # __post_init__ has looked at its scheme.
        request = urllib.request.Request(url, handoff.body, headers, method="POST")  # noqa: S310
        try:
            with self._opener.open(request, timeout=_ANSWER_SECONDS):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            words = visible_line(without_secrets(f"{type(reason).__name__}: {reason}"))[:_MOST_SHOWN]
            raise HandoffError(f"{self.name} does not answer ({words}).") from None

    def _refusal(self, error: urllib.error.HTTPError) -> HandoffError:
        if error.code in _REDIRECTS:
            # To wherever that is: the message is for the address that was given.
            advice = "which is not followed; give the address that it has now"
            return HandoffError(f"{self.name} answers with a redirect ({error.code}), {advice}.")
        refusal = HandoffError(f"{self.name} answers with status {error.code}.")
        refusal.is_about_message = error.code in _ABOUT_THE_MESSAGE
        return refusal

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        """What opens addresses of web servers only, by the proxies that the environment names, and follows nothing."""
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.HTTPErrorProcessor,
        ):
            opener.add_handler(handler())
        return opener


class Sender:
    """Posts what waits in a spool for a webhook, in a thread of its own; see the top of this module.

    Parameters
    ----------
    directory : Path
        The spool directory.
    settings : DeliverySettings
        How its user wants it; without a webhook nothing is done.
    """

    def __init__(self, directory: Path, settings: "DeliverySettings") -> None:
        self._directory, self._webhook = directory, settings.webhook
        self.settings = settings
        """The same settings, with which whoever delivers wakes it."""
        self._wake, self._closing = threading.Event(), False
        self._lease: Lease | None = None
        self._next_try, self._wait, self._error = 0.0, _FIRST_WAIT, ""
        self._later: dict[int, float] = {}
        self._thread: threading.Thread | None = None
        if self._webhook is None:
            return
        # Before the first run ends; a full disk is said with a document, and this is tried with each round.
        with suppress(OSError, sqlite3.Error), closing(Ledger(directory)) as ledger:
            register_receiver(ledger, self._webhook.name)
        self._told = settings.on_complete
        self.settings = replace(settings, on_complete=self._notice)
        self._thread = threading.Thread(target=self._run, args=(self._webhook,), name="webhook", daemon=True)
        self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """Send what still waits, but wait for that no longer than two seconds, or as many; the rest stays there."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS if timeout is None else min(timeout, _CLOSE_SECONDS))

    def _notice(self, run: CompletedRun) -> None:
        self._wake.set()
        if self._told is not None:
            self._told(run)

    def _run(self, webhook: Webhook) -> None:
        try:
            while True:
                self._wake.clear()
                is_last = self._closing
                pause = self._round(webhook)
                if is_last:
                    return
                self._wake.wait(pause)
        finally:
            if self._lease is not None:
                self._lease.give_up()

    def _round(self, webhook: Webhook) -> float:
        """Send what waits; for how long to pause then."""
        now = time.monotonic()
        if now < self._next_try:
            return min(self._next_try - now, _LOOK_SECONDS)
        try:
            with closing(Ledger(self._directory)) as ledger:
                register_receiver(ledger, webhook.name)
                self._lease = self._lease or handoff_lease(ledger, webhook.name)
                if self._lease.take() and _send(ledger, webhook, self._later):
                    if self._error:
                        _logger.warning("%s takes messages again.", webhook.name)
                    self._error, self._wait = "", _FIRST_WAIT
        except HandoffError as error:
            pause, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
            self._next_try = time.monotonic() + pause
            if not self._error:
                _logger.warning("%s What waits for it is kept, and sent when it does.", error)
            self._error = str(error)
        except (OSError, sqlite3.Error) as error:
            # Whoever delivers from it says so as well.
            _logger.warning("Messages to %s cannot be taken from the spool now: %s", webhook.name, error)
        except Exception:
            # Whatever we overlooked, it is tried again.
            _logger.exception("Messages to %s could not be sent.", webhook.name)
        return min(max(self._next_try - time.monotonic(), 0.0) or _LOOK_SECONDS, _LOOK_SECONDS)


def _send(ledger: Ledger, webhook: Webhook, later: dict[int, float]) -> int:
    """Send what waits, but what is refused for what it is only after a while; how many messages were taken.

    Raises
    ------
    HandoffError
        If the receiver takes nothing.
    """
    taken = 0
    for handoff in _all_waiting(ledger, webhook.name):
        if time.monotonic() < later.get(handoff.number, 0.0):
            continue
        try:
            webhook.post(handoff)
        except HandoffError as error:
            if note_failure(ledger, handoff, str(error)):
                _logger.error("That run %s is complete is sent no more: %s", handoff.run, error)
            if not error.is_about_message:
                raise
            if not handoff.tries:
                _logger.warning("That run %s is complete is sent again later: %s", handoff.run, error)
            later[handoff.number] = time.monotonic() + min(2.0 ** min(handoff.tries, 9), _LONGEST_WAIT)
        else:
            acknowledge(ledger, handoff)
            later.pop(handoff.number, None)
            taken += 1
    return taken


def _all_waiting(ledger: Ledger, name: str) -> Iterator[Handoff]:
    last = 0
    while handoffs := waiting_handoffs(ledger, name, last, _AT_ONCE):
        yield from handoffs
        last = handoffs[-1].number


def send_waiting(directory: Path, webhook: Webhook) -> int:
    """Send what waits in a spool for a webhook now, once; how many messages still do.

    Raises
    ------
    HandoffError
        If the receiver takes nothing, or another process sends to it.
    """
    with closing(Ledger(directory)) as ledger:
        lease = handoff_lease(ledger, webhook.name)
        if not lease.take():
            raise HandoffError(f"process {lease.holder()} sends to {webhook.name} from {directory} already.")
        try:
            _send(ledger, webhook, {})
            return sum(1 for _ in _all_waiting(ledger, webhook.name))
        finally:
            lease.give_up()
