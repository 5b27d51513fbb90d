"""The JSON Schema of a scenario: by it editors complete, explain and check a YAML file while it is written.

Source: JSON Schema 2020-12, https://json-schema.org/draft/2020-12. It says the shape of a scenario, which is what can
be said without looking at this machine or drawing the graph: `p2pfl check` refuses whatever it refuses, and more.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pydantic.json_schema

from p2pfl import plugins
from p2pfl.scenario import SLOTS, UNBUILT, Scenario
from p2pfl.scenario.publication import ALIKE, FIGURES, PUBLISHED, Published

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VALUES = ("default", "const", "enum")
"""Keywords that hold values, not schemas."""
NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"

MEANINGS: Mapping[str, str] = {
    "name": "Part of the run folder's name: letters, digits, '-', '_' and '.'.",
    "seed": "Every random draw follows from it; without it, the operating system's randomness.",
    "peers": "Those that learn; fedavg and easgd add one more, named hub.",
    "rounds": "How many rounds the run has.",
    "init": "shared: all peers start from one point; own: each from its own; or a former run to go on from.",
    "topology": "The peer graph: a family, or any networkx generator by name and arguments. "
    "Default: what suits the algorithm.",
    "data": "What is learned.",
    "partition": "Who holds what of the data.",
    "model": "What learns.",
    "training": "Each peer's own steps of SGD.",
    "training.batch": "Examples a step.",
    "training.lr": "The learning rate.",
    "training.local_steps": "Steps a round; or give local_epochs.",
    "training.local_epochs": "Passes over a peer's own data a round; or give local_steps.",
    "training.device": "auto: GPUs in turn where there are any, else the CPU; or cpu, cuda, cuda:1.",
    "algorithm": "How peers learn together: the mode.",
    "sketch": "How parameters travel.",
    "aggregator": "How a peer merges what it is sent.",
    "defences": "What a peer does to what leaves it, in this order; dp and batch_clip come first.",
    "attacks": "Who spies on whom, how, and in which rounds.",
    "attacks.peers": "Who is curious: peers by number, hub, or groups by name. Each learns like all others.",
    "attacks.attack": "What it does with what reached it.",
    "attacks.rounds": "Rounds whose steps it looks into: a list, or {from: 1, to: 30, every: 5}.",
    "attacks.victims": "On whom it spies; left out, on all others that its mail tells of.",
    "attacks.collude": "These peers share what reached them, and attack together after the run.",
    "attacks.score": "Victims log which examples they held, by which the attack is judged after the run.",
    "attacks.seconds": "How long it may work on one victim's round.",
    "groups": "Peers that differ from the others, by the name of their group.",
    "churn": "Who dies when, as in [{round: 5, kill: [3]}].",
    "evaluate": "When models are evaluated, and on what.",
    "evaluate.every": "Rounds between evaluations; the last round is always evaluated.",
    "evaluate.target": "The accuracy whose first round is reported.",
    "evaluate.loss": "The mean training loss whose first round is reported, and the vectors sent by its end.",
    "evaluate.split": "What is evaluated on while running; the test set is read once, at the end.",
    "stop": "Reasons to stop before the last round.",
    "save": "What a run keeps beside its record.",
    "save.checkpoints": "How many models of each peer are kept.",
    "save.every": "Rounds between checkpoints; by default those between evaluations.",
    "save.mail": "Peers of which all that they say and hear is kept, keys included, for `p2pfl attack`.",
    "save.mail_bytes": "How much the mail of all of them may be, at most.",
    "wait": "learned: how long to wait for a peer is learned from it; all: nobody is ever given up on.",
    "transport": "ipc sockets on one machine, or tcp.",
    "engine": "What starts the peers.",
    "hosts": "The machines that peers run on.",
    "matrix": "A sweep: dotted keys and the values of each. All combinations run, but those that `exclude` lists. "
    "A name that is no key lists mappings of dotted keys, each of which sets several at once.",
    "matrix.exclude": "Combinations that do not run: each entry takes out all cases that have its values.",
    "tune": "Dotted keys and the candidates of each, of which the best on the validation split is taken.",
    "published": "What a paper reports, to be shown beside one's own figures in the report of a sweep.",
}
"""What the keys of a scenario mean, by their dotted path: those whose class does not say it."""


@cache
def document() -> Schema:
    """The JSON Schema of a scenario file, with all plug-ins that there are. To be read, not altered."""
    top: Schema = _tidy(_of(Scenario, ""))
    top["required"] = [key for key in top["required"] if key not in SLOTS]
    top["properties"]["name"]["pattern"] = NAME
    for key in UNBUILT:
        top["properties"].setdefault(key, {"enum": [[], {}, None]})
    top["properties"] |= _sweep(top)
    top["$defs"] |= _published(top["properties"]["tune"])
    top["properties"][PUBLISHED] = {"anyOf": [{"$ref": f"#/$defs/{PUBLISHED}"}, {"enum": [{}, None]}]}
    top["$defs"] |= {part: schema for room in plugins.ROOMS for part, schema in _room(room)}
    for path, meaning in MEANINGS.items():
        _at(top, path)["description"] = meaning
    return {"$schema": DIALECT, "title": "A scenario of p2pfl"} | top


def _of(cls: type[Any], prefix: str) -> Schema:
    """What pydantic says of the options of a class; its definitions are named with the prefix."""
    with warnings.catch_warnings():  # a default that JSON cannot say is left out
        warnings.simplefilter("ignore", pydantic.json_schema.PydanticJsonSchemaWarning)
        made = plugins.schema(cls).model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    inner = {f"{prefix}{name}": part for name, part in made.get("$defs", {}).items()}
    return {**made, "description": cls.__doc__ or "", "$defs": inner, "required": made.get("required", [])}


def _tidy(schema: Any) -> Any:
    """The same schema without what only pydantic needs, slots as references, options with what docstrings say."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part if key in VALUES else _tidy(part) for key, part in schema.items()}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    if room := kept.pop("x-room", None):
        kept = {"$ref": f"#/$defs/{room}"} | ({"default": _chosen(kept["default"])} if kept["default"] else {})
    elif isinstance(kept.get("default"), dict):  # its own keys say theirs
        del kept["default"]
    if isinstance(said := kept.get("description"), str):
        kept["description"] = " ".join(said.partition("\n\n")[0].split())
        for name, option in kept.get("properties", {}).items():
            if told := _told(name, said):
                option.setdefault("description", told)
    if "required" in kept and isinstance(given := kept.get("properties"), dict):
        kept["required"] = [key for key in kept["required"] if "default" not in given[key]]
    return kept


def _chosen(default: Any) -> str:
    """The name of the plug-in that is chosen by default, given as that or as the choice."""
    return str(default["name"] if isinstance(default, dict) else default)


def _told(option: str, doc: str) -> str:
    """What a docstring says of an option: the clauses that name it in backquotes."""
    clauses = re.split(r"(?<=[.;])\s+", " ".join(doc.split()))
    return " ".join(clause for clause in clauses if f"`{option}`" in clause).rstrip(";")


def _room(room: str) -> Iterator[tuple[str, Schema]]:
    """The definitions of a room: any plug-in of it under the room's name, the options of each as `room.name`."""
    package = importlib.import_module(plugins.ROOMS[room])
    known = [*plugins.names(room), *(package.elsewhere_names() if hasattr(package, "elsewhere_names") else ())]
    alone: list[Schema] = []
    keyed: Schema = {}
    for name in known:
        cls = plugins.find(room, name)
        options = _tidy(_of(cls, f"{room}.{name}."))
        yield from options.pop("$defs").items()
        yield f"{room}.{name}", options
        described = {"description": options["description"]}
        keyed[name] = described | {"anyOf": _given(f"#/$defs/{room}.{name}", options)}
        alone += [] if options["required"] else [described | {"const": name}]
    bounds = {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    yield room, {"anyOf": [*alone, {"type": "object", "properties": keyed} | bounds]}


def _given(reference: str, options: Schema) -> list[Schema]:
    """What may stand behind a plug-in's name: its options, its first option alone, or nothing."""
    forms: list[Schema] = [{"$ref": reference}]
    if not options["required"]:
        forms.append({"type": "null"})
    first = next(iter(options.get("properties", {})), None)
    if first is not None and set(options["required"]) <= {first}:
        forms.append({"$ref": f"{reference}/properties/{first}", "not": {"type": ["object", "null"]}})
    return forms


def _sweep(top: Schema) -> Schema:
    """The keys of a sweep. What they hold is taken out before the rest is read as one scenario."""
    keys = [key for key in top["properties"] if key not in UNBUILT]
    paths = {key: f"#/properties/{key}" for key in keys}
    for key, schema in top["properties"].items():
        if inner := top["$defs"].get(schema.get("$ref", "").removeprefix("#/$defs/")):
            paths |= {f"{key}.{name}": f"{schema['$ref']}/properties/{name}" for name in inner["properties"]}
    further = f"^({'|'.join(keys)})\\."
    lists = {path: {"type": "array", "minItems": 1, "items": {"$ref": to}} for path, to in paths.items()}
    several = {"type": "array", "minItems": 1}
    tune = {"type": ["object", "null"], "properties": lists, "patternProperties": {further: several}}
    exclude = {"type": ["array", "null"], "items": {"type": "object", "minProperties": 1}}
    matrix = tune | {"properties": lists | {"exclude": exclude}}
    known = {path: {"$ref": to} for path, to in paths.items() if path not in ALIKE}
    inner = {"properties": known, "patternProperties": {further: True}, "additionalProperties": False}
    together = {"type": "object", "minProperties": 1} | inner
    named = {"additionalProperties": several | {"items": together}, "propertyNames": {"pattern": f"^[^.]*$|{further}"}}
    return {"matrix": matrix | named, "tune": tune | named}


def _published(sweep: Schema) -> Schema:
    """The definitions of what a paper reports. Its settings have the keys of a sweep, each with a value."""
    made = _tidy(_of(Published, f"{PUBLISHED}."))
    inner = made.pop("$defs")
    figure = inner[f"{PUBLISHED}.PublishedFigure"]["properties"]
    figure["figure"]["enum"] = list(FIGURES)
    each = {path: listed["items"] for path, listed in sweep["properties"].items() if path not in ALIKE}
    further = dict.fromkeys(sweep["patternProperties"], True)
    figure["when"] |= {"properties": each, "patternProperties": further, "additionalProperties": False}
    return {**inner, PUBLISHED: made}


def _at(top: Schema, path: str) -> Schema:
    """The schema of the key at a dotted path; within a list, that of its entries."""
    schema = top
    for key in path.split("."):
        schema = top["$defs"][schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema
        schema = schema.get("items", schema)["properties"][key]
    return schema
