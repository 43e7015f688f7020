"""The state of modules: adopt that of a built module, replace references, restore it after a forward on shapes."""

import collections
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lazytorch._lazy.deferred import Deferred
from lazytorch._lazy.unbuilt import PLACEHOLDER

MODULE_STATE = vars(nn.Module())
# The attributes of a lazy module that its user did not add.
NOT_ADDED = {*MODULE_STATE, "_deferred", "_compiled_call_impl"}
HOOKS = [name for name in MODULE_STATE if name.endswith("_hooks") or "_hooks_" in name]
ATOMS = (str, bytes, int, float, bool, type(None))
CONTAINERS = (dict, list, set, collections.deque)


class Adoption:
    """Gives ``module`` the class and the state of the module that was built for it.

    Attributes, submodules and hooks that were set on ``module`` are kept. Hooks have the order that they would have on
    an eager module: first those registered with ``prepend``, then those of the target's constructor, then all others.
    Until ``keep`` or ``undo`` is called, a hook records whether another thread calls the module; ``undo`` then leaves
    it built.

    Args:
        module: The lazy module, whose identity is kept.
        built: The module that was built for it.
        rebind: Whether ``built`` may contain references to itself.
        initialization: A postponed initialization, which is run before another thread calls the module; None if none.
    """

    def __init__(
        self, module: nn.Module, built: nn.Module, *, rebind: bool, initialization: Callable[[], None] | None
    ) -> None:
        self.module, self.old_class, self.old_state = module, type(module), vars(module)
        self.thread, self.called_elsewhere, self.initialization = threading.get_ident(), False, initialization
        deferred: Deferred = self.old_state["_deferred"]
        old, new = self.old_state, vars(built)
        self.hooks_of_built = {name: set(new[name]) for name in HOOKS}
        if rebind:
            rebind_references(built, module, {id(new[name]): old[name] for name in HOOKS})
        for name in ("_parameters", "_buffers", "_modules"):
            new[name].update({key: each for key, each in old[name].items() if key != PLACEHOLDER})
        new["_non_persistent_buffers_set"] |= old["_non_persistent_buffers_set"]
        for name, value in old.items():
            flag = name in ("training", "_is_full_backward_hook") and value != MODULE_STATE[name]
            if (flag or name not in NOT_ADDED) and deferred.given.get(name, self) is not value:
                new[name] = value
        for slot in (each for base in type(built).__mro__ for each in vars(base).values()):
            if isinstance(slot, MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # it has no value
                    slot.__set__(module, slot.__get__(built))
        for name in HOOKS:  # the dicts of the lazy module are kept, because handles refer to them
            own, theirs = old[name], new[name]
            if theirs:
                after = {key: own.pop(key) for key in list(own) if key not in deferred.prepended}
                own.update(theirs)
                own.update(after)
            new[name] = own
        self.names = set(new)
        self.handle = RemovableHandle(new["_forward_pre_hooks"])
        if deferred.compile is None:  # a hook would be compiled as well
            new["_forward_pre_hooks"][self.handle.id] = self.note_call
        object.__setattr__(module, "__dict__", new)
        object.__setattr__(module, "__class__", type(built))
        if rebind:
            keep_twin(built, module)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Adoption":
        return self  # another thread may copy the module at the same time

    def note_call(self, module: nn.Module, args: Any) -> None:
        if threading.get_ident() != self.thread:
            self.called_elsewhere = True
            if self.initialization is not None:
                self.initialization()

    def keep(self) -> None:
        self.handle.remove()

    def undo(self) -> None:
        """Make the module lazy again; changes of hooks and attributes that were made after the build are kept."""
        self.handle.remove()
        if self.called_elsewhere:
            return
        state = vars(self.module)
        vars(state["_forward_hooks"]).pop("twin", None)
        for name, keys in self.hooks_of_built.items():
            for key in keys:
                state[name].pop(key, None)
        self.old_state.update({name: value for name, value in state.items() if name not in self.names})
        object.__setattr__(self.module, "__dict__", self.old_state)
        object.__setattr__(self.module, "__class__", self.old_class)


def keep_twin(twin: nn.Module, module: nn.Module) -> None:
    """Let ``twin``, from which ``module`` took its state, share this state, as other objects may still refer to it.

    If there are weak references to ``twin``, such as those of ``weakref.finalize``, it is kept alive with ``module``.
    """
    if hasattr(type(twin), "__del__"):
        object.__setattr__(twin, "__class__", without_finalizer(type(twin)))
    object.__setattr__(twin, "__dict__", vars(module))
    if weakref.getweakrefcount(twin):
        vars(module)["_forward_hooks"].twin = KeptAlive(twin)  # an OrderedDict, which has attributes


@functools.cache
def without_finalizer(cls: type) -> type:
    return type(cls.__name__, (cls,), {"__del__": lambda self: None, "__module__": cls.__module__})


class KeptAlive:
    """Keeps an object alive; a copy or pickle is an empty dict."""

    def __init__(self, kept: object) -> None:
        self.kept = kept

    def __reduce__(self) -> Any:
        return dict, ()


def reachable(roots: list[Any], *, through_modules: bool, skipped: tuple[type, ...] = ()) -> Iterator[Any]:
    """Yield objects that can contain references, from ``roots``: containers, closures, bound methods and partials.

    Args:
        roots: The objects to start from.
        through_modules: Whether to follow the attributes of modules; otherwise, those of other objects are followed.
        skipped: Classes whose objects are skipped.
    """
    seen: dict[int, Any] = {}
    while roots:
        value = roots.pop()
        if isinstance(value, (*ATOMS, type, Tensor, ModuleType, *skipped)) or id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        match value:
            case dict():
                roots += [each for each in value.values() if type(each) not in ATOMS]
            case list() | set() | collections.deque() | tuple() | frozenset():
                roots += [each for each in value if type(each) not in ATOMS]
            case MethodType():
                roots.append(value.__self__)
            case functools.partial():
                roots += [value.func, value.args, value.keywords]
            case FunctionType():
                roots += [value.__defaults__, value.__kwdefaults__, *(value.__closure__ or ())]
            case CellType():
                with contextlib.suppress(ValueError):  # it is empty
                    roots.append(value.cell_contents)
            case nn.Module():
                roots += [vars(value)] if through_modules else []
            case _ if not through_modules and type(state := getattr(value, "__dict__", None)) is dict:
                roots.append(state)


def rebind_references(old: nn.Module, new: nn.Module, hooks: dict[int, Any]) -> None:
    """Replace every reference to ``old`` in the state of ``old`` by ``new``.

    Args:
        old: A module.
        new: The module that replaces it.
        hooks: The dicts that replace the hook dicts of ``old``, by the ids of the replaced dicts.
    """

    def replaced(value: Any) -> Any:
        match value:
            case nn.Module():
                return new if value is old else value
            case tuple() | frozenset():
                each = [replaced(item) for item in value]
                if all(one is other for one, other in zip(each, value, strict=True)):
                    return value
                return tuple.__new__(type(value), each) if isinstance(value, tuple) else type(value)(each)
            case MethodType():
                return MethodType(value.__func__, new) if value.__self__ is old else value
            case weakref.WeakMethod():
                method = value()
                return weakref.WeakMethod(replaced(method)) if getattr(method, "__self__", None) is old else value
            case weakref.ref():
                return weakref.ref(new, value.__callback__) if value() is old else value
        return value

    for value in reachable([vars(old)], through_modules=True):
        match value:
            case dict() | weakref.WeakKeyDictionary() | weakref.WeakValueDictionary():
                if any(key is old for key in value):  # keep the order
                    items = [(new if key is old else key, each) for key, each in value.items()]
                    value.clear()
                    value.update(items)
                for key, each in list(value.items()):
                    if (other := replaced(each)) is not each:
                        value[key] = other
            case list() | collections.deque():
                for index, each in enumerate(value):
                    value[index] = replaced(each)
            case set() | weakref.WeakSet():
                changed = {each for each in value if replaced(each) is not each}
                value.difference_update(changed)
                value.update(map(replaced, changed))
            case functools.partial():
                state = (replaced(value.func), replaced(value.args), value.keywords, vars(value))
                value.__setstate__(state)  # pyright: ignore[reportAttributeAccessIssue]
            case FunctionType():
                value.__defaults__ = replaced(value.__defaults__)
            case CellType():
                with contextlib.suppress(ValueError):
                    value.cell_contents = replaced(value.cell_contents)
            case RemovableHandle():
                refs = [value.hooks_dict_ref, *value.extra_dict_ref]
                first, *more = [weakref.ref(hooks[id(ref())]) if id(ref()) in hooks else ref for ref in refs]
                value.hooks_dict_ref, value.extra_dict_ref = first, tuple(more)


class Snapshot:
    """A copy of every container in the state of modules, to restore the contents after a forward on shapes.

    It includes containers in attributes, containers, hooks, bound methods, closures and attributes of other objects.

    Args:
        ignored: An object whose attributes are not restored.
    """

    def __init__(self, ignored: object = None) -> None:
        self.skipped = (Adoption, type(ignored))
        self.saved: dict[int, tuple[Any, Any]] = {}

    def add(self, module: nn.Module) -> None:
        state = vars(module)
        classes = type(module).__mro__[: -len(nn.Module.__mro__)]
        roots = [each for kind in classes for each in vars(kind).values() if isinstance(each, CONTAINERS)]
        if "_deferred" in state:  # a lazy module: the build changes its own dicts
            roots += [each for name in HOOKS for each in state[name].values()]
            roots += [each for name, each in state.items() if name not in NOT_ADDED]
        else:
            roots.append(state)
        for value in reachable(roots, through_modules=False, skipped=self.skipped):
            if isinstance(value, CONTAINERS) and id(value) not in self.saved:
                copied = list(value)
                if isinstance(value, dict):  # without the hooks of ``Adoption``
                    copied = {k: v for k, v in value.items() if not isinstance(getattr(v, "__self__", None), Adoption)}
                self.saved[id(value)] = value, copied

    def restore(self) -> None:
        for value, contents in self.saved.values():
            match value:
                case dict():
                    for key in [key for key in value if key not in contents]:
                        del value[key]
                    value.update({key: each for key, each in contents.items() if value.get(key, self) is not each})
                    if list(value) != list(contents):  # another order
                        value.clear()
                        value.update(contents)
                case _ if list(map(id, value)) != list(map(id, contents)):
                    value.clear()
                    if isinstance(value, set):
                        value.update(contents)
                    else:
                        value.extend(contents)
