"""What curious peers found, on the page of a run, in comparisons and on the screen while they are at it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from test_comparison import EVIL
from test_report import Balanced, gossip, learning, page_of, star, titles
from torch import Tensor

import p2pfl
from p2pfl.report import leak_curves, leak_gallery, leak_map, leak_section, leak_tables, leaks, live
from p2pfl.report.comparison.page import write
from p2pfl.report.folder import read
from p2pfl.report.svg import style
from p2pfl.runtime import findings

Row = dict[str, Any]
SKETCHED = ("memoryless", "server", "stateful", "matched", "head")
NOISE = {"plain": 1e-4, "memoryless": 0.5, "server": 0.3, "stateful": 0.05, "matched": 1e-5, "head": 0.4}
"""How far each reading is from the truth."""
DIGITS = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)


def judged(made_BCHW: Tensor, true_BCHW: Tensor, labels_B: Tensor, guessed_B: Tensor, victim: Any) -> list[Row]:
    errors = (made_BCHW - true_BCHW).square().flatten(1).mean(1)
    return [
        {"peer": victim, "mse": float(mse), "psnr_db": float(-10 * mse.clamp(min=1e-9).log10()), "ssim": float(1 - mse),
         "label": int(label), "guessed": int(guess)}
        for mse, label, guess in zip(errors, labels_B, guessed_B, strict=True)
    ]  # fmt: skip


def leave(
    folder: Path,
    attacker: Any,
    victim: Any,
    round: int,
    reading: str,
    batch: int = 1,
    method: str = "idlg",
    **more: Any,
) -> Row:
    """One finding in the folder of a run, judged; its entry in the summary."""
    chance = torch.Generator().manual_seed(hash((victim, round, batch)) % 2**31)
    rows = torch.randperm(len(DIGITS), generator=chance)[:batch]
    true_BCHW, labels_B = more.pop("true", DIGITS[rows]), LABELS[rows]
    noise_BCHW = torch.randn(true_BCHW.shape, generator=chance)
    scale = NOISE[reading] * (1 + 0.2 * round)
    made_BCHW = true_BCHW + scale * noise_BCHW
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(len(reading)))
    guessed_B = labels_B if scale < 0.3 else (labels_B + 1) % 10
    told: Row = {
        "attacker": attacker, "victim": victim, "round": round, "method": method, "options": {"restarts": 4},
        "reading": reading, "threat": "neighbour", "holds": "two successive models of its neighbour",
        "knowledge": "own", "engine": "local", "untrained": False, "seconds": 1.5, "frames_at": [0, 3, 10, 30, 100],
    } | more  # fmt: skip
    frames_FCHW = torch.stack([true_BCHW[0] + (scale + k / 4) * noise_BCHW[0] for k in (4, 3, 2, 1, 0)])
    tensors = {"inputs_BCHW": made_BCHW[order], "labels_B": guessed_B[order], "frames_FCHW": frames_FCHW}
    path = findings.write(folder, told, tensors)
    shown = judged(made_BCHW, true_BCHW, labels_B, guessed_B, victim)
    means = {key: sum(image[key] for image in shown) / batch for key in ("mse", "psnr_db", "ssim")}
    means["recovered"] = sum(image["mse"] < 1e-3 for image in shown) / batch
    means["label_accuracy"] = float((labels_B == guessed_B).float().mean())
    findings.keep(
        path.with_suffix(".truth.safetensors"),
        {"originals_BCHW": true_BCHW, "labels_B": labels_B, "inputs_B": order.argsort()},
    )
    findings.complete(path, told | means | {"images": shown, "examples": batch})
    kept = ("attacker", "victim", "round", "method", "reading", "threat", "knowledge", "engine", "seconds")
    upper = {"upper_bound": True} if told["untrained"] else {}
    return {key: told[key] for key in kept} | means | upper


def summed(folder: Path, entries: list[Row], **more: Any) -> None:
    """The entries into the summary of a run, and a leak that goes with them."""
    path = folder / "summary.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    leak = {"images": 40, "recovered": 0.75, "recovered_low": 0.598, "recovered_high": 0.858, "psnr_db": 41.2}
    leak |= {"mse": 2e-5, "ssim": 0.97, "label_accuracy": 1.0, "seconds": 1.5}
    leak |= {
        entry["reading"]: {"images": 40, "recovered": entry["recovered"], "mse": entry["mse"]} for entry in entries
    }
    path.write_text(json.dumps(told | {"attacks": entries, "leak": leak} | more))


def spied(folder: Path, readings: tuple[str, ...] = SKETCHED, rounds: tuple[int, ...] = (1, 5, 10)) -> Path:
    """A ring of eight: 3 reads both neighbours, 0 tries one of its own and gets nothing from 4, which is far."""
    gossip(folder)
    pairs = [(3, 2), (3, 4), (0, 1)]
    entries = [leave(folder, a, v, r, reading) for a, v in pairs for r in rounds for reading in readings]
    nothing = {"attacker": 0, "victim": 4, "round": 1, "method": "idlg", "threat": "none", "engine": "local"}
    findings.write(folder, nothing, {})
    summed(folder, [*entries, nothing | {"reading": "none", "recovered": 0.0, "mse": 1.0}])
    return folder


def blocks(page: str) -> list[list[str]]:
    """The heads of the tiles of each row."""
    return [re.findall(r'<div class="shot"><b>([^<]*)</b>', block) for block in page.split('<div class="block">')[1:]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which peers spied through a sketch; nobody alters it."""
    return spied(tmp_path_factory.mktemp("spied") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    """Its page."""
    return page_of(run)


def told_of(folder: Path) -> leak_section.Section:
    """The part of a run's page that tells of attacks."""
    with style():
        found = leak_section.section(read(folder))
    assert found is not None
    return found


def named(folder: Path) -> list[str]:
    """The titles of its pictures."""
    return [picture.title for picture in told_of(folder).pictures]


def pixels(tile: leak_gallery.Tile) -> Any:
    """The image of a tile as the page has it, 0 to 255."""
    assert tile.image is not None
    head, _, coded = tile.image.uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))))


def drawn(folder: Path) -> leak_gallery.Gallery:
    run = read(folder)
    found = leak_gallery.gallery(run, leaks.found(run))
    assert found is not None
    return found


def test_a_run_in_which_nobody_spied_says_nothing_of_it(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "quiet"))
    assert "curious" not in page
    assert "Originals" not in page
    assert "Attacks" not in page


def test_all_readings_of_one_attack_stand_side_by_side_behind_the_original(page: str) -> None:
    assert {tuple(row) for row in blocks(page)} == {("original", *SKETCHED)}
    assert "the true parameters, and the update through the sketch&#39;s own transpose" in page
    assert "<script" not in page
    html = Balanced(page)
    assert len(html.ids) == len(set(html.ids))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in html.links)


def test_the_reading_without_memory_never_stands_alone(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    for reading in ("memoryless", "head"):
        leave(folder, 3, 2, 1, reading)
    ((tiles,),) = (scene.rows for scene in drawn(folder).scenes)
    assert [tile.head for tile in tiles] == ["original", *SKETCHED]
    assert [tile.lines for tile in tiles[2:5]] == 3 * [("no finding",)]
    assert page_of(folder).count("<span>no finding</span>") == 3
    leave(folder, 3, 4, 1, "plain")
    assert [tile.head for tile in drawn(folder).scenes[1].rows[0]] == ["original", "plain"]


def test_every_reconstruction_stands_beside_its_own_original_whatever_order_it_came_in(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    for reading in ("matched", "stateful"):
        leave(folder, 3, 2, 1, reading, batch=8)
    (scene,) = drawn(folder).scenes
    assert len(scene.rows) == 8
    for original, stateful, matched in scene.rows:
        assert [tile.head for tile in (original, stateful, matched)] == ["original", "stateful", "matched"]
        assert np.abs(pixels(original).astype(int) - pixels(matched)).max() <= 1
        assert np.abs(pixels(original).astype(int) - pixels(stateful)).mean() < 20
        assert matched.lines[-1] == f"label {original.lines[0][-1]}, guessed {original.lines[0][-1]}"


def test_an_image_is_scaled_to_the_nearest_pixels_and_drawn_from_black_to_white(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    leave(folder, 3, 2, 1, "matched", true=DIGITS[:1])
    (scene,) = drawn(folder).scenes
    expected = (255 * DIGITS[0, 0].numpy()).round().repeat(10, 0).repeat(10, 1)
    assert (pixels(scene.rows[0][0]) == expected).all()
    standardised = 4 * DIGITS[:1] / DIGITS[0].max() - 1
    expected = (255 * DIGITS[0, 0] / DIGITS[0].max()).round().numpy().repeat(10, 0).repeat(10, 1)
    leave(folder, 3, 4, 1, "matched", true=standardised)
    assert (pixels(drawn(folder).scenes[1].rows[0][0]) == expected).all()
    colours = torch.rand(1, 3, 50, 30)
    leave(folder, 3, 5, 1, "matched", true=colours)
    shown = drawn(folder).scenes[2].rows[0][0]
    assert pixels(shown).shape == (50, 30, 3)
    assert shown.image is not None
    assert (shown.image.width_px, shown.image.height_px) == (50, 84)


def test_the_figures_under_an_image_are_its_own(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    leave(folder, 3, 2, 1, "stateful", batch=3)
    told = json.loads((folder / "attacks/peer-3/0001.json").read_text())
    (scene,) = drawn(folder).scenes
    expected = {(f"{i['psnr_db']:.1f} dB", f"SSIM {i['ssim']:.3f}") for i in told["images"]}
    assert {tile.lines[:2] for _, tile in scene.rows} == expected
    (folder / "attacks/peer-3/0001.truth.safetensors").unlink()
    findings.complete(folder / "attacks/peer-3/0001.json", {**told, "images": []})
    (scene,) = drawn(folder).scenes
    assert [tile.lines for row in scene.rows for tile in row] == 3 * [("not kept",), ("not judged",)]


def test_a_true_image_that_nothing_was_matched_with_and_one_of_somebody_else_are_told_apart(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    leave(folder, 3, 2, 1, "matched", batch=3)
    path = folder / "attacks/peer-3/0001.json"
    told = json.loads(path.read_text())
    told["images"][1]["peer"] = 7
    told["images"][2] = {"peer": 2, "label": 5}
    truth = findings.load(path.with_suffix(".truth.safetensors"))
    truth["inputs_B"][2] = -1
    findings.keep(path.with_suffix(".truth.safetensors"), truth)
    findings.complete(path, told)
    rows = {row[0].lines: row[1] for row in drawn(folder).scenes[0].rows}
    assert rows["label 5",].lines == ("no image",)
    assert any("of peer 7" in lines for lines in rows)
    assert len(leaks.found(read(folder))[0].own) == 2


def test_what_the_attacker_holds_and_what_a_result_counts_for_stand_beside_it(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    leave(folder, "3+5", 4, 1, "plain", threat="coalition", knowledge="colluders", untrained=True)
    leave(folder, "hub", 4, 1, "plain", threat="hub", holds="every update", engine="simulate")
    page = page_of(folder)
    assert "Peers 3 and 5 spy on peer 4, round 1" in page
    assert "What it holds, as coalition: two successive models of its neighbour. Knowledge: colluders." in page
    assert "The hub spies on peer 4, round 1" in page
    assert "What it holds, as hub: every update. Knowledge: own." in page
    assert '<span class="tag">1 of 2 findings: upper bound: untrained model</span>' in page
    assert '<span class="tag">1 of 2 findings: rehearsal: within one process, no bytes travelled</span>' in page
    scenario = folder / "scenario.yaml"
    scenario.write_text("name: run\nseed: 7\npeers: 8\nengine: simulate\n")
    assert told_of(folder).tags[0] == "1 of 2 findings: rehearsal: simulated, no bytes travelled"


def test_the_optimisation_is_a_strip_of_frames_each_with_its_iteration(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    leave(folder, 3, 2, 1, "plain")
    (strip,) = drawn(folder).scenes[0].strips
    assert [at for _, at in strip.frames] == ["0", "3", "10", "30", "100"]
    leave(folder, 3, 4, 1, "plain", frames_at=[*range(0, 40, 2)])
    tensors = findings.load(folder / "attacks/peer-3/0002.safetensors")
    tensors["frames_FCHW"] = torch.rand(20, 1, 8, 8)
    findings.keep(folder / "attacks/peer-3/0002.safetensors", tensors)
    (strip,) = drawn(folder).scenes[1].strips
    assert len(strip.frames) == leak_gallery.MOST_FRAMES
    assert [strip.frames[0][1], strip.frames[-1][1]] == ["0", "38"]


def many(folder: Path, seed: int | None, reading: str = "plain") -> Path:
    gossip(folder)
    entries = [leave(folder, 3, v, r, reading) for v in (2, 4) for r in range(1, 31)]
    summed(folder, entries, seed=seed)
    return folder


def test_of_many_findings_some_are_drawn_at_random_by_the_seed_and_never_the_best(tmp_path: Path) -> None:
    first = drawn(many(tmp_path / "a", seed=1))
    assert first.said == "Drawn at random by the seed, never the best: 24 of 60 findings with images."
    names = [scene.title for scene in first.scenes]
    assert len(names) == len(set(names)) == 24
    assert names != [scene.title for scene in drawn(many(tmp_path / "b", seed=2)).scenes]
    assert names == [scene.title for scene in drawn(many(tmp_path / "c", seed=1, reading="server")).scenes]
    assert drawn(many(tmp_path / "d", seed=None)).scenes


def test_of_large_batches_so_many_images_are_drawn_that_the_page_stays_small(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    for round in range(1, 9):
        leave(folder, 3, 2, round, "plain", batch=32, true=torch.rand(32, 3, 64, 64))
    found = drawn(folder)
    assert {len(scene.rows) for scene in found.scenes} == {leak_gallery.MOST_IMAGES}
    assert {scene.rest for scene in found.scenes} == {"8 of 32 images of the batch, drawn at random."}
    assert "of 8 findings with images" in found.said
    assert len(page_of(folder)) < 3_000_000


def test_the_leak_is_drawn_over_rounds_a_line_a_reading(run: Path, page: str, tmp_path: Path) -> None:
    curves = ["Images read, over rounds", "Error of images, over rounds", "Labels read, over rounds"]
    assert [title for title in titles(page) if title in curves] == curves
    found = leaks.found(read(run))
    lines = leak_curves.lines(found, "mse")
    assert list(lines) == [("idlg", reading) for reading in SKETCHED]
    x, y = lines["idlg", "stateful"]
    assert x.tolist() == [1, 5, 10]
    errors = [leak.images[0].figures["mse"] for leak in found if leak.reading == "stateful" and leak.round == 5]
    assert y[1] == sorted(errors)[1]
    folder = gossip(tmp_path / "once")
    leave(folder, 3, 2, 4, "plain")
    assert not {*curves} & {*named(folder)}


def test_of_very_many_methods_the_lines_are_those_of_readings(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    for at in range(13):
        for round in (1, 2):
            told = {"attacker": 3, "victim": 2, "method": f"m{at}", "reading": "plain", "recovered": at / 12}
            findings.write(folder, told | {"round": round}, {})
    lines = leak_curves.lines(leaks.found(read(folder)), "recovered")
    assert [*lines] == [("", "plain")]
    assert lines["", "plain"][1].tolist() == pytest.approx([0.5, 0.5])


def test_what_is_reckoned_over_all_rounds_together_is_no_curve(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    sure = {"inferred": "membership"}
    for round in (1, 2, 3):
        findings.write(folder, {"attacker": 3, "victim": 2, "round": round, "method": "guess", **sure, "auc": 0.9}, {})
    assert named(folder) == ["Who can tell whose examples were learned from", "What was read over the peer graph"]
    findings.write(folder, {"attacker": 3, "victim": 2, "round": 4, "method": "guess", **sure, "auc": 0.6}, {})
    assert "Certainty of membership, over rounds" in named(folder)


def test_squares_and_links_say_who_read_whom_by_the_strongest_of_readings(run: Path, page: str, tmp_path: Path) -> None:
    found = leak_map.squares(leaks.found(read(run)), "recovered")
    assert {pair: square.figure for pair, square in found.items()} == {
        (("3",), "2"): 1.0, (("3",), "4"): 1.0, (("0",), "1"): 1.0, (("0",), "4"): None,
    }  # fmt: skip
    for said in ("Who can read whom: images", "What was read over the peer graph", "Who can read whom: labels"):
        assert said in titles(page)
    assert '<i class="key-none"></i>attacked, nothing found' in page
    assert "Dotted: read by a peer that has no link to it." in page
    folder = gossip(tmp_path / "near")
    leave(folder, 3, 2, 1, "plain")
    squares, graph, _ = told_of(folder).pictures
    assert "none" not in {role for picture in (squares, graph) for role, _ in picture.keys}
    assert "Dotted" not in graph.caption


def test_a_share_of_images_is_of_all_that_a_victim_lost_in_all_rounds(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "run")
    for round, batch, reading in ((1, 6, "plain"), (2, 2, "memoryless"), (2, 2, "head")):
        leave(folder, 3, 2, round, reading, batch)
    found = leak_map.squares(leaks.found(read(folder)), "recovered")
    square = found[("3",), "2"]
    assert square.figure == 6 / 8
    assert square.psnr_db is not None
    assert square.psnr_db > 70


def test_the_hub_and_many_attackers_are_drawn_too(tmp_path: Path) -> None:
    folder = star(tmp_path / "star")
    entries = [leave(folder, "hub", victim, 1, "plain") for victim in range(8)]
    summed(folder, entries)
    assert ("slow", "attacker") in told_of(folder).pictures[1].keys
    folder = gossip(tmp_path / "many", peers=40, rounds=6)
    for peer in range(40):
        findings.write(folder, {"attacker": peer, "victim": (peer + 1) % 40, "round": 1, "method": "idlg"}, {})
    squares, graph = told_of(folder).pictures
    assert squares.caption.endswith(" 32 of 40 attackers, evenly chosen. 32 of 40 victims, evenly chosen.")
    assert squares.keys == (("none", "attacked, nothing found"),)
    assert graph.keys[0] == squares.keys[0]


def test_the_table_of_attacks_is_sorted_in_words_and_never_cuts_readings_off_from_each_other(
    run: Path, tmp_path: Path
) -> None:
    told, folder = json.loads((run / "summary.json").read_text())["attacks"], gossip(tmp_path / "run")
    summed(folder, told[::-1])
    table = leak_tables.attacks(read(folder))
    assert table.heads[:6] == ["attacker", "victim", "round", "method", "reading", "place"]
    assert [row[:5] for row in table.rows[:5]] == [["0", "1", "1", "idlg", reading] for reading in SKETCHED]
    assert table.rows[3][7:9] == ["100.0 %", "90.0 dB"]
    entries = [entry | {"round": r, "engine": "simulate"} for entry in told[:5] for r in range(1, 102)]
    summed(folder, entries)
    table = leak_tables.attacks(read(folder))
    assert len(table.rows) == 200
    assert table.rest == "And 305 rows more: summary.json has all of them."
    assert table.heads[-1] == "counts as"
    assert {row[-1] for row in table.rows} == {"rehearsal"}
    summed(folder, [entry | {"round": r} for entry in told[:3] for r in range(1, 102)])
    assert len(leak_tables.attacks(read(folder)).rows) == 198


def test_what_each_reading_came_to_stands_with_its_interval(run: Path, page: str) -> None:
    assert "30 of 40 images were read, each by the strongest reading of its attack." in page
    assert "<td>75.0 % (60 % to 86 %)</td>" in page
    table = leak_tables.readings(read(run))
    assert table is not None
    assert [row[0] for row in table.rows][:6] == ["the strongest of each", *SKETCHED]


def broken(folder: Path) -> None:
    """Every kind of nonsense among the findings of a run."""
    home = folder / "attacks/peer-6"
    home.mkdir(parents=True)
    words = dict.fromkeys(("method", "reading", "threat", "holds", "knowledge", "engine", "failed"), EVIL)
    evil = {"attacker": 6, "victim": 5, "round": 2, "options": {EVIL: EVIL, "b": [1]}, "frames_at": [EVIL, 1e400, -1]}
    images = [{"mse": EVIL, "psnr_db": float("inf"), "ssim": [], "label": EVIL, "guessed": EVIL, "peer": EVIL}, 7, None]
    texts = ["", "{", "[]", "7", "[" * 100_000, "\xff\xfe", json.dumps(evil | words | {"images": images, "auc": 1e300})]
    texts += [json.dumps(evil | {"attacker": each}) for each in (None, "3+", "x", -7, [3], 1.5, "3+hub+99999999999")]
    texts += [json.dumps(evil | {"round": each}) for each in (-1, "2", 1e9, True, None)] + [" " * 1_100_000 + "{}"]
    for at, text in enumerate(texts, 1):
        (home / f"{at:04}.json").write_bytes(text.encode("latin-1"))
    for at in range(20, 30):
        (home / f"{at:04}.json").write_text(json.dumps(evil | {"attacker": 6, "round": at, "method": "idlg"}))
    (home / "0098.json").mkdir()
    odd = [torch.full((2, 1, 8, 8), float("nan")), torch.rand(2, 1, 8, 8) * 1e38, torch.rand(2, 17, 8, 8),
           torch.rand(1, 1, 1, 2000), torch.rand(64), torch.ones(2, 1, 8, 8, dtype=torch.int64)]  # fmt: skip
    for at, tensor in enumerate(odd, 20):
        kept = {"inputs_BCHW": tensor, "frames_FCHW": tensor, "labels_B": tensor}
        findings.keep(home / f"{at:04}.safetensors", kept)
        findings.keep(home / f"{at:04}.truth.safetensors", {"originals_BCHW": tensor, "inputs_B": torch.arange(9)})
    for at, junk in enumerate((b"", b"\xff" * 99, b"\x10\0\0\0\0\0\0\0{}", b"x" * 7), 26):
        (home / f"{at:04}.safetensors").write_bytes(junk)
        (home / f"{at:04}.truth.safetensors").write_bytes(junk)


def test_findings_of_nonsense_cost_only_themselves(run: Path, page: str, tmp_path: Path) -> None:
    whole, folder = page, tmp_path / "run"
    shutil.copytree(run, folder)
    broken(folder)
    summary = json.loads((folder / "summary.json").read_text())
    summary["attacks"] += [EVIL, 7, {EVIL: EVIL}, {"attacker": EVIL, "mse": float("nan"), "psnr_db": EVIL}]
    summary["leak"] |= {EVIL: {"recovered": EVIL, "images": 1}, "seconds": float("inf"), "plain": [], "head": 3}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = page_of(folder)
    html = Balanced(page)
    assert {"script", "iframe", "link"} & html.names == set()
    assert "<script" not in page
    assert len(page) < 3_000_000
    assert set(titles(whole)) <= set(titles(page))
    assert sum(leak.attackers == ("3",) for leak in leaks.found(read(folder))) == 30
    folder = gossip(tmp_path / "file")
    (folder / "attacks").write_text("x")
    assert leak_section.section(read(folder)) is None
    (folder / "summary.json").write_text('{"attacks": {"a": 1}, "leak": [1]}')
    assert leak_section.section(read(folder)) is None


def test_entries_of_a_summary_are_shown_where_the_findings_are_gone(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("attacks"))
    told = told_of(folder)
    assert "Who can read whom: images" in [picture.title for picture in told.pictures]
    assert told.gallery is None
    assert len(told.table.rows) == 46


def test_rows_that_tell_of_attacks_are_no_rounds_of_their_peer(tmp_path: Path) -> None:
    clean, folder = gossip(tmp_path / "a" / "run"), gossip(tmp_path / "b" / "run")
    told = [{"peer": 3, "round": 30, "spied": {"about": "idlg", "loss": 9.0}, "loss": 9.0, "test_accuracy": 0.1}]
    told += [{"peer": 5, "round": 31, "spying": {"done": 0.5, "loss": 1.0}}, {"peer": "all", "round": 2, "spied": {}}]
    with (folder / "records.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in told))
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    held = [row | ({"held": {"0": [1, 2]}} if row["peer"] == 2 and "loss" in row else {}) for row in rows]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    assert page_of(folder).replace("/b/", "/a/") == page_of(clean)


def spoken(peers: int = 4) -> tuple[live.Live, io.StringIO]:
    text = io.StringIO()
    return live.Live(Console(file=text, width=200), "run", [str(peer) for peer in range(peers)], 2, None), text


def spying(peer: int, about: str, done: float, loss: float | None) -> Row:
    return {"peer": peer, "round": 1, "spying": {"about": about, "done": done, "loss": loss}}


def test_an_attack_is_shown_while_it_is_at_work_and_that_the_run_waits_for_it() -> None:
    shown, _ = spoken()
    shown.hear("3", spying(3, "idlg on peer 2, round 1", 0.4, 1e-3))
    assert shown.line() == "round 0/2  peer 3 spies: idlg on peer 2, round 1  40 %  loss 0.001"
    for row in learning([0, 1, 2, 3], 2):
        shown.hear(str(row["peer"]), row)
    assert shown.line().endswith("40 %  loss 0.001  the run ends when attacks are through")
    shown.hear("3", spying(3, "idlg on peer 2, round 1", 1.0, None))
    assert "spies" not in shown.line()
    assert "attacks" not in shown.line()


def test_what_an_attack_found_is_no_loss_and_no_round_of_its_peer() -> None:
    shown, _ = spoken()
    for row in learning([0, 1, 2, 3], 1):
        shown.hear(str(row["peer"]), row)
    before = shown.line()
    shown.hear("3", {"peer": 3, "round": 2, "loss": 77.0, "sent_bytes": 10**9, "spied": {"loss": 77.0}})
    assert shown.line() == before


def test_attacks_of_many_and_words_that_would_steer_a_terminal_are_held_in_check() -> None:
    shown, text = spoken(peers=20)
    for peer in range(20):
        shown.hear(str(peer), spying(peer, f"\x1b[2J{EVIL}\n" * 20, 0.5, float("nan")))
    line = shown.line()
    assert line.count("spies:") == 6
    assert "and 14 others spy" in line
    assert "\x1b" not in line
    assert "\n" not in line
    for nonsense in ({"spying": 7}, {"spying": {}}, {"spying": {"done": "x", "about": [1]}}, {"spying": None}):
        shown.hear("3", {"peer": 3, "round": 1, **nonsense})
    with shown:
        pass
    assert text.getvalue()


def test_a_sweep_over_attacks_and_defences_shows_what_leaked_settings_against_settings(tmp_path: Path) -> None:
    folders = []
    for at, (defence, attack) in enumerate((d, a) for d in ("[]", "[{prune: {}}]") for a in ("idlg", "dlg")):
        folder = gossip(tmp_path / f"case-{at}", peers=4, rounds=6)
        text = f"name: sweep\nseed: 1\npeers: 4\ndefences: {defence}\n"
        entry = f"{{peers: [3], attack: {{{attack}: {{}}}}, rounds: [1, 3, 5]}}"
        (folder / "scenario.yaml").write_text(f"{text}attacks: [{entry}]\n")
        summed(folder, [], leak={"recovered": 0.25 * at, "psnr_db": 20.0 + at})
        folders.append(folder)
    page = write(folders, tmp_path / "report.html").read_text()
    assert "<h2>What leaked: images read, settings against settings</h2>" in page
    assert "idlg by 3 in 3 rounds from 1" in page
    grid = page[page.index("What leaked") :]
    assert re.findall(r'--shade: ([\d.]+)">([^<]*)</td>', grid)[:4] == [
        ("0.000", "0.0 %"), ("0.333", "25.0 %"), ("0.667", "50.0 %"), ("1.000", "75.0 %"),
    ]  # fmt: skip
    assert "<th>images read</th>" in page
    assert "<b>23.0 dB</b>" in page


def test_what_a_curious_peer_of_a_real_run_found_is_on_its_page(tmp_path: Path) -> None:
    attack = {"peers": [2], "victims": [1], "attack": {"idlg": {"iterations": 40, "restarts": 1}}}
    training = {"local_steps": 1, "batch": 1, "device": "cpu"}
    scenario = {"name": "spied", "seed": 3, "peers": 3, "rounds": 2, "engine": "simulate", "attacks": [attack]}
    scenario |= {"data": {"digits": {"normalise": False}}, "model": {"mlp": {"hidden": [8]}}, "training": training}
    p2pfl.launch(scenario, tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert "Peer 2 spies on peer 1, round 1" in page
    assert blocks(page) == [["original", "plain"]]
    assert "upper bound: untrained model; rehearsal: simulated, no bytes travelled" in page
    (scene,) = drawn(tmp_path / "run").scenes
    assert scene.strips[0].frames[0][1] == "0"
    assert pixels(scene.rows[0][0]).shape == pixels(scene.rows[0][1]).shape == (80, 80)
    assert scene.rows[0][1].lines[0].endswith(" dB")
