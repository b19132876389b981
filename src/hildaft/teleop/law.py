"""Loads a function of the user's, such as a scripted operator's law: Python code that they name, and that is run."""

import importlib
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast

from hildaft.teleop.scripted_operator import Advice
from hildaft.types import ActionScale, HilDaftError

Law: TypeAlias = Callable[[Any, Any, ActionScale], Advice]
"""(environment, its own observation, action scale) -> what a skilled person would do now."""


def load_law(name: str) -> Law:
    """The law of an environment's scripted operator; what it raises, or returns in place of `Advice`, is one line.

    Raises:
        HilDaftError: none is named, or as `load_function`; from the law too.
    """
    if not name:
        msg = (
            "environment.operator: nobody demonstrates and corrects; give the environment's file a law"
            " (docs/gymnasium.md), or name the device in your hand with --operator"
        )
        raise HilDaftError(msg)
    law = load_function(name, "environment.operator", "docs/gymnasium.md")

    def careful(env: Any, observation: Any, scale: ActionScale) -> Advice:  # noqa: ANN401 - any environment
        try:
            advice = law(env, observation, scale)
        except Exception as error:  # the user's code may raise anything
            reason = " ".join(f"{type(error).__name__} {error}".split())
            where = traceback.extract_tb(error.__traceback__)[-1]
            line = f"{Path(where.filename).name} line {where.lineno}"
            msg = f"environment.operator={name!r}: its law failed ({reason}, {line})"
            raise HilDaftError(msg) from error
        if not isinstance(advice, Advice):
            msg = (
                f"environment.operator={name!r}: its law returned a {type(advice).__name__};"
                " hildaft.teleop.scripted_operator.Advice is needed"
            )
            raise HilDaftError(msg)
        return advice

    return careful


def load_function(name: str, setting: str, page: str) -> Callable[..., Any]:
    """The function that `module:function` or `file.py:function` names in a setting that a docs page explains.

    Raises:
        HilDaftError: nothing is named, there is no such file, module or function, or its code fails to load.
    """
    place, _, function = name.rpartition(":")
    if not place or not function:
        msg = f"{setting}={name!r}: `module:function` or `file.py:function` is needed; {page} has an example"
        raise HilDaftError(msg)
    try:
        module = (
            _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except Exception as error:  # the user's code may raise anything
        reason = " ".join(f"{type(error).__name__} {error}".split())
        msg = f"{setting}={name!r}: cannot be loaded ({reason})"
        raise HilDaftError(msg) from error
    found = getattr(module, function, None)
    if not callable(found):
        own = [
            n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        ]
        there = ", ".join(own)
        msg = f"{setting}={name!r}: no function {function!r} there; found {there or 'none'}"
        raise HilDaftError(msg)
    return cast(Callable[..., Any], found)


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hildaft_law_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
