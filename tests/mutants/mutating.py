"""Mutants of a module: its source with one thing changed."""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult}
# Bounds and sizes: one more or less of so many is nobody's promise.
_OF_NO_MATTER = 10
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SQL = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE|WHERE|PRAGMA|ORDER BY|ON CONFLICT|AND)\b")
_IN_SQL = [
    (re.compile(r"FULL\b"), "NORMAL"),
    (re.compile(r" ORDER BY \w+( DESC)?"), ""),
    (re.compile(r" AND (?!now\b|catalog)[^()]*?(?= AND | ORDER| GROUP|$)"), ""),
    (re.compile(r"WHERE (?=\S)"), "WHERE NOT "),
    (re.compile(r" <> "), " = "),
    (re.compile(r" > \?"), " >= ?"),
    (re.compile(r" < \?"), " <= ?"),
    (re.compile(r"\bIGNORE\b"), "REPLACE"),
    (re.compile(r" NOT IN "), " IN "),
]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one thing changed."""

    kind: str
    """What was done."""
    where: str
    """The function, or class, it was done in; empty for the module."""
    before: str
    """The changed statement as it was, if it is a compound one its first line."""
    after: str
    """What it is now."""
    line: int
    """Where, in the source."""
    number: int = -1
    """Which of the module's mutants it is."""

    @property
    def name(self) -> str:
        """What it is known by, wherever it stands."""
        return f"{self.where or 'module'}: {self.before} => {self.after}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node is in its tree."""

    where: str
    statement: ast.stmt | ast.match_case
    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST

    def put(self, node: ast.AST) -> None:
        """Have another node here."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    found: list[Mutant] = []
    for place, kind, after in _all(ast.parse(source)):
        before = _first_line(place.statement)
        place.put(after)
        changed = _first_line(after if place.node is place.statement else place.statement)
        place.put(place.node)
        line = getattr(place.node, "lineno", getattr(place.statement, "lineno", 0))
        found.append(Mutant(kind, place.where, before, changed, line, len(found)))
    return found


def made(source: str, mutant: Mutant) -> str:
    """The source of a module of which a mutant was made, changed so."""
    if mutant.number < 0:
        assert source.count(mutant.before) == 1, (
            f"{mutant.before!r} is not once in the source, but elsewhere or no more"
        )
        return source.replace(mutant.before, mutant.after)
    tree = ast.parse(source)
    place, _, after = next(itertools.islice(_all(tree), mutant.number, None))
    place.put(after)
    return ast.unparse(ast.fix_missing_locations(tree))


def _all(tree: ast.Module) -> Iterator[tuple[_Place, str, ast.AST]]:
    """Each node that may be another, the kind of change, and the other."""
    for place in _places(tree, "", None):
        for kind, after in _changes(place.node):
            yield place, kind, after


def _first_line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node)).strip().partition("\n")[0]


def _places(parent: ast.AST, where: str, statement: ast.stmt | ast.match_case | None) -> Iterator[_Place]:
    """The places of statements and expressions that make a difference, always in the same order."""
    for field, children in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(
            parent, ast.Call
        ):
            continue
        is_list = isinstance(children, list)
        for index, node in enumerate(children if is_list else [children]):
            if not isinstance(node, ast.AST) or _is_left_out(node):
                continue
            within = node if isinstance(node, ast.stmt | ast.match_case) else statement
            if within is not None and not isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield _Place(where, within, parent, field, index if is_list else None, node)
            name = f"{where}.{node.name}".lstrip(".") if isinstance(node, ast.FunctionDef | ast.ClassDef) else where
            yield from _places(node, name, within)


def _is_left_out(node: ast.AST) -> bool:
    """What a test need not notice: words of errors and of the log, docstrings, names that are imported."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Raise() | ast.JoinedStr() | ast.Assert():
            return True
        case ast.AnnAssign(value=None) | ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name("_logger")))):
            return True
        case ast.Assign(targets=[ast.Name("__all__")]) | ast.AnnAssign(annotation=ast.Name("TypeAlias")):
            return True
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            return True
    return False


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may become of a node, and what kind of change that is."""
    yield from _without(node)
    yield from _with_other_operator(node)
    yield from _with_other_value(node)


def _without(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """It does not depend on its condition, or is not there."""
    match node:
        case ast.If() | ast.IfExp():
            for value in (True, False):
                yield "condition", _copy(node, test=ast.Constant(value))
        case ast.While():
            yield "condition", _copy(node, test=ast.Constant(False))
        case ast.comprehension(ifs=[_, *_]):
            yield "condition", _copy(node, ifs=node.ifs[1:])
        case ast.Expr() | ast.AugAssign() | ast.Delete() | ast.Break() | ast.Continue() | ast.Return(value=None):
            yield "statement", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield "statement", ast.Pass()


def _with_other_operator(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare():
            for place, one in enumerate(node.ops):
                ops = [*node.ops[:place], _COMPARED[type(one)](), *node.ops[place + 1 :]]
                yield "comparison", _copy(node, ops=ops)
        case ast.BoolOp():
            for place in range(len(node.values)):
                left = node.values[:place] + node.values[place + 1 :]
                yield "operand", left[0] if len(left) == 1 else _copy(node, values=left)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "operand", node.operand
        case ast.BinOp() if type(node.op) in _COMPUTED:
            yield "operator", _copy(node, op=_COMPUTED[type(node.op)]())


def _with_other_value(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Call(func=ast.Name(name)) if name in _NAMES:
            yield "function", _copy(node, func=ast.Name(_NAMES[name], ast.Load()))
        case ast.Call(keywords=[_, *_]):
            for each in node.keywords:
                yield "argument", _copy(node, keywords=[other for other in node.keywords if other is not each])
        case ast.Constant(value=bool() as value):
            yield "number", ast.Constant(not value)
        case ast.Constant(value=int() as value) if value < _OF_NO_MATTER:
            yield "number", ast.Constant(value + 1)
        case ast.Constant(value=str() as text) if _SQL.search(text):
            for pattern, instead in _IN_SQL:
                changed = pattern.sub(instead, text, count=1)
                if changed != text:
                    yield "SQL", ast.Constant(changed)


def _copy(node: ast.AST, **changed: object) -> ast.AST:
    return ast.copy_location(type(node)(**{**dict(ast.iter_fields(node)), **changed}), node)
