"""What is changed, and which tests are to notice; and what is known of single mutants."""

from pathlib import Path

from .mutating import Mutant

HERE = Path(__file__).parent

_HISTORIES = " ".join(f"simulation::test_histories[{first}]" for first in (0, 25, 50))
SUBJECTS = {
    "model/frame_map": "model_frame_map operations_gathering model_frame_axis operations_run operations_structure",
    "model/stream_rows": "model_frame_map operations_gathering operations_run operations_structure",
    "model/paths": "model/paths.py model_paths model_compose",
    "spool/store": "spool_store spool_producer spool_belonging",
    "spool/producer": "spool_producer spool_belonging spool_store spool_refused",
    "spool/current_producer": "spool_current_producer spool_store",
    "spool/encoding": "spool/encoding.py spool_encoding",
    "spool/ledger": "spool_ledger delivery_conveyor_lanes spool_spooled_run",
    "spool/states": "spool_ledger delivery_conveyor_lanes spool_spooled_run",
    "delivery/conveyor": f"delivery_conveyor_lanes delivery_lane {_HISTORIES}",
    "delivery/lanes": f"delivery_conveyor_lanes {_HISTORIES}",
    "delivery/applying": f"delivery_lane one_failure delivery_conveyor_lanes {_HISTORIES}",
    "delivery/lane": f"delivery_lane one_failure delivery_conveyor_lanes {_HISTORIES}",
}
"""The modules of tests that mirror a module, single tests of them, or its own examples; the fast ones first."""

BY_HAND = {
    "model/frame_map": [
        ("if self.numbers and sum(self.numbers[-1]) == seq_num:", "if self.numbers:"),
        ("left = row + step, seq_num + step, left - step", "left = row + step, seq_num + step, 0"),
        ("            self._starts.append(self.count)\n", ""),
    ],
    "model/stream_rows": [
        ("(whole.part(whole.seq_num, first), whole.part(stop, whole.end))", "(whole.part(stop, whole.end),)"),
        ("(whole.part(whole.seq_num, first), whole.part(stop, whole.end))", "(whole.part(whole.seq_num, first),)"),
        ("            ranges.insert(position, part)\n", "            break\n"),
        ("_cut(self._free, position, wanted, wanted + length)", "_cut(self._free, position, wanted, wanted + 1)"),
        ("range(position - 1, -1, -1)", "range(position - 2, -1, -1)"),
        ("range(position - 1, -1, -1)", "range(position - 1, 0, -1)"),
        ("taken.source, taken.start, length,", "taken.source, taken.start, length - 1,"),
        ("taken.source, taken.start, length,", "taken.source, taken.start + 1, length,"),
    ],
    "spool/producer": [('            self.connection.execute("PRAGMA synchronous = FULL")\n', "            pass\n")],
    "spool/store": [('is_full=durability == "full"', "is_full=False")],
}
"""Mutants that somebody thought of, most of which survived once: they are always tried."""


def arguments_of(module: str) -> list[str]:
    """What pytest is to be given for a module."""
    found = []
    for each in SUBJECTS[module].split():
        name, *one = each.split("::")
        path = f"bluesky_filestore/{name}" if name.endswith(".py") else f"tests/test_{name}.py"
        found.append("::".join([path, *one]))
    return found


def by_hand(module: str, source: str) -> list[Mutant]:
    """The mutants of a module that somebody thought of."""
    found = []
    for before, after in BY_HAND.get(module, ()):
        line = source[: source.index(before)].count("\n") + 1
        found.append(Mutant("by hand", "", before, after, line))
    return found


def equivalent() -> dict[tuple[str, str], str]:
    """Why nobody could tell some mutants from the package, by module and name."""
    found, module, name = {}, "", ""
    for line in (HERE / "equivalent.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            module = line.strip("[]")
        elif line.startswith(" "):
            found[module, name] = f"{found.get((module, name), '')} {line.strip()}".strip()
        else:
            name = line
    return found
