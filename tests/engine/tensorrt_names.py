"""Which names of TensorRT's Python API a source file uses, from its syntax tree: nobody keeps a list by hand.

What counts: everything behind a variable ``trt`` (the module, whichever of TensorRT's it is) and behind variables that
are annotated with one of its classes (``network: tensorrt.INetworkDefinition``), and what is taken from these.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

MODULE, ANY = "", "?"  # a name of the module itself; a member of some class that the syntax does not tell
PROTOCOLS = {"ExecutionContext": "IExecutionContext"}  # stated by the code -> what it is in TensorRT
_TYPE = re.compile(r"\btensorrt\.(\w+)")


@dataclass
class Names:
    """Pairs of class and member.

    Attributes:
        used: all that are used.
        asked: those that the code asks for first, with hasattr or getattr.
        instead: those that are used where what was asked for is not there.
    """

    used: set[tuple[str, str]] = field(default_factory=set)
    asked: set[tuple[str, str]] = field(default_factory=set)
    instead: set[tuple[str, str]] = field(default_factory=set)

    @property
    def needed(self) -> set[tuple[str, str]]:
        """Those that every version has to have."""
        classes = {name for owner, name in self.asked if owner == MODULE}
        optional = self.asked | self.instead
        return {pair for pair in self.used if pair not in optional and pair[0] not in classes}


def names_in(path: Path) -> Names:
    """The names of one file."""
    found = Names()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _Function(found).visit_function(node)
        elif isinstance(node, ast.ClassDef) and node.name in PROTOCOLS and ast.unparse(node.bases[0]) == "Protocol":
            found.used |= {(PROTOCOLS[node.name], item.name) for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


class _Function(ast.NodeVisitor):
    """Follows the variables of one function."""

    def __init__(self, found: Names) -> None:
        self.found, self.kinds = found, {"trt": MODULE}

    def visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in every:
            self._annotated(argument.arg, argument.annotation)
        for statement in node.body:
            self.visit(statement)

    def _annotated(self, name: str, annotation: ast.expr | None) -> None:
        stated = _TYPE.search(ast.unparse(annotation)) if annotation is not None else None
        if stated:
            self.kinds[name] = stated[1]
            self.found.used.add((MODULE, stated[1]))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self._annotated(node.target.id, node.annotation)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        kind = self._kind(node.value)
        for target in node.targets:
            if kind is not None and isinstance(target, ast.Name):
                self.kinds[target.id] = kind

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> None:
        for generator in node.generators:  # binds the variables that the element uses
            self.visit(generator)
        self.visit(node.elt)

    visit_GeneratorExp = visit_SetComp = visit_ListComp  # noqa: N815 - the visitor's own naming

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Methods that override those of a class of TensorRT."""
        for base in node.bases:
            self.visit(base)
            if isinstance(base, ast.Attribute) and self._kind(base.value) == MODULE:
                methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                self.found.used |= {(base.attr, name) for name in methods if not name.startswith("_")}

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """``x.new if hasattr(x, "new") else x.old``."""
        self.visit(node.test)
        self.visit(node.body)
        before = set(self.found.used)
        self.visit(node.orelse)
        if ast.unparse(node.test).startswith("hasattr("):
            self.found.instead |= self.found.used - before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        kind = self._kind(node.value)
        if kind is not None and not node.attr.startswith("__"):
            self.found.used.add((kind, node.attr))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        asks = isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr") and len(node.args) > 1
        if asks and isinstance(node.args[1], ast.Constant) and (kind := self._kind(node.args[0])) is not None:
            self.found.asked.add((kind, node.args[1].value))
        self.generic_visit(node)

    def _bind(self, target: ast.expr, source: ast.expr) -> None:
        kind = self._kind(source)
        if kind is not None and isinstance(target, ast.Name):
            self.kinds[target.id] = kind

    def _kind(self, node: ast.expr) -> str | None:
        """What an expression is: the module, an object of a class, of some class, or nothing of TensorRT's (None)."""
        if isinstance(node, ast.Name):
            return self.kinds.get(node.id)
        if isinstance(node, ast.Attribute):
            if ast.unparse(node) == "self._trt":
                return MODULE
            owner = self._kind(node.value)
            if owner is None or node.attr.startswith("__"):  # what Python adds gives Python's own objects
                return None
            return node.attr if owner == MODULE else ANY
        if isinstance(node, ast.Call):
            called = self._kind(node.func)
            # Calling a class makes an object of it; calling anything else gives something unknown.
            made = isinstance(node.func, ast.Attribute) and self._kind(node.func.value) == MODULE
            return called if made or called is None else ANY
        return ANY if isinstance(node, ast.Subscript) and self._kind(node.value) is not None else None
