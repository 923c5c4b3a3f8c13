"""Which handler reads which spec: those registered by hand, those that installed packages bring, and ours."""

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bluesky_filestore.errors import DuplicateHandlerError, HandlerNotFoundError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.specs import FRAME_MIMETYPES, add_spec, remove_spec
from bluesky_filestore.protocols import HandlerClass

__all__ = [
    "HandlerRegistry",
    "announced_handlers",
    "deregister_handler",
    "discover_handlers",
    "find_handler",
    "handler_registry",
    "register_handler",
]

_GROUPS = ("bluesky_filestore.handlers", "databroker.handlers")
"""The entry-point groups, the preferred one first."""

_BRINGS = {
    **dict.fromkeys(("AD_CBF", "IMM"), "area-detector-handlers"),
    **dict.fromkeys(("DEXELA_FLY_V1", "MERLIN_FLY", "MERLIN_FLY_STREAM_V1"), "area-detector-handlers"),
    **dict.fromkeys(("SPECS_HDF5_SINGLE_DATAFRAME", "TPX_HDF5", "XPS3_FLY", "XSP3_FLY"), "area-detector-handlers"),
    "MultiKeySlice": "splash-ingest",
}
"""The packages that are known to bring handlers of specs we have none for."""

_logger = get_logger(__name__)


class HandlerRegistry(Mapping[str, HandlerClass]):
    """A read-only mapping from spec to handler class, as event-model's Filler and databroker take it.

    What installed packages bring is looked up at the first use, and each handler is imported when it is first asked
    for; iterating imports them all, since those that cannot be imported are not in the mapping.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._classes: dict[str, HandlerClass] = {}
        self._by_hand: set[str] = set()
        self._with_mimetype: set[str] = set()
        self._offers: dict[str, list[EntryPoint]] | None = None
        self._reported: set[str] = set()
        self._targets: list[weakref.ref[Any]] = []

    def __getitem__(self, spec: str) -> HandlerClass:
        found = self._load(spec)
        if found is None:
            raise unknown_spec(spec, self._names())
        return found

    def __iter__(self) -> Iterator[str]:
        return iter([spec for spec in self._names() if self._load(spec) is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self._names())}>"

    def register(
        self, spec: str, handler_class: HandlerClass, overwrite: bool = False, *, mimetype: str | None = None
    ) -> None:
        """Read a spec with a handler from now on.

        Parameters
        ----------
        spec : str
            As it stands in Resource documents.
        handler_class : callable
            ``handler_class(path, **resource_kwargs)`` makes a handler, and ``handler(**datum_kwargs)`` the array.
        overwrite : bool
            Whether it may take the place of another.
        mimetype : str, optional
            What the files are, if a stock Tiled server can read them: runs are registered so that it does. By default
            the handler's attribute ``mimetype``, if it is of such files.

        Raises
        ------
        DuplicateHandlerError
            If the spec has another handler, and `overwrite` is not set.
        TypeError
            If it cannot be called.
        OptionError
            If the mimetype is of no file that frames are found in.
        """
        if not callable(handler_class):
            raise TypeError(f"handler {handler_class!r} cannot be called; expected a class or a function.")
        known = self._load(spec)
        with self._lock:
            if known is not None and known is not handler_class and not overwrite:
                raise DuplicateHandlerError(
                    f"spec {spec!r} is read by {_name(known)} already; expected a spec without a handler. Register "
                    f"{_name(handler_class)} with overwrite=True if it shall take its place."
                )
            if mimetype is None and getattr(handler_class, "mimetype", None) in FRAME_MIMETYPES:
                mimetype = str(handler_class.mimetype)  # type: ignore[attr-defined]
            if mimetype is None:
                # What another handler said of its files is not true of this one's.
                self._forget_mimetype(spec)
            else:
                add_spec(spec, mimetype)
                self._with_mimetype.add(spec)
            self._classes[spec] = handler_class
            self._by_hand.add(spec)
        for target in self._shared():
            target.register_handler(spec, handler_class)
            _logger.info("databroker's catalog in this process reads spec %r with %s, too.", spec, _name(handler_class))

    def deregister(self, spec: str) -> HandlerClass | None:
        """Have a spec read by nobody, until a handler is registered or `discover` is called.

        Returns
        -------
        callable or None
            The handler that read it, if any.
        """
        found = self._load(spec)
        with self._lock:
            self._by_hand.discard(spec)
            self._forget_mimetype(spec)
            self._classes.pop(spec, None)
            self._found().pop(spec, None)
        for target in self._shared():
            target.deregister_handler(spec)
        return found

    def _forget_mimetype(self, spec: str) -> None:
        if spec in self._with_mimetype:
            self._with_mimetype.remove(spec)
            remove_spec(spec)

    def share_with(self, targets: Iterable[Any]) -> None:
        """Have other registries read each spec as this one does, now and later, for as long as they live.

        Parameters
        ----------
        targets : iterable of object
            Each with ``register_handler(spec, handler_class)``, which takes the place of another, and
            ``deregister_handler(spec)``.
        """
        for target in targets:
            if not any(target is known for known in self._shared()):
                for spec, handler_class in self.items():
                    target.register_handler(spec, handler_class)
                self._targets.append(weakref.ref(target))

    def _shared(self) -> list[Any]:
        return [target for reference in self._targets if (target := reference()) is not None]

    def discover(self) -> dict[str, HandlerClass]:
        """Look for what installed packages bring, and import it all.

        They announce it in the entry-point groups ``bluesky_filestore.handlers`` and ``databroker.handlers``; where
        both have a spec, the first is taken. What cannot be imported is told to the log, once and by name. Handlers
        registered by hand stay.

        Returns
        -------
        dict
            All handlers by spec.
        """
        with self._lock:
            self._offers = None
            self._classes = {spec: self._classes[spec] for spec in self._by_hand}
        return dict(self)

    def _names(self) -> list[str]:
        with self._lock:
            return sorted({*self._classes, *self._found()})

    def _found(self) -> dict[str, list[EntryPoint]]:
        """What is announced for each spec, the preferred one first."""
        if self._offers is None:
            self._offers = {}
            for offer in announced_handlers():
                self._offers.setdefault(offer.name, []).append(offer)
        return self._offers

    def _load(self, spec: str) -> HandlerClass | None:
        with self._lock:
            if spec in self._classes:
                return self._classes[spec]
            offers = list(self._found().get(spec, ()))
        # Without the lock: what is imported may register handlers, in whichever thread is importing it.
        for offer in offers:
            try:
                found = offer.load()
            except Exception as error:  # noqa: BLE001 - importing another's package may raise anything
                self._report(offer, error)
            else:
                with self._lock:
                    return self._classes.setdefault(spec, found)
        return None

    def _report(self, offer: EntryPoint, error: Exception) -> None:
        name = f"{offer.group}: {offer.name} = {offer.value}"
        if name not in self._reported:
            self._reported.add(name)
            _logger.warning(
                "handler %s of package %s cannot be imported and is left out: %r", name, _distribution(offer), error
            )


def announced_handlers(spec: str | None = None) -> list[EntryPoint]:
    """What installed packages bring, for one spec or all, the preferred ones first."""
    offers = [offer for group in _GROUPS for offer in sorted(entry_points(group=group), key=_rank)]
    return [offer for offer in offers if spec in (None, offer.name)]


def unknown_spec(spec: str, known: list[str]) -> HandlerNotFoundError:
    """The error for a spec that nobody reads, with what would help."""
    package = _BRINGS.get(spec)
    advice = f"Install {package}, which brings one" if package else "Install the package that brings one"
    return HandlerNotFoundError(
        f"there is no handler for spec {spec!r}; expected one of {', '.join(known) or 'none at all'}. {advice}, or "
        f"give yours to register_handler({spec!r}, ...)."
    )


def find_handler(spec: str, handlers: Mapping[str, Any]) -> HandlerClass:
    """The handler class for a spec from any mapping.

    Raises
    ------
    HandlerNotFoundError
        If there is none; it names those that are there.
    """
    try:
        found: HandlerClass = handlers[spec]
    except HandlerNotFoundError:
        raise
    except KeyError:
        raise unknown_spec(spec, sorted(handlers)) from None
    return found


def _name(handler_class: HandlerClass) -> str:
    module, name = getattr(handler_class, "__module__", "?"), getattr(handler_class, "__qualname__", None)
    return f"{module}.{name}" if name else repr(handler_class)


def _rank(offer: EntryPoint) -> tuple[str, str]:
    return _distribution(offer), offer.value


def _distribution(offer: EntryPoint) -> str:
    return offer.dist.name if offer.dist is not None else "?"


handler_registry = HandlerRegistry()
"""The handlers of this process."""

register_handler = handler_registry.register
deregister_handler = handler_registry.deregister
discover_handlers = handler_registry.discover
