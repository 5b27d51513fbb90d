"""Whether a scenario can be made concrete: all that does not hang on a running peer is made once, or refused."""

from __future__ import annotations

from p2pfl import own_code, scenario
from p2pfl.errors import ScenarioError
from p2pfl.learning.clipped import mixes_examples
from p2pfl.protection import Guard
from p2pfl.runtime import capture
from p2pfl.runtime.world import World
from p2pfl.scenario import Start
from p2pfl.seeds import Seeds


def insist(world: World) -> None:
    """Make all that does not depend on a peer, so that what cannot be made shows before anything is started.

    Raises ScenarioError with the path of the culprit.
    """
    assert world.graph
    if scenario.varies(world.settings):
        world.around(1)
    for key, make in (("data", "data"), ("partition", "shards"), ("model", "layout"), ("sketch", "pair")):
        _make(world, key, make)
    _refuse_blind_stops(world)
    for i in world.roles:
        try:
            if origin := world.origin(i):
                world.beginning(origin)
        except ScenarioError as error:
            raise error.under("init") from None
    if world.settings.defences:
        _defend(world)
    capture.check(world)


def _make(world: World, key: str, make: str) -> None:
    """Make what the plug-in at `key` is for. Raises ScenarioError when that cannot be."""
    plugin = getattr(world.settings, key)
    try:
        with own_code.blaming():
            getattr(world, make)
    except ScenarioError as error:
        raise error.under(key, plugin.name) from None
    except Exception as error:  # torch says so when a model does not fit, and who wrote their own says anything
        expected = isinstance(error, (ValueError, RuntimeError, MemoryError))
        if not expected and own_code.file_of(type(plugin.value)) is None:
            raise
        reason = ("" if expected else f"{type(error).__name__}: ") + str(error).partition("\n")[0][:200]
        problem = f"{key}.{plugin.name} cannot be made, {reason}"
        remedy = "change its options, or what it is combined with"
        raise ScenarioError(problem, remedy, (key, plugin.name)) from None


def _refuse_blind_stops(world: World) -> None:
    split = world.settings.evaluate.split
    if len(getattr(world.data, f"{split}_y")):
        return
    for at, stop in enumerate(world.settings.stop):
        if stop.target or stop.plateau:
            problem = f"stop.{at} looks at the {split} split, which is empty"
            raise ScenarioError(problem, "see evaluate.split, and data", ("stop", at))


def _defend(world: World) -> None:
    """Make every peer's guards once: what cannot be protected as asked for shows now."""
    first = None
    for peer in world.roster.learners:
        made = 0
        try:
            for made, guard in enumerate(world.guards(peer, world.roster.examples[peer], Seeds(bytes(32))), start=1):
                _refuse_late(world, guard, made - 1)
                first = guard if made == 1 else first
        except ValueError as error:
            problem, _, remedy = str(error).partition(": ")
            raise ScenarioError(f"peer {peer}: {problem}", remedy, _place(world, made)) from None
    if first is not None and first.private and isinstance(world.settings.init, Start):
        problem = (
            f"what the former run gave away of the examples is not counted under {world.settings.defences[0].name}"
        )
        raise ScenarioError(problem, "begin anew, or without a defence", ("init",))
    if first is not None and first.clip is not None:
        _refuse_mixing(world)


def _place(world: World, at: int) -> tuple[str | int, ...]:
    return "defences", at, world.settings.defences[at].name


def _refuse_late(world: World, guard: Guard, at: int) -> None:
    """Raise ScenarioError where what one example can do is bounded only after others altered the gradient."""
    if at and (guard.private or guard.clip is not None):
        name = world.settings.defences[at].name
        problem = f"{name} must come first, it bounds what one example does before anything else is done"
        raise ScenarioError(problem, "put it first in the list; two of its kind do not go together", _place(world, at))


def _refuse_mixing(world: World) -> None:
    """Raise ScenarioError where the gradient of one example hangs on others."""
    defence, model = world.settings.defences[0], world.settings.model
    module = model.value.build(world.data.shape, world.data.classes)
    with own_code.blaming():
        mixes = mixes_examples(module, world.data.shape, world.data.classes)
    if mixes:
        problem = f"what {model.name} computes of an example hangs on the others of its batch, as under batch norm"
        remedy = f"{defence.name} needs each by itself, take a model with group norm or none"
        raise ScenarioError(problem, remedy, ("model", model.name))
