"""Downloads: resumed where they were cut, checked before they are believed, and honest when nobody helps."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl.errors import ScenarioError
from p2pfl.learning.datasets._fetching import CHUNK_BYTES, Source, fetch, fetch_archive

CONTENT = numpy.random.default_rng(0).bytes(3 * CHUNK_BYTES + 17)
TIMEOUT_S = 0.3


@dataclass
class Mirror:
    """A real server on loopback: what it holds, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    stalls: bool = False
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next replies is cut."""
    served_bytes: int = 0
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    address: str = ""


def handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            content, asked = mirror.files.get(self.path), self.headers.get("Range", "")
            mirror.asked.append(asked)
            if mirror.stalls:
                mirror.ended.wait()
                return
            begin = int(asked.removeprefix("bytes=").rstrip("-") or 0) if mirror.ranges else 0
            if content is None or begin >= max(len(content), 1):
                self.send_error(404 if content is None else 416)
                return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if mirror.lengths:
                self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            body = content[begin:][: mirror.cuts.pop(0) if mirror.cuts else None]
            mirror.served_bytes += len(body)
            with contextlib.suppress(ConnectionError):  # the other side had enough
                self.wfile.write(body)

    return Handler


@pytest.fixture
def mirrors() -> Iterator[list[Mirror]]:
    """Three servers that hold nothing yet."""
    with serving(3) as found:
        yield found


class serving:  # noqa: N801
    """A context within which so many servers answer."""

    def __init__(self, count: int) -> None:
        self.mirrors = [Mirror() for _ in range(count)]
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler(mirror)) for mirror in self.mirrors]

    def __enter__(self) -> list[Mirror]:
        for mirror, server in zip(self.mirrors, self.servers, strict=True):
            mirror.address = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self.mirrors

    def __exit__(self, *_: object) -> None:
        for mirror, server in zip(self.mirrors, self.servers, strict=True):
            mirror.ended.set()
            server.shutdown()
            server.server_close()


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("P2PFL_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def source(*mirrors: Mirror, content: bytes = CONTENT, path: str = "set/file.gz") -> Source:
    urls = tuple(f"{mirror.address}/file.gz" for mirror in mirrors)
    return Source(path, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}", urls)


def silent(path: str, here: int, whole: int) -> None:
    """Hears nothing."""


def got(wanted: Source, root: Path) -> bytes:
    fetch(wanted, root, silent, TIMEOUT_S)
    assert [path.name for path in (root / "set").iterdir()] == ["file.gz"]  # no part is left behind
    return (root / wanted.path).read_bytes()


def test_a_file_is_fetched_and_its_progress_told(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"] = CONTENT
    heard: list[tuple[str, int, int]] = []
    said = fetch(source(mirrors[0]), tmp_path, lambda *told: heard.append(told), TIMEOUT_S)
    assert (tmp_path / "set/file.gz").read_bytes() == CONTENT
    assert mirrors[0].address in said
    assert {(path, whole) for path, _, whole in heard} == {("set/file.gz", len(CONTENT))}
    here = [at for _, at, _ in heard]
    assert here == sorted(here)
    assert here[-1] == len(CONTENT)


def test_what_is_there_is_checked_and_not_asked_for(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"] = CONTENT
    wanted = source(mirrors[0])
    got(wanted, tmp_path)
    assert "was there" in fetch(wanted, tmp_path, silent)
    assert len(mirrors[0].asked) == 1
    for other in (CONTENT[:-1], bytes(len(CONTENT))):
        (tmp_path / "set/file.gz").write_bytes(other)
        with pytest.raises(ScenarioError, match=r"file\.gz is not the original, .*: move it away"):
            fetch(wanted, tmp_path, silent)
        assert (tmp_path / "set/file.gz").read_bytes() == other  # it may be dear to somebody


def test_a_cut_download_goes_on_where_it_was_cut(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"] = CONTENT
    mirrors[0].cuts = [100_000, 50_000, 1]
    assert got(source(mirrors[0]), tmp_path) == CONTENT
    assert mirrors[0].asked == ["", "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert mirrors[0].served_bytes == len(CONTENT)


def test_another_mirror_and_another_run_go_on_too(mirrors: list[Mirror], tmp_path: Path) -> None:
    first, second, _ = mirrors
    first.files["/file.gz"] = second.files["/file.gz"] = CONTENT
    first.cuts = [70_000, 0]
    with pytest.raises(ScenarioError, match="ended after 70,000"):
        fetch(source(first), tmp_path, silent, TIMEOUT_S)
    assert (tmp_path / "set/file.gz.part").read_bytes() == CONTENT[:70_000]
    assert got(source(second), tmp_path) == CONTENT
    assert second.served_bytes == len(CONTENT) - 70_000


def test_a_server_that_ignores_ranges_is_asked_for_all(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"], mirrors[0].ranges = CONTENT, False
    mirrors[0].cuts = [100_000]
    assert got(source(mirrors[0]), tmp_path) == CONTENT
    assert mirrors[0].served_bytes == 100_000 + len(CONTENT)


@pytest.mark.parametrize("part", [b"wrong", CONTENT + b"more", bytes(len(CONTENT)), bytes(len(CONTENT) - 1)])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_that_is_wrong_is_begun_anew(part: bytes, ranges: bool, mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"], mirrors[0].ranges = CONTENT, ranges
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.gz.part").write_bytes(part)
    assert got(source(mirrors[0]), tmp_path) == CONTENT
    assert mirrors[0].asked[-1] == "" or not ranges


def test_a_file_that_grew_shorter_on_the_server_is_begun_anew(mirrors: list[Mirror], tmp_path: Path) -> None:
    short = CONTENT[:1000]
    mirrors[0].files["/file.gz"] = short
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.gz.part").write_bytes(short[:10])
    with pytest.raises(ScenarioError, match="offers 1,000 bytes where the file has"):
        fetch(source(mirrors[0]), tmp_path, silent, TIMEOUT_S)
    (tmp_path / "set/file.gz.part").write_bytes(CONTENT[:2000])  # the server answers 416
    with pytest.raises(ScenarioError, match="offers 1,000 bytes"):
        fetch(source(mirrors[0]), tmp_path, silent, TIMEOUT_S)
    assert list((tmp_path / "set").iterdir()) == []


def test_mirrors_are_tried_in_turn_until_one_has_the_right_bytes(mirrors: list[Mirror], tmp_path: Path) -> None:
    missing, wrong, right = mirrors
    wrong.files["/file.gz"], right.files["/file.gz"] = bytes(len(CONTENT)), CONTENT
    assert got(source(missing, wrong, right), tmp_path) == CONTENT
    assert [len(mirror.asked) for mirror in mirrors] == [1, 1, 1]


def test_when_nobody_helps_each_mirror_is_named_with_its_reason(mirrors: list[Mirror], tmp_path: Path) -> None:
    missing, wrong, slow = mirrors
    wrong.files["/file.gz"], slow.stalls = bytes(len(CONTENT)), True
    nobody = Mirror(address="http://127.0.0.1:9")
    with pytest.raises(ScenarioError) as error:
        fetch(source(missing, wrong, slow, nobody), tmp_path, silent, TIMEOUT_S)
    said = str(error.value)
    assert "\n" not in said
    for mirror, reason in ((missing, "answers 404"), (wrong, "sends other bytes"), (slow, "is too slow"), (nobody, "")):
        assert f"{mirror.address}/file.gz {reason}" in said
    assert not (tmp_path / "set/file.gz").exists()


def test_never_more_bytes_are_written_than_the_file_has(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"] = bytes(50 * len(CONTENT))
    with pytest.raises(ScenarioError, match=r"offers .* bytes where the file has"):
        fetch(source(mirrors[0]), tmp_path, silent, TIMEOUT_S)
    mirrors[0].lengths = False
    sizes: list[int] = []
    part = tmp_path / "set/file.gz.part"
    with pytest.raises(ScenarioError, match="sends other bytes"):
        fetch(source(mirrors[0]), tmp_path, lambda *_: sizes.append(part.stat().st_size), TIMEOUT_S)
    assert sizes
    assert max(sizes) <= len(CONTENT)
    assert list((tmp_path / "set").iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6), ranges=st.booleans(), begun=st.integers(0, 300_000))
def test_whatever_is_cut_the_file_is_right_or_not_there(cuts: list[int], ranges: bool, begun: int) -> None:
    with tempfile.TemporaryDirectory() as folder, serving(1) as (mirror,):
        mirror.files["/file.gz"], mirror.cuts, mirror.ranges = CONTENT, list(cuts), ranges
        root, wanted = Path(folder), source(mirror)
        (root / "set").mkdir()
        (root / "set/file.gz.part").write_bytes(CONTENT[:begun])
        for _ in range(len(cuts) + 1):
            try:
                fetch(wanted, root, silent)
                break
            except ScenarioError:
                assert not (root / wanted.path).exists()
        assert (root / wanted.path).read_bytes() == CONTENT


def test_a_mirror_of_ones_own_is_tried_first(
    mirrors: list[Mirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, public, _ = mirrors
    own.files["/lab/set/file.gz"] = public.files["/file.gz"] = CONTENT
    monkeypatch.setenv("P2PFL_MIRROR", f"{own.address}/lab/")
    assert got(source(public), tmp_path) == CONTENT
    assert (len(own.asked), len(public.asked)) == (1, 0)
    monkeypatch.setenv("P2PFL_MIRROR", "file:///etc")
    with pytest.raises(ScenarioError, match="P2PFL_MIRROR is 'file:///etc': give an address"):
        fetch(source(public, path="set/other.gz"), tmp_path, silent)


BATCHES = {f"set/{name}.bin": name.encode() * 1000 for name in ("one", "two")}


def packed(files: dict[str, bytes], *strange: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in strange:
            tar.addfile(entry)
    return buffer.getvalue()


def link(name: str, to: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, to
    return entry


MEMBERS = [Source(name, len(body), f"md5:{hashlib.md5(body).hexdigest()}") for name, body in BATCHES.items()]


def archived(mirror: Mirror, content: bytes) -> Source:
    mirror.files["/file.gz"] = content
    return source(mirror, content=content, path="archive.tar.gz")


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def test_only_the_named_members_of_an_archive_are_taken(mirrors: list[Mirror], tmp_path: Path) -> None:
    root = tmp_path / "data"
    strange = {"set/readme.html": b"hello", "../evil": b"evil", "/tmp/evil": b"evil", "set/../../evil": b"evil"}
    content = packed({**strange, **BATCHES}, link("set/link", "/etc/passwd"), link("set/one.bin", "/etc/passwd"))
    said = fetch_archive(archived(mirrors[0], content), MEMBERS, root, silent)
    assert files_in(tmp_path) == [f"data/{name}" for name in BATCHES]
    assert {name: (root / name).read_bytes() for name in BATCHES} == BATCHES
    assert not any((root / name).is_symlink() for name in BATCHES)
    assert len(said) == 3
    assert all("was there" in line for line in fetch_archive(archived(mirrors[0], b""), MEMBERS, root, silent))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (packed({"set/one.bin": BATCHES["set/one.bin"]}), r"holds no set/two\.bin of the right size"),
        (packed({**BATCHES, "set/two.bin": bytes(3000)}), r"set/two\.bin in the archive is not the original"),
        (packed({**BATCHES, "set/two.bin": b"longer" * 1000}), r"holds no set/two\.bin of the right size"),
        (packed({"set/one.bin": BATCHES["set/one.bin"]}, link("set/two.bin", "one.bin")), r"holds no set/two\.bin"),
        (packed(BATCHES)[:-30], "archive.tar.gz is broken"),
        (b"<html>no archive</html>", "archive.tar.gz is broken"),
    ],
)
def test_an_archive_that_is_not_as_expected_is_refused(
    content: bytes, said: str, mirrors: list[Mirror], tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError, match=said):
        fetch_archive(archived(mirrors[0], content), MEMBERS, tmp_path, silent)
    assert not (tmp_path / "set/two.bin").exists()
    assert not list(tmp_path.rglob("*.bin.part"))


def test_a_member_that_is_there_and_wrong_is_left_alone(mirrors: list[Mirror], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/one.bin").write_bytes(b"mine")
    with pytest.raises(ScenarioError, match=r"one\.bin is not the original"):
        fetch_archive(archived(mirrors[0], packed(BATCHES)), MEMBERS, tmp_path, silent)
    assert files_in(tmp_path) == ["set/one.bin"]
    assert mirrors[0].asked == []


def test_several_that_fetch_the_same_file_at_once_wait_for_one(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"] = CONTENT
    with ThreadPoolExecutor(4) as several:
        said = list(several.map(lambda _: fetch(source(mirrors[0]), tmp_path, silent, TIMEOUT_S), range(4)))
    assert sum("fetched" in each for each in said) == 1
    assert sum("was there" in each for each in said) == 3
    assert mirrors[0].served_bytes == len(CONTENT)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_not_the_mirrors_fault(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].files["/file.gz"] = mirrors[1].files["/file.gz"] = CONTENT
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.gz.part").symlink_to("/dev/full")
    with pytest.raises(ScenarioError, match=r"cannot write .*file\.gz\.part, No space left on device: make room"):
        fetch(source(*mirrors[:2]), tmp_path, silent, TIMEOUT_S)
    assert mirrors[1].asked == []
