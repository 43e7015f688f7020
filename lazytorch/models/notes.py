"""Notes on errors in a network: the module that raised the error, and the input that the network was built from."""

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from lazytorch.models.trunk import Trunk

__all__ = ["note_call"]


def note_call(model: "Trunk", error: Exception, x: Any) -> None:
    """Add notes to ``error``: the module of ``model`` that raised it, and the input that ``model`` was built from."""
    note_path(model, error)
    shape = list(getattr(x, "shape", ()))
    if any("was built from" in note for note in getattr(error, "__notes__", ())):
        return
    if model.built_from and (len(shape), shape[1:2]) != (len(model.built_from), list(model.built_from[1:2])):
        error.add_note(
            f"{type(model).__name__} was built from input {model.built_from}, and called with {tuple(shape)}"
        )


def note_path(model: nn.Module, error: Exception) -> None:
    """Add to ``error`` the name of the module of ``model`` that raised it, unless a note names it already."""
    if any(note.startswith("at ") for note in getattr(error, "__notes__", ())):
        return
    names = {module: name for name, module in model.named_modules()}
    path, traceback = "", error.__traceback__
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if frame.f_code is getattr(nn.Module._call_impl, "__code__", None):
            path = names.get(frame.f_locals["self"], "") or path
    if path:
        error.add_note(f"at {path}")
