"""What a plug-in of any room keeps to: it is a value, made of options that a user can write."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

from p2pfl import plugins, scenario


def is_a_frozen_dataclass_with_a_docstring(plugin: Any) -> None:
    """What `p2pfl list` shows of it, and that nobody changes it under way."""
    cls = type(plugin)
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} is not frozen: write '@dataclass(frozen=True)'"
    generated = not cls.__doc__ or cls.__doc__.startswith(f"{cls.__name__}(")
    assert not generated, f"{cls.__name__} has no docstring, whose first line `p2pfl list` shows"


def has_options_of_types_that_can_be_read(plugin: Any) -> None:
    """Each has a type that YAML can hold, and a name of it to show."""
    cls = type(plugin)
    plugins.schema(cls)
    for option in plugins.options_of(cls):
        assert plugins.kind_of(cls, option.name), f"the option {option.name} has no type to show"


def is_equal_to_one_built_from_its_options_written_out(plugin: Any) -> None:
    """As a run writes them into its scenario.yaml, from which it can be launched again."""
    options = {o.name: scenario.plain(getattr(plugin, o.name)) for o in plugins.options_of(type(plugin))}
    again = plugins.fill(type(plugin), options)
    assert again == plugin, f"built again from {options} it is {again!r}, not {plugin!r}"


def has_a_hash_that_equal_ones_share(plugin: Any) -> None:
    """So that it may be a key of what is kept."""
    options = {o.name: getattr(plugin, o.name) for o in plugins.options_of(type(plugin))}
    assert hash(type(plugin)(**options)) == hash(plugin), "two with the same options have different hashes"


def can_be_handed_to_another_process(plugin: Any) -> None:
    """As multiprocessing hands values over; the bytes are our own, made a moment ago."""
    again = ForkingPickler.loads(ForkingPickler.dumps(plugin))
    assert again == plugin, f"in another process it is {again!r}, not {plugin!r}"
