"""Every plug-in of every room keeps to the contracts of its room."""

from __future__ import annotations

import pytest

from p2pfl import plugins
from p2pfl.conformance.findings import Check, checks, examples, required, run, sentence

EVERY_CHECK = [
    pytest.param(room, name, check, id=f"{room}/{name} {sentence(check)}")
    for room in plugins.ROOMS
    for name in plugins.names(room)
    if examples(room, name)
    for check in checks(room)
]


@pytest.mark.parametrize(("room", "name", "check"), EVERY_CHECK)
def test_every_plugin_keeps_to_the_contracts_of_its_room(room: str, name: str, check: Check) -> None:
    for plugin in examples(room, name):
        found = run(room, name, plugin, check)
        assert found.verdict == "ok", f"{found.options} {found.why}"


@pytest.mark.parametrize("room", plugins.ROOMS)
def test_every_room_has_contracts_of_its_own_beside_those_of_every_plugin(room: str) -> None:
    said = [sentence(check) for check in checks(room)]
    assert len(said) == len(set(said))
    assert len(said) >= 5 + 3


def test_only_plugins_that_need_a_file_of_the_users_have_no_example() -> None:
    without = {(room, name) for room in plugins.ROOMS for name in plugins.names(room) if not examples(room, name)}
    assert all(required(plugins.find(room, name)) == ("path",) for room, name in without)
    assert len(without) == 6
