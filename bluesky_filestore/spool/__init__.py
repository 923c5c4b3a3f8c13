"""Documents on the disk, until every catalog has them."""

from .ledger import Ledger
from .store import Store

__all__ = ["Ledger", "Store"]
