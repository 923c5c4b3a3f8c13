"""What tests are tried with: mutants of the package; see ``python -m tests.mutants --help``."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import Copy, chosen
from tests.mutants.mutating import Mutant, made, mutants_of
from tests.mutants.subjects import SUBJECTS, arguments_of, by_hand, equivalent

ROOT = Path(__file__).parents[1]
SOURCES = {module: (ROOT / "bluesky_filestore" / f"{module}.py").read_text() for module in SUBJECTS}


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("if a: b()", ["if True:", "if False:", "pass"]),
        ("while a: break", ["while False:", "pass"]),
        ("return [a for a in b if c]", ["return [a for a in b]"]),
        ("self.a = b", ["pass"]),
        ("a = b", []),
        ("return a < b <= c", ["return a <= b <= c", "return a < b < c"]),
        ("return a and not b", ["return not b", "return a", "return a and b"]),
        ("return a + 1", ["return a - 1", "return a + 2"]),
        ("return min(a)", ["return max(a)"]),
        ("return a(b=c, d=e)", ["return a(d=e)", "return a(b=c)"]),
        ("return False", ["return True"]),
        ("match a:\n        case 1: b()", ["case 2:", "pass"]),
        ("return 10_000", []),
        ("raise Error('x', 1)", []),
        ("return 'SELECT a FROM b WHERE c = ?'", ["return 'SELECT a FROM b WHERE NOT c = ?'"]),
        ("a = 'PRAGMA synchronous = FULL'", ["a = 'PRAGMA synchronous = NORMAL'"]),
    ],
)
def test_mutants_of_a_line(line, mutants):
    """Each thing that a statement says is changed once, and nothing else of its module."""
    source = f"def f():\n    '''Words.'''\n    {line}\n"
    assert [each.after for each in mutants_of(source)] == mutants
    assert {each.where for each in mutants_of(source)} <= {"f"}
    for each in mutants_of(source):
        assert each.after in made(source, each)


@pytest.mark.parametrize("module", SUBJECTS)
def test_subjects(module):
    """Their tests are there, what was thought of stands in them, and what is named as equivalent is still a mutant."""
    assert [each for each in arguments_of(module) if not (ROOT / each.partition("::")[0]).is_file()] == []
    for mutant in by_hand(module, SOURCES[module]):
        assert made(SOURCES[module], mutant) != SOURCES[module]
    names = {each.name for each in mutants_of(SOURCES[module])}
    assert [name for of, name in equivalent() if of == module and name not in names] == []


def test_equivalents_have_reasons():
    """A mutant that is left alive says why."""
    assert [name for name, reason in equivalent().items() if len(reason) < 20] == []
    assert {module for module, _ in equivalent()} <= set(SUBJECTS)


def test_a_seed_chooses():
    """The same mutants each time, of each module its share, and those that somebody thought of."""
    first, second = (chosen(list(SUBJECTS), 20, seed=3) for _ in range(2))
    assert first == second
    assert sum(map(len, first.values())) == 20 + sum(len(by_hand(of, source)) for of, source in SOURCES.items())
    assert first != chosen(list(SUBJECTS), 20, seed=4)


def test_killed_and_survived(tmp_path, monkeypatch):
    """What a test notices is killed by that; what no test looks at survives; the tree stays as it is."""
    monkeypatch.setitem(SUBJECTS, "model/paths", "model/paths.py")
    copy = Copy(tmp_path)
    path = copy.directory / "bluesky_filestore" / "model" / "paths.py"
    source = path.read_text()
    last = source.splitlines(keepends=True)[-1]
    killed = Mutant("by hand", "", "return _FLAVOURS[", "return None and _FLAVOURS[", 1)
    survives = Mutant("by hand", "", last, f"{last}# Nothing else.\n", 1)
    tried = [copy.try_one("model/paths", each, 60.0) for each in (killed, survives)]
    copy.close()
    assert ["model/paths.py" in each.by for each in tried] == [True, False]
    assert path.read_text() == source
