"""The operations of runs, carried out by a catalog one by one: what is tried again, left out, or begun anew."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
    OtherWriterError,
    RowsDifferError,
)
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.operations import Catalog, CloseRun, Operation, name_of

from .health import CatalogHealth
from .problems import Problems
from .run_delivery import RunDelivery
from .settings import DeliverySettings

__all__ = ["Applying"]

_logger = get_logger(__name__)
_TRIED_AGAIN = (CatalogUnreachableError, CatalogAccessError, CatalogFaultError, RowsDifferError)


class Applying:
    """Has a catalog carry out what runs ask of it; what it will not have is put among the problems.

    Parameters
    ----------
    catalog : Catalog
        Where the operations are applied.
    problems : Problems
        What goes wrong is added here.
    health : CatalogHealth
        What is known of the catalog.
    settings : DeliverySettings
        How its user wants it.
    may_begin_again : callable
        Whether a run, by its uid, may be gone through again from its first document.
    notes_of : callable
        What is noted of a run in the spool, by its number there.
    """

    def __init__(
        self,
        catalog: Catalog,
        problems: Problems,
        health: CatalogHealth,
        settings: DeliverySettings,
        may_begin_again: Callable[[str], bool],
        notes_of: Callable[[int], Iterable[str]],
    ) -> None:
        self._catalog, self._problems, self._health = catalog, problems, health
        self._settings, self._may_begin_again, self._notes_of = settings, may_begin_again, notes_of

    def try_first(self, run: RunDelivery) -> None:
        """Have the catalog carry out the first operation of a run.

        Raises
        ------
        CatalogError
            If the catalog is away, or does not let us in; the operation is still the first then.
        RowsDifferError
            If the catalog holds other rows of the run than it should, which may begin again.
        """
        try:
            is_refused = not self._apply(run, run.operations[0])
        except CatalogAccessError:
            raise
        except CatalogError as error:
            if self._differs_or_is_away(run, error):
                raise
            is_answer = isinstance(error, RowsDifferError) and not isinstance(error.__cause__, CatalogError)
            # It holds other rows, and would at another time: that is not tried again.
            if is_answer or not run.failed(error, patience=self._settings.park_after):
                self._leave_out(run, error)
        else:
            self._health.succeeded(run.uid)
            run.has_given_up = run.has_given_up or is_refused
            run.succeeded()

    def _differs_or_is_away(self, run: RunDelivery, error: CatalogError) -> bool:
        """Whether what failed is not for this run to wait for: it begins again, or nothing goes.

        Raises
        ------
        CatalogError
            If the catalog is away altogether.
        """
        differs = isinstance(error, RowsDifferError)
        if not differs or isinstance(error.__cause__, CatalogError):
            self._health.check()
        if differs and not run.has_given_up and self._may_begin_again(run.uid):
            return True
        return not differs and not run.only_end_is_left and self._health.failed(run.uid)

    def _leave_out(self, run: RunDelivery, error: CatalogError) -> None:
        self._health.forget(run.uid)
        self._problems.add(run.uid, f"{name_of(run.operations[0])}: {error}")
        # A run that only lacks its end is parked, and gets that as soon as it goes.
        run.give_up(is_end=isinstance(run.operations[0], CloseRun))

    def _apply(self, run: RunDelivery, operation: Operation) -> bool:
        """Carry out an operation; False if the catalog will not have it, which is put among the problems.

        Raises
        ------
        CatalogError
            If the catalog may take it at another time.
        """
        is_complete = not run.has_given_up
        if isinstance(operation, CloseRun):
            operation = operation.saying(*self._notes_of(run.entry.number), *self._problems.of(run.uid))
            operation = replace(operation, is_complete=is_complete)
        try:
            with self._health.asking():
                self._catalog.apply(operation)
        except _TRIED_AGAIN:
            raise
        except Exception as error:
            # One node that the catalog will not have, or that cannot be made, must not keep the rest from it.
            if isinstance(error, OtherWriterError):
                run.leave_to_others()
            elif not isinstance(error, CatalogError):
                _logger.exception("%s could not be applied.", name_of(operation))
            words = error if isinstance(error, CatalogError) else repr(error)
            self._problems.add(run.uid, f"{name_of(operation)}: {words}")
            return False
        if isinstance(operation, CloseRun):
            run.closed(operation)
            in_doubt = is_complete and self._catalog.in_doubt(run.uid)
            run.doubted_since = time.monotonic() if in_doubt else None
        return True
