"""Bring the files of a data set from public mirrors: resumed where it was cut, and checked before it is believed.

A download grows in `FILE.part`, which keeps what came through any cut (RFC 9110, section 14: Range), and becomes `FILE`
once its size and checksum are right. Never more bytes are written than the file has. A mirror of your own, tried
before the public ones, is named by the environment variable P2PFL_MIRROR: it says where this machine fetches from
and nothing about the experiment.
"""

from __future__ import annotations

import fcntl
import hashlib
import http
import http.client
import os
import re
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from p2pfl.errors import ScenarioError

TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 16
TRIES = 20
"""Requests to one mirror, each beginning where the one before was cut."""

Hear = Callable[[str, int, int], None]
"""Told the path of a file, the bytes of it that are here, and the bytes that it has."""


@dataclass(frozen=True)
class Source:
    """One file: where it lies below the folder of all data, where it can be had, and how to know it."""

    path: str
    size_bytes: int
    digest: str
    """`sha256:` or `md5:`, and the hexadecimal digits."""
    urls: tuple[str, ...] = ()


class Refusal(Exception):
    """A mirror does not give the file; `afresh` says that what is here may be to blame."""

    def __init__(self, reason: str, afresh: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.afresh = reason, afresh


def fetch(source: Source, root: Path, hear: Hear, timeout_s: float = TIMEOUT_S) -> str:
    """Have the file below `root`; says in a few words whether it was there or came. Raises ScenarioError."""
    target = root / source.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent):
        if target.exists():
            check(target, source)
            return f"{source.path}: was there, its checksum is right"
        return _fetched(source, target, hear, timeout_s)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within, no other process fetches into this folder: two would write to one part."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetched(source: Source, target: Path, hear: Hear, timeout_s: float) -> str:
    part, reasons = target.with_name(f"{target.name}.part"), []
    part.touch()  # a folder that cannot be written to is not a mirror's fault
    for url in mirrors(source):
        reason = _from(url, part, source, hear, timeout_s)
        if not reason:
            part.replace(target)
            return f"{source.path}: fetched from {url}"
        reasons.append(f"{url} {reason}")
    if part.stat().st_size == 0:
        part.unlink()
    problem = f"cannot fetch {source.path}, {'; '.join(reasons) or 'nobody offers it'}"
    raise ScenarioError(problem, f"try again later, or put the file into {target.parent}")


def fetch_archive(
    archive: Source, members: Sequence[Source], root: Path, hear: Hear, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Have these members of a .tar.gz below `root`, checked; an archive that came for it goes. Raises ScenarioError."""
    there = [member for member in members if (root / member.path).exists()]
    for member in there:
        check(root / member.path, member)
    if len(there) == len(members):
        return [f"{member.path}: was there, its checksum is right" for member in members]
    came = not (root / archive.path).exists()
    said = fetch(archive, root, hear, timeout_s)
    unpack(root / archive.path, [member for member in members if member not in there], root)
    if came:
        (root / archive.path).unlink()
    return [said, *(f"{member.path}: unpacked" for member in members if member not in there)]


def unpack(archive: Path, members: Sequence[Source], root: Path) -> None:
    """Take exactly these out of a .tar.gz, as regular files of the right size and checksum. Raises ScenarioError."""
    wanted = {member.path: member for member in members}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                member = wanted.get(entry.name)
                if member is None or not entry.isreg() or entry.size != member.size_bytes:
                    continue  # whatever else it holds stays there: links, devices, paths that lead elsewhere
                stream = tar.extractfile(entry)
                if stream is not None:
                    _place(stream, root / member.path, member)
                    del wanted[entry.name]
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ScenarioError(f"{archive} is broken, {error}", "remove it, and fetch it again") from None
    if wanted:
        raise ScenarioError(f"{archive} holds no {min(wanted)} of the right size", "remove it, and fetch it again")


def mirrors(source: Source) -> tuple[str, ...]:
    """Where a file can be had, in the order of trying."""
    own = os.environ.get("P2PFL_MIRROR", "").rstrip("/")
    if own and not own.startswith(("http://", "https://")):
        raise ScenarioError(f"P2PFL_MIRROR is {own!r}", "give an address that begins with http:// or https://")
    return (f"{own}/{source.path}", *source.urls) if own else source.urls


def check(path: Path, source: Source) -> None:
    """Raise ScenarioError unless the file is the one that is meant."""
    if reason := wrong(path, source):
        raise ScenarioError(f"{path} is not the original, {reason}", "move it away to have it fetched")


def wrong(path: Path, source: Source) -> str:
    """Why a file is not the one that is meant; empty when it is."""
    if (size := path.stat().st_size) != source.size_bytes:
        return f"it has {size:,} bytes and not {source.size_bytes:,}"
    kind, _, expected = source.digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return "" if found == expected else f"its {kind} is {found[:12]}... and not {expected[:12]}..."


def _from(url: str, part: Path, source: Source, hear: Hear, timeout_s: float) -> str:
    """Why this mirror did not complete the part; empty when it did. Goes on as long as bytes come."""
    reason = "was cut too often"
    for _ in range(TRIES):
        before = part.stat().st_size
        try:
            if before < source.size_bytes:
                _receive(url, part, source, hear, timeout_s)
            if not (reason := wrong(part, source)):
                return ""
            raise Refusal(f"sends other bytes: {reason}", afresh=True)
        except Refusal as refusal:
            reason = refusal.reason
            if refusal.afresh:
                part.write_bytes(b"")
            if not (refusal.afresh and before):
                return reason
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _in_words(error)
            if part.stat().st_size <= before:
                return reason
    return reason


def _receive(url: str, part: Path, source: Source, hear: Hear, timeout_s: float) -> None:
    """Add to the part what one request brings. Raises Refusal, or OSError when the connection is cut."""
    have = part.stat().st_size
    headers = {"User-Agent": "p2pfl", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _asked(urllib.request.Request(url, headers=headers), timeout_s) as reply:
        have = _begins(reply, have, source)
        with part.open("ab" if have else "wb") as file:
            while have < source.size_bytes:
                chunk = reply.read1(min(CHUNK_BYTES, source.size_bytes - have))
                if not chunk:
                    raise ConnectionError(f"it ended after {have:,} of {source.size_bytes:,} bytes")
                _write(file, chunk, part)
                have += len(chunk)
                hear(source.path, have, source.size_bytes)


def _write(file: IO[bytes], chunk: bytes, part: Path) -> None:
    """Raises ScenarioError where the disk, and not the mirror, is to blame."""
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        problem = f"cannot write {part}, {error.strerror}"
        raise ScenarioError(problem, "make room, or let P2PFL_DATA name another folder") from None


def _asked(request: urllib.request.Request, timeout_s: float) -> Any:
    """The reply to a request. Raises Refusal where what is here is no beginning of the file, else OSError."""
    try:
        return urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise Refusal(_in_words(error), afresh=True) from None
        raise


def _begins(reply: Any, have: int, source: Source) -> int:
    """The byte that a reply begins with: `have`, or 0 where the server ignores ranges. Raises Refusal."""
    if reply.status == 206:
        expected = f"bytes {have}-{source.size_bytes - 1}/{source.size_bytes}"
        if (given := reply.headers.get("Content-Range", "")) != expected:
            raise Refusal(f"sends {given or 'a part'} where {expected} was asked for", afresh=True)
        return have
    length = reply.headers.get("Content-Length", "")
    if re.fullmatch("[0-9]+", length) and int(length) != source.size_bytes:
        raise Refusal(f"offers {int(length):,} bytes where the file has {source.size_bytes:,}")
    return 0


def _in_words(error: Exception) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"answers {error.code} {error.reason}"
    if isinstance(error, TimeoutError):
        return "is too slow to answer"
    if isinstance(error, urllib.error.URLError):
        return _in_words(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
    return f"fails: {getattr(error, 'strerror', None) or error or type(error).__name__}"


def _place(stream: IO[bytes], target: Path, member: Source) -> None:
    """Write a member beside where it belongs, and move it there once it is right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(stream.read(member.size_bytes))
    if reason := wrong(part, member):
        part.unlink()
        raise ScenarioError(f"{member.path} in the archive is not the original, {reason}", "remove the archive")
    part.replace(target)
