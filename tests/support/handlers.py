"""Static analysis of the exception handlers that could catch a UserError by accident.

A handler of ValueError, ImportError, Exception, ... also catches :class:`ccsa.errors.UserError`,
whose message is complete where it is raised. Such a handler must not swallow or re-wrap it, so one
of these must hold for its ``try`` statement:

* an earlier handler is ``except UserError: raise``;
* the handler only re-raises: it ends with a bare ``raise`` and cannot leave earlier;
* the body uses no function or class of this project: every call is to a builtin, to something
  imported from another package, or to a method whose name no class of this project defines. (The
  class of a local object is not known here, so a method counts by its name.)
"""

import ast
import builtins
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from ccsa.errors import MissingPackageError, UserError

PROJECT = ("ccsa", "benchmarks", "experiments")
FOLDERS = ("projects", "tools", "benchmarks", "experiments")
USER_ERRORS = (UserError, MissingPackageError)
# Functions of other packages that call back into this project.
CALLBACKS = {"build_model", "launch", "build_backbone", "build_sem_seg_head", "build_roi_heads"}

Statement = ast.Try | ast.With


def risky_handlers(path: Path, root: Path) -> list[tuple[str, int]]:
    """Return (enclosing function, line) of the handlers in a file that may catch a UserError."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = _Module(tree, path, root)
    return [
        (function, line)
        for function, statement in _statements(tree, "")
        for line in module.risky_lines(statement)
    ]


def _statements(node: ast.AST, function: str) -> Iterator[tuple[str, Statement]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _statements(child, f"{function}.{child.name}".lstrip("."))
            continue
        if isinstance(child, Statement):
            yield function, child
        yield from _statements(child, function)


@functools.cache
def _methods(root: Path) -> frozenset[str]:
    """Return the names of all methods that the classes of the project define."""
    return frozenset(
        method.name
        for folder in FOLDERS
        for file in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    )


class _Module:
    """The names of a module, by origin, and the exceptions that it catches."""

    def __init__(self, tree: ast.Module, path: Path, root: Path):
        self.path, self.root = path, root
        self.external: set[str] = set()
        self.project: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.project.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._add_import(node)
        self.external -= CALLBACKS

    def _add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = (alias.asname or alias.name).split(".")[0]
            origin = (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            relative = isinstance(node, ast.ImportFrom) and node.level
            of_project = relative or origin.split(".")[0] in PROJECT
            (self.project if of_project else self.external).add(name)

    def risky_lines(self, statement: Statement) -> list[int]:
        if isinstance(statement, ast.With):
            return self._risky_suppress(statement)
        lines = []
        for handler in statement.handlers:
            caught = self._exceptions(handler.type)
            if UserError in caught:  # on purpose
                if [ast.unparse(part) for part in handler.body] == ["raise"]:
                    break  # no UserError reaches the handlers after this one
            elif (
                _catches_user_errors(caught)
                and not _only_reraises(handler)
                and self._uses_project(statement.body)
            ):
                lines.append(handler.lineno)
        return lines

    def _risky_suppress(self, statement: ast.With) -> list[int]:
        for item in statement.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("suppress"):
                caught = [kind for argument in call.args for kind in self._exceptions(argument)]
                if _catches_user_errors(caught) and self._uses_project(statement.body):
                    return [statement.lineno]
        return []

    def _exceptions(self, expression: ast.expr | None) -> tuple[type[BaseException], ...]:
        if expression is None:
            return (BaseException,)
        code = ast.unparse(expression)
        try:
            value = eval(code, vars(builtins).copy())
        except NameError:
            value = eval(code, self._namespace())
        return value if isinstance(value, tuple) else (value,)

    def _namespace(self) -> dict:
        """Import the module, to know the exceptions that it defines or imports."""
        parts = self.path.relative_to(self.root).with_suffix("").parts
        if parts[0] in ("projects", "benchmarks", "experiments"):
            name = ".".join(parts[parts[0] == "projects" :])
            return vars(importlib.import_module(name.removesuffix(".__init__")))
        spec = importlib.util.spec_from_file_location(f"_handlers_{self.path.stem}", self.path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return vars(module)

    def _uses_project(self, body: list[ast.stmt]) -> bool:
        return any(self._is_project_use(node) for part in body for node in ast.walk(part))

    def _is_project_use(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True  # the body of the caller's with statement
        if isinstance(node, ast.Name):
            return node.id in self.project and not node.id.isupper()
        if not isinstance(node, ast.Call):
            return False
        called = node.func
        if isinstance(called, ast.Name):
            known = called.id in self.external or hasattr(builtins, called.id)
            return called.id == "super" or not known
        if isinstance(called, ast.Attribute):
            owner = called.value
            if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
                return True
            return called.attr in CALLBACKS or (
                called.attr in _methods(self.root) and not self._is_external(owner)
            )
        return True  # the function is an expression, such as TABLE[name]

    def _is_external(self, owner: ast.expr) -> bool:
        """Return whether something belongs to another package, such as ``torch.cuda``, a constant,
        or the result of a builtin or of a function of another package."""
        while isinstance(owner, ast.Attribute | ast.Call):
            owner = owner.value if isinstance(owner, ast.Attribute) else owner.func
        if isinstance(owner, ast.Name):
            return owner.id in self.external or hasattr(builtins, owner.id)
        return isinstance(owner, ast.Constant | ast.JoinedStr)


def _catches_user_errors(caught: Iterable[type[BaseException]]) -> bool:
    return any(issubclass(error, kind) for kind in caught for error in USER_ERRORS)


def _only_reraises(handler: ast.ExceptHandler) -> bool:
    leaving = (ast.Return, ast.Continue, ast.Break, ast.Raise)
    *others, last = handler.body
    return ast.unparse(last) == "raise" and not any(
        isinstance(node, leaving) for statement in others for node in ast.walk(statement)
    )
