"""Any networkx generator as a plug-in: its arguments become options, its graph is renamed to the peers.

Source: networkx.generators, https://networkx.org/documentation/stable/reference/generators.html. Where a generator
takes `n` or `seed`, the number of peers and a number from the run's streams are filled in unless they are given.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import networkx as nx

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

IN_POWERS = (
    *("binomial_tree", "dorogovtsev_goltsev_mendes_graph", "hypercube_graph"),
    *("mycielski_graph", "random_cograph", "sudoku_graph"),
)
"""Those whose `n` is an exponent or a root of the number of nodes: nothing that could be filled in."""
LEFT_OUT = ("create_using", "backend")


@cache
def names() -> tuple[str, ...]:
    """Every generator whose arguments can be written down, in alphabetical order."""
    return tuple(sorted(name for name, call in vars(nx).items() if _is_generator(call)))


@cache
def plugin(name: str) -> type[Any]:
    """A frozen dataclass with the generator's arguments as fields, and the `graph` of a topology."""
    fields: list[tuple[str, Any, Any]] = []
    for argument in _arguments(name).values():
        if argument.name == "seed" or (argument.name == "n" and name not in IN_POWERS):
            fields.append((argument.name, int | None, None))
        elif argument.kind is argument.VAR_POSITIONAL:
            fields.append((argument.name, tuple[Any, ...], ()))
        else:
            default = dataclasses.MISSING if argument.default is argument.empty else argument.default
            fields.append((argument.name, Any, dataclasses.field(kw_only=True, default=default)))
    namespace = {
        "__doc__": (inspect.getdoc(getattr(nx, name)) or name).partition("\n")[0],
        "__reduce__": lambda self: (_revive, (name, _options(self))),
        "graph": lambda self, nodes, seeds: _graph(name, _options(self), nodes, seeds),
    }
    return dataclasses.make_dataclass(name, fields, namespace=namespace, frozen=True, kw_only=True)


def _is_generator(call: object) -> bool:
    if not callable(call) or not getattr(call, "__module__", "").startswith("networkx.generators."):
        return False
    if inspect.isclass(call) or not getattr(call, "_returns_graph", True):
        return False
    return not {"G", "H", "B"} & set(inspect.signature(call).parameters)


def _arguments(name: str) -> Mapping[str, inspect.Parameter]:
    found = inspect.signature(getattr(nx, name)).parameters
    return {key: each for key, each in found.items() if key not in LEFT_OUT and each.kind is not each.VAR_KEYWORD}


def _options(generator: Any) -> dict[str, Any]:
    return {field.name: getattr(generator, field.name) for field in dataclasses.fields(generator)}


def _revive(name: str, options: Mapping[str, Any]) -> Any:
    """A generator's plug-in in another process, where pickle finds no class of that name."""
    return plugin(name)(**options)


def _graph(name: str, options: Mapping[str, Any], nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
    for key, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ScenarioError(f"{key} is {value}", "must be a finite number", (key,))
    filled = {"n": len(nodes), "seed": int.from_bytes(seeds.key(4, name), "little")}
    given: dict[str, Any] = {key: filled.get(key) if value is None else value for key, value in options.items()}
    variadic = [key for key, each in _arguments(name).items() if each.kind is each.VAR_POSITIONAL]
    call: Callable[..., Any] = getattr(nx, name)
    positional = [part for key in variadic for part in given.pop(key)]
    try:
        made = call(*positional, **given)
    except Exception as error:  # networkx raises whatever its arguments lead to
        written = ", ".join(f"{key}={value!r}" for key, value in given.items())
        problem = f"networkx cannot make {name}({written[:200]}), {type(error).__name__}: {str(error)[:200]}"
        raise ScenarioError(problem.rstrip(": "), "change its arguments") from None
    return _renamed(made, name, nodes)


def _renamed(made: Any, name: str, nodes: Sequence[PeerId]) -> nx.Graph[PeerId]:
    if not isinstance(made, nx.Graph) or made.is_directed() or made.is_multigraph():
        kind = "directed" if isinstance(made, nx.DiGraph) else "no simple graph"
        raise ScenarioError(f"{name} is {kind}", "links go both ways, once: take another generator")
    if loops := [i for i, j in made.edges if i == j]:
        raise ScenarioError(f"{name} links {loops[0]!r} to itself", "change its arguments")
    if len(made) != len(nodes):
        remedy = f"change peers, or its arguments, so that it has {len(nodes)}"
        raise ScenarioError(f"{name} has {len(made)} nodes for {len(nodes)} peers", remedy)
    peers = dict(zip(made, nodes, strict=True))
    renamed: nx.Graph[PeerId] = nx.Graph()
    renamed.add_nodes_from(nodes)
    renamed.add_edges_from((peers[i], peers[j]) for i, j in made.edges)
    return renamed
