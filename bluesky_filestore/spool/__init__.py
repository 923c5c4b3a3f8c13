"""The spool: where documents are safe as soon as a callback returns, and from where they are delivered."""

from .ledger import Ledger
from .store import Store
from .uploader import Uploader

__all__ = ["Ledger", "Store", "Uploader"]
