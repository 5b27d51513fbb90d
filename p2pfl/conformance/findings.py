"""Every check of a room on every plug-in of it: which there are, what they are run on, and what came of it.

A check is a public function of the room's file here (or of `every_plugin.py`) with the one argument `plugin`; its name,
after that of the plug-in, is a sentence. It returns, or raises AssertionError with a text for the plug-in's author.
A plug-in is taken with its defaults, and with each of the options in its `EXAMPLES: ClassVar[tuple[Mapping, ...]]`,
which one with options that must be given has to declare.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from p2pfl import conformance as here
from p2pfl import own_code, plugins
from p2pfl.errors import ScenarioError

Check = Callable[[Any], None]
UNIVERSAL = "every_plugin"


@dataclass(frozen=True)
class Finding:
    """What came of one sentence about one plug-in: `options` where they are not the defaults, `why` where not `ok`."""

    room: str
    name: str
    options: str
    sentence: str
    verdict: Literal["ok", "failed", "skipped"]
    why: str = ""


def checks(room: str) -> tuple[Check, ...]:
    """The checks of a room, those of every plug-in first."""
    files = {module.name for module in pkgutil.iter_modules(here.__path__)}
    modules = [importlib.import_module(f"{here.__name__}.{file}") for file in (UNIVERSAL, room) if file in files]
    return tuple(
        value
        for module in modules
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__ and _is_check(name, value)
    )


def sentence(check: Check) -> str:
    """`is_a_connected_graph` -> `is a connected graph`."""
    return str(getattr(check, "__name__", check)).replace("_", " ")


def examples(room: str, name: str) -> tuple[Any, ...]:
    """The plug-in with its defaults, where it has them all, and with each of its examples. Raises ScenarioError."""
    cls = plugins.find(room, name)
    given = list(getattr(cls, "EXAMPLES", ()))
    if not required(cls):
        given = [{}, *given]
    return tuple(plugins.build(room, name, options) for options in given)


def required(cls: type[Any]) -> tuple[str, ...]:
    """The options without a default."""
    return tuple(o.name for o in plugins.options_of(cls) if plugins.default_of(o) is dataclasses.MISSING)


def findings(room: str, name: str) -> Iterator[Finding]:
    """Run every check on a plug-in, and tell of each as it ends. A plug-in that cannot be had is one failure.

    Raises ScenarioError where Python leaves assertions out.
    """
    if not __debug__:
        raise ScenarioError("with 'python -O' no check can fail", "run it without -O and PYTHONOPTIMIZE")
    try:
        plain, taken = plugins.find(room, name), examples(room, name)
    except ScenarioError as error:
        yield Finding(room, name, "", "can be had", "failed", str(error))
        return
    if not taken:
        why = f"{', '.join(required(plain))} must be given, and it declares no EXAMPLES"
        yield Finding(room, name, "", "is checked", "skipped", why)
    for plugin in taken:
        for check in checks(room):
            yield run(room, name, plugin, check)


def run(room: str, name: str, plugin: Any, check: Check) -> Finding:
    """What came of one check on one plug-in."""
    defaults = all(getattr(plugin, o.name) == plugins.default_of(o) for o in plugins.options_of(type(plugin)))
    options = "" if defaults else repr(plugin)
    try:
        check(plugin)
    except Exception as error:  # whatever a plug-in raises is what is to be told
        said = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        place = own_code.blamed(error) or own_code.place_of(type(plugin))
        return Finding(room, name, options, sentence(check), "failed", f"{' '.join(said.split())} ({place})")
    return Finding(room, name, options, sentence(check), "ok")


def _is_check(name: str, value: Any) -> bool:
    return not name.startswith("_") and list(getattr(value, "__annotations__", {})) == ["plugin", "return"]
