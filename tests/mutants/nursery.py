"""Runs pytest in children of a process that has imported, once for all mutants, what is none of ours.

Orders come on the standard input, a JSON line each: the arguments, for how many seconds at most, and where its words
go. The answer is how pytest ended, or that it did not.
"""

import json
import os
import select
import signal
import sys
import traceback


def main() -> None:
    """Take orders."""
    import dask.array  # noqa: F401
    import event_model  # noqa: F401
    import h5py  # noqa: F401
    import hypothesis.strategies  # noqa: F401
    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    import pytest
    import tifffile  # noqa: F401
    import tiled.client  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            os.setsid()
            words = os.open(order["words"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(words, 1)
            os.dup2(words, 2)
            code = 3
            try:
                code = int(pytest.main(order["arguments"]))
            except BaseException:  # noqa: BLE001 - it is told
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        ended = os.pidfd_open(child)
        is_over, _, _ = select.select([ended], [], [], order["timeout"])
        if not is_over:
            os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(ended)
        print(json.dumps(code if is_over else None), flush=True)


if __name__ == "__main__":
    main()
