"""The child process of `SimulatedIOC`: says ``ready`` on its output, and ends when its input does."""

import argparse
import gc
import sys

from .ioc import DEFAULT_PREFIX, run_ioc


def main() -> None:
    """Run the IOC with the options of the command line."""
    gc.set_threshold(20_000, 20, 20)  # See `bluesky_filestore.cli.main`.
    parser = argparse.ArgumentParser(prog="python -m bluesky_filestore.sim", description=__doc__)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--prefix", default=DEFAULT_PREFIX)
    parser.add_argument("--port", type=int)
    parser.add_argument("--plugin-delay", type=float, default=0.0)
    parser.add_argument("--disk-space", type=int)
    options = parser.parse_args()

    def say_ready(port: int) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    run_ioc(
        options.directory,
        options.prefix,
        options.port,
        plugin_delay=options.plugin_delay,
        disk_space=options.disk_space,
        on_ready=say_ready,
        stop_at_end_of=sys.stdin.buffer,
    )


if __name__ == "__main__":
    main()
