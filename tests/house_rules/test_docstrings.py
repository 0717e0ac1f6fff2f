"""Everything public says what it is."""

from __future__ import annotations

import ast

from tests.house_rules.source import Module, library, listed, parse

Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_overload(node: Function) -> bool:
    """Whether it only adds a signature to a function that is documented once."""
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter", "override"})


def undocumented(module: Module) -> list[str]:
    """Modules, public classes, functions, methods and configuration fields without a docstring."""
    found = []
    if module.tree.body and ast.get_docstring(module.tree) is None:
        found.append(f"{module.path}:1: the module")

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.If | ast.Try):
                visit(node.body, prefix)
                visit(node.orelse, prefix)
            if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not (isinstance(node, Function) and is_overload(node)):
                found.append(f"{module.path}:{node.lineno}: {prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
                if node.name.endswith("Config"):
                    found.extend(f"{module.path}:{line}: {node.name}.{name}" for line, name in bare_fields(node))

    visit(module.tree.body, "")
    return found


def bare_fields(node: ast.ClassDef) -> list[tuple[int, str]]:
    """Fields of a dataclass that no string follows."""
    bare = []
    for index, statement in enumerate(node.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            after = node.body[index + 1] if index + 1 < len(node.body) else None
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            if not isinstance(text, str) or not text.strip():
                bare.append((statement.lineno, statement.target.id))
    return bare


def test_everything_public_is_documented():
    found = [line for module in library() for line in undocumented(module)]
    assert not found, listed(found)


def test_what_is_not_documented_is_found():
    text = '''
class A:
    """Said."""
    def b(self): ...
    def _c(self): ...
class XConfig:
    """Said."""
    d: int = 0
    """Said."""
    e: int = 0
def f():
    def g(): ...
'''
    found = [line.split(": ")[1] for line in undocumented(parse("m", "m.py", text))]
    assert found == ["the module", "A.b", "XConfig.e", "f"]
