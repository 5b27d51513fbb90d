"""Curious peers in whole runs: they take part as if they were not, find the same on every engine, and see only mail.

Shapes: D parameters.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import gc
import json
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from test_clues import spied

import p2pfl
from p2pfl.curiosity import Case
from p2pfl.messages import HUB, Form, Message
from p2pfl.runtime import insight
from p2pfl.runtime.launch import Record
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.world import World
from p2pfl.scenario import read
from p2pfl.seeds import Seeds
from p2pfl.transport.mailbox import Mailbox
from p2pfl.transport.zeromq import ZeroMQBus, introduce

BASE: dict[str, Any] = {
    "name": "spied",
    "seed": 4,
    "peers": 4,
    "rounds": 3,
    "data": {"digits": {"normalise": False}},
    "model": {"mlp": {"hidden": [16], "activation": "sigmoid"}},
    "training": {"batch": 1, "lr": 0.05, "local_steps": 1, "device": "cpu"},
    "evaluate": {"every": 3},
    "engine": "simulate",
}
SPY = {"peers": [0], "attack": "analytic", "rounds": [1, 2], "seconds": 20}


def launched(out: Path, **settings: Any) -> Record:
    record = p2pfl.launch({**BASE, **settings}, out)
    assert isinstance(record, Record)
    return record


def found(record: Record) -> list[dict[str, Any]]:
    """What the summary says of attacks, but for what may differ between engines."""
    told: list[dict[str, Any]] = record.summary["attacks"]
    return [{key: value for key, value in each.items() if key not in ("seconds", "engine")} for each in told]


def learned(record: Record) -> list[dict[str, Any]]:
    """The rows of the record, but for times and for what only attacked runs say."""
    rows = [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]
    kept = [row for row in rows if "spied" not in row]
    drop = ("held", "time_s", "round_s", "compute_s", "sent_bytes", "link_bytes")
    return sorted(({k: v for k, v in row.items() if k not in drop} for row in kept), key=str)


def test_a_hub_and_a_neighbour_read_images_from_what_really_reached_them(tmp_path: Path) -> None:
    gossip = launched(tmp_path / "gossip", topology="complete", attacks=[SPY])
    assert [(a["victim"], a["round"], a["threat"]) for a in found(gossip)] == [
        (victim, r, "neighbour") for r in (1, 2) for victim in (1, 2, 3)
    ]
    assert all(a["mse"] < 1e-4 and a["label_accuracy"] == 1 for a in found(gossip))
    assert gossip.summary["leak"]["recovered"] == 1.0
    star = launched(
        tmp_path / "star", algorithm="fedavg", attacks=[{**SPY, "peers": ["hub"], "rounds": [3]}], engine="local"
    )
    assert [(a["attacker"], a["victim"], a["threat"]) for a in found(star)] == [("hub", i, "hub") for i in range(4)]
    assert all(a["mse"] < 1e-4 for a in found(star))


@pytest.mark.parametrize("engine", ["inproc", "local"])
def test_every_engine_finds_the_same_to_the_bit(engine: str, tmp_path: Path) -> None:
    attacks = [{**SPY, "attack": {"idlg": {"iterations": 40, "restarts": 1}}, "victims": [1]}]
    settings = {"attacks": attacks, "sketch": {"countsketch": {"ratio": 0.5}}, "topology": "ring"}
    one, other = (launched(tmp_path / each, **settings, engine=each) for each in ("simulate", engine))
    assert found(one) == found(other)
    assert {a["reading"] for a in found(one)} >= {"memoryless", "stateful", "matched", "head"}
    assert learned(one) == learned(other)


@pytest.mark.parametrize("algorithm", ["dpsgd", {"leasgd": {"rho": 2.0, "k": 1}}, "easgd", "fedavg"])
def test_whoever_spies_takes_part_as_if_it_did_not(algorithm: Any, tmp_path: Path) -> None:
    attackers = ["hub"] if algorithm in ("easgd", "fedavg") else [1]
    attacks = [{**SPY, "peers": attackers, "attack": "label_leakage"}]
    with_, without = (launched(tmp_path / str(len(a)), algorithm=algorithm, attacks=a) for a in (attacks, []))
    assert learned(with_) == learned(without)
    assert found(with_)


def test_colluders_attack_after_the_run_with_what_all_of_them_heard(tmp_path: Path) -> None:
    attacks = [{**SPY, "peers": [0, 2], "collude": True, "rounds": [2], "victims": [1]}]
    together = launched(tmp_path / "together", topology="ring", attacks=attacks, engine="inproc")
    alone = launched(tmp_path / "alone", topology="ring", attacks=[{**attacks[0], "collude": False}])
    (both,) = found(together)
    assert (both["attacker"], both["knowledge"], both["threat"]) == ("0+2", "colluders", "coalition")
    assert both["mse"] < 1e-4
    assert all(a["recovered"] == 0 for a in found(alone))  # each has an unseen partner of the victim's to reckon with
    assert not (together.folder / "mail").exists()


def test_of_a_peer_that_is_no_neighbour_nothing_is_read_and_that_is_said(tmp_path: Path) -> None:
    record = launched(tmp_path / "run", topology="ring", attacks=[{**SPY, "victims": [2], "rounds": [1]}])
    assert [(a["victim"], a["threat"], "mse" in a) for a in found(record)] == [(2, "none", False)]


def test_without_score_no_victim_says_what_it_held_and_nothing_is_judged(tmp_path: Path) -> None:
    record = launched(tmp_path / "run", topology="complete", attacks=[{**SPY, "score": False, "rounds": [1]}])
    assert '"held"' not in (record.folder / "records.jsonl").read_text()
    assert not any("mse" in a for a in found(record))


def test_an_attack_that_takes_too_long_ends_with_what_it_has(tmp_path: Path) -> None:
    attacks = [{**SPY, "attack": {"dlg": {"iterations": 10**6}}, "victims": [1], "rounds": [1], "seconds": 0.5}]
    record = launched(tmp_path / "run", attacks=attacks, model="lenet", training={**BASE["training"], "batch": 8})
    (one,) = found(record)
    assert record.summary["attacks"][0]["seconds"] < 5
    assert "mse" in one


def test_an_attack_that_fails_is_told_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins/attacks").mkdir(parents=True)
    (tmp_path / "plugins/attacks/clumsy.py").write_text(
        '"""An attack that fails."""\n\nfrom dataclasses import dataclass\n\n\n@dataclass(frozen=True)\n'
        'class Clumsy:\n    """Fails."""\n\n    scores = "images"\n\n    def spy(self, case):\n'
        '        raise ZeroDivisionError("nothing to divide by")\n'
    )
    monkeypatch.chdir(tmp_path)
    record = p2pfl.launch({**BASE, "attacks": [{**SPY, "attack": "clumsy"}]}, tmp_path / "run", allow_code=True)
    assert isinstance(record, Record)
    assert record.crashed == ()
    assert all("ZeroDivisionError" in a["failed"] for a in record.summary["attacks"])
    assert "failed to attack, clumsy on peer 1" in (tmp_path / "run/log.txt").read_text()


# Secrecy: what an attack is given leads to nothing that did not come by mail


ALLOWED = (
    "p2pfl.attacks",
    "p2pfl.curiosity",
    "p2pfl.evidence",
    "p2pfl.messages",
    "p2pfl.contracts",
    "p2pfl.seeds",
    "p2pfl.metrics",
)


@pytest.mark.parametrize("path", sorted((Path(p2pfl.__path__[0]) / "attacks").glob("*.py")), ids=lambda path: path.name)
def test_no_attack_imports_what_holds_peers_tasks_or_data(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert not name.startswith("p2pfl") or name.startswith(ALLOWED), f"{path.name} imports {name}"
        if isinstance(node, ast.Name | ast.Attribute):
            assert ast.unparse(node) not in ("gc.get_objects", "gc.get_referrers", "sys.modules", "importlib")


SECRET = 0.73128491


def within(root: Any) -> Iterator[Any]:
    """Whatever can be reached from an object: attributes, items, closures, arguments of partials; no globals."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if id(value) in seen or isinstance(value, type | types.ModuleType):
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, types.FunctionType):
            stack += [cell.cell_contents for cell in value.__closure__ or ()] + list(value.__defaults__ or ())
        elif isinstance(value, functools.partial):
            stack += [value.func, value.args, value.keywords]
        elif isinstance(value, types.MethodType):
            stack += [value.__self__, value.__func__]
        elif not isinstance(value, torch.Tensor | numpy.ndarray | str | bytes | int | float):
            stack += gc.get_referents(value)


def shows(root: Any) -> set[str]:
    """The kinds of tensors and objects within that give the secret away."""
    leaks = set()
    for value in within(root):
        if isinstance(value, World | Plan) or type(value).__name__ in ("SGDTask", "Data", "PacedTask"):
            leaks.add(type(value).__name__)
        if isinstance(value, numpy.ndarray) and value.dtype.kind == "f":
            value = torch.from_numpy(value)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            whole = value if value._base is None else value._base  # a view leads to all that it is a view of
            if bool((whole.double() - SECRET).abs().lt(1e-7).any()):
                leaks.add("the secret itself")
    return leaks


@pytest.mark.parametrize(
    ("algorithm", "attacker", "hidden"), [("dpsgd", 0, 3), ("fedavg", HUB, 2), ("fedavg", 0, 2), ("leasgd", 0, 3)]
)
def test_nothing_that_an_attack_is_given_leads_to_a_secret_of_another_peer(
    algorithm: str, attacker: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**BASE, "algorithm": algorithm, "peers": 6, "topology": "star" if algorithm == "fedavg" else "ring"}
    made = Plan(read(settings), Seeds.of(4).root, bytes(8)).world
    rows = made.kept[hidden]
    made.data.train_x[torch.as_tensor(rows), 0, 0, 0] = SECRET  # in every example that this peer holds
    telltale, notes = spied(made, (attacker,), 3)
    at = insight.place(made, (attacker,), made.seat(attacker).me.private)
    for victim in sorted({1, hidden} - {attacker}):
        case: Case = insight.case_of(at, notes, telltale.clue(notes, victim, 1), victim, 1, lambda done, loss: True)
        assert shows(case) == set()
    assert shows(made) >= {"the secret itself", "World"}  # the search finds it where it is


async def overheard() -> tuple[bytes, bytes]:
    """What one peer posts to another, as bytes; and all that a listener on the line between them hears."""
    form = {"params": Form({"x": (torch.float32, (1000,))})}
    boxes = [Mailbox((1 - i,), lambda r: form, True) for i in range(2)]
    buses = [ZeroMQBus(b"run", boxes[i], "tcp://127.0.0.1:*") for i in range(2)]
    heard = bytearray()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                heard.extend(data)
                writer.write(data)
        writer.close()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", int(buses[1].endpoint.rpartition(":")[2]))
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    tap = await asyncio.start_server(listen, "127.0.0.1", 0)
    tapped = f"tcp://127.0.0.1:{tap.sockets[0].getsockname()[1]}"
    to_other, to_us = introduce(tapped, buses[0].endpoint, buses[1].key, buses[0].key)
    x_D = torch.arange(1000, dtype=torch.float32).sin()
    try:
        buses[0].connect({1: to_other})
        buses[1].connect({0: to_us})
        for bus in buses:
            bus.at(1)
        buses[0].post(1, Message("params", 1, {"x": x_D}))
        mail = await asyncio.wait_for(buses[1].collect("params", 1, (0,)), 20)
        assert torch.equal(mail[0].tensors["x"], x_D)
    finally:
        for bus in buses:
            await bus.close()
        tap.close()
    return x_D.numpy().tobytes(), bytes(heard)


def test_whoever_listens_on_the_wire_hears_no_byte_of_what_is_said() -> None:
    said, heard = asyncio.run(overheard())
    assert len(heard) > len(said)
    pieces = [said[at : at + 8] for at in range(0, len(said) - 8, 8)]
    assert not any(piece in heard for piece in pieces)
    assert b"params" not in heard
