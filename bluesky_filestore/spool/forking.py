"""Locks on files that are had for a moment, and processes that are forked meanwhile.

A forked child has what its parent has open, with the locks on it: had it a file that one of the parent's threads has
locked to look at it, nobody could lock that for as long as the child lives.
"""

import os
import threading

__all__ = ["no_fork"]

no_fork = threading.RLock()
"""Held by whoever opens and locks a file, until that is closed, or known to be closed in a child: no thread forks then.

Nobody waits for another process inside: who forks would have to.
"""
os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)
