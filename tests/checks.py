"""Shapes and types of every call, checked while tests run: what is installed by conftest before the package is imported.

jaxtyping's own decorator binds the arguments by hand and checks them three times, to find better words for its errors, also where
no shape is asked for. That was half of the time of a test of small things. Here a call is checked once, by beartype.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import beartype
import jaxtyping

_TYPES = beartype.BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError)
_AXES = jaxtyping.jaxtyped("context")
"""In it, an axis' name stands for one length."""


def install(modules: Sequence[str]) -> None:
    """From now on these are imported with checks."""
    jaxtyping.jaxtyped = lambda *, typechecker: check  # what the hook writes above every function and class
    jaxtyping.install_import_hook(modules, "beartype.beartype")


def check(what: Any) -> Any:
    """A function that checks its calls; a class of data whose values are checked when one is made."""
    match what:
        case property():
            return property(*(part and _checked(part) for part in (what.fget, what.fset, what.fdel)))
        case classmethod() | staticmethod():
            return type(what)(_checked(what.__func__))
        case type():
            init = vars(what).get("__init__") if dataclasses.is_dataclass(what) else None
            if init and not hasattr(init, "__wrapped__"):  # else it was written out, and is checked already
                what.__init__ = _checked(init)
            return what
    return _checked(what)


def _checked(call: Callable[..., Any]) -> Callable[..., Any]:
    if getattr(call, "__no_type_check__", False):
        return call
    call.__annotations__ = {name: _known(hint, call.__globals__) for name, hint in call.__annotations__.items()}
    checked = beartype.beartype(conf=_TYPES)(call)
    config = jaxtyping.config
    if not any(map(_has_axes, call.__annotations__.values())):

        @functools.wraps(call)
        def of_types(*arguments: Any, **named: Any) -> Any:
            return (call if config.jaxtyping_disable else checked)(*arguments, **named)

        return of_types

    @functools.wraps(call)
    def of_shapes(*arguments: Any, **named: Any) -> Any:
        if config.jaxtyping_disable:
            return call(*arguments, **named)
        with _AXES:
            return checked(*arguments, **named)

    return of_shapes


def _known(hint: Any, names: dict[str, Any]) -> Any:
    """A hint written as text may name what is imported for the type checker alone, or not yet made: anything goes there."""
    if not any(isinstance(part, str | typing.ForwardRef) for part in _parts(hint)):
        return hint
    try:
        return typing.get_type_hints(SimpleNamespace(__annotations__={"it": hint}), names, include_extras=True)["it"]
    except NameError:
        return Any


def _has_axes(hint: object) -> bool:
    return any(isinstance(part, type) and issubclass(part, jaxtyping.AbstractArray) for part in _parts(hint))


def _parts(hint: object) -> Iterator[object]:
    """It, and all that stands in its brackets."""
    yield hint
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from _parts(part)
