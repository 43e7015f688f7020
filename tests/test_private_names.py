"""Names of PyTorch and Python without a contract: where they are used, and that each may be missing."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import lazytorch
from lazytorch import _torch
from tests.catalogue import first_fast

PACKAGE = Path(lazytorch.__file__).parent
FILES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names() -> dict[str, tuple[str, str]]:
    """By the name in ``_torch.py``: the module and the name of PyTorch that it imports."""
    found = {}
    for node in ast.walk(FILES["_torch.py"]):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=ours)],
                value=ast.Call(
                    func=ast.Name(id="optional"), args=[ast.Constant(value=module), ast.Constant(value=name), *_]
                ),
            ):
                found[ours] = (module, name)
    return found


IMPORTED = imported_names()


def run(code: str) -> str:
    """The output of a fresh process that runs ``code``."""
    command = [sys.executable, "-W", "error::DeprecationWarning:lazytorch", "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=PACKAGE.parent, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_name_is_imported_by_the_function_that_allows_it_to_be_missing():
    assert sorted(IMPORTED) == sorted(_torch.__all__)


@pytest.mark.parametrize("ours", first_fast(IMPORTED, 2))
def test_everything_works_without_one_name(ours):
    """In a process where PyTorch lacks that name, only a refinement is missing."""
    module, name = IMPORTED[ours]
    code = f"""
        import importlib, sys, types
        import torch
        from torch import nn

        original = importlib.import_module

        def without_name(module, package=None):
            found = original(module, package)
            if module != {module!r}:
                return found
            rest = types.ModuleType(module)
            vars(rest).update({{key: value for key, value in vars(found).items() if key != {name!r}}})
            return rest

        importlib.import_module = without_name
        import lazytorch
        importlib.import_module = original

        from lazytorch import _torch, is_lazy, layers, materialize, summary
        from lazytorch.models import get_model

        assert _torch.{ours} is not getattr(original({module!r}), {name!r})

        def lazy():
            return nn.Sequential(layers.LazyConvNormActivation(8), layers.LazyPointwiseConv2d(4), nn.ReLU())

        called = lazy()
        assert called(torch.zeros(2, 3, 8, 8)).shape == (2, 4, 8, 8)
        materialized = materialize(lazy(), (2, 3, 8, 8))
        assert not is_lazy(called) and not is_lazy(materialized)
        assert all(parameter.device.type == "cpu" for parameter in materialized.parameters())
        assert materialized(torch.zeros(2, 3, 8, 8)).shape == (2, 4, 8, 8)
        summarized = summary(lazy(), (2, 3, 8, 8))
        assert summarized.layers[0].output_shapes == [(2, 4, 8, 8)]
        assert summarized.parameters == sum(parameter.numel() for parameter in called.parameters())

        network = get_model("resnet10t", num_classes=3)
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
        assert not is_lazy(network)
        loaded = get_model("resnet10t", num_classes=3)
        loaded.load_state_dict(network.state_dict())
        assert summary(get_model("resnet10t", num_classes=3), (2, 3, 64, 64)).layers[0].output_shapes == [(2, 3)]
        print("works")
    """
    assert run(code) == "works"


def uses(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node of a file, with the name of the function that it is in."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        yield inner, node
        yield from uses(node, inner)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def chain(node: ast.AST) -> list[str]:
    """``["torch", "nn", "Module"]`` for ``torch.nn.Module``; nothing for other expressions."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def private_names(tree: ast.AST) -> list[str]:
    """The private names of PyTorch that a file uses; the storage of ``nn.Module`` is its subclasses' to use."""
    found = []
    aliases = {"torch": ["torch"]}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for each in names:
                    parts = each.name.split(".")
                    if parts[0] == "torch":
                        aliases[each.asname or "torch"] = parts if each.asname else ["torch"]
                        found += [each.name] if any(map(is_private, parts)) else []
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "torch":
                for each in names:
                    parts = [*module.split("."), each.name]
                    aliases[each.asname or each.name] = parts
                    found += [".".join(parts)] if any(map(is_private, parts)) else []
    for node in ast.walk(tree):
        first, *rest = chain(node) or [""]
        parts = [*aliases.get(first, []), *rest]
        of_module = parts[:3] == ["torch", "nn", "Module"]
        if first in aliases and not of_module and any(map(is_private, parts)):
            found.append(".".join(parts))
    return found


def test_private_names_of_pytorch_are_imported_in_one_file():
    found = {path: private_names(tree) for path, tree in FILES.items() if path != "_torch.py"}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_for_private_names_finds_them():
    code = """
        import torch
        import torch._dynamo
        import torch.utils._pytree as pytree
        from torch import nn
        from torch._subclasses import FakeTensorMode
        from torch.nn.modules.module import _has_any_global_hook
        torch._C._functions
        torch._dynamo.graph_break()
        nn.modules.module._global_forward_hooks
        nn.Module._call_impl
        self._parameters
    """
    assert set(private_names(ast.parse(textwrap.dedent(code)))) == {
        "torch._dynamo",
        "torch._dynamo.graph_break",
        "torch.utils._pytree",
        "torch._subclasses.FakeTensorMode",
        "torch.nn.modules.module._has_any_global_hook",
        "torch._C",
        "torch._C._functions",
        "torch.nn.modules.module._global_forward_hooks",
    }


INTERPRETER = {
    *("get_objects", "get_referents", "get_referrers", "getrefcount"),
    *("co_code", "co_exceptiontable", "co_filename", "f_lasti", "_parse_exception_table"),
    *("_current_frames", "_getframe", "currentframe", "f_back", "f_code", "f_globals", "f_locals", "tb_frame"),
}
# Functions that read frames or modules, and what for.
READERS = {
    ("_lazy/scopes.py", "path_in_running_model"): "the place of a module in the message of an error",
    ("models/notes.py", "note_path"): "the place of a module in the message of an error",
    ("_lazy/scopes.py", "warn"): "the line that a warning shows",
}


def test_the_interpreter_is_not_inspected_to_decide_anything():
    """Neither frames, heap, reference counts nor bytecode; they may improve a message."""
    found = set()
    for path, tree in FILES.items():
        for function, node in uses(tree):
            match node:
                case ast.Attribute(attr=name) if name in INTERPRETER:
                    found.add((path, function))
                case ast.ImportFrom(names=names) if any(each.name in INTERPRETER for each in names):
                    found.add((path, function))
                case ast.Attribute(value=ast.Name(id="sys"), attr="modules"):
                    found.add((path, function))
                case ast.Import(names=names) if {each.name for each in names} & {"dis", "gc"}:
                    found.add((path, function))
    assert found <= READERS.keys()
