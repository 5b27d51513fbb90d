"""Any message survives the wire bit for bit; any bytes whatever are a valid chunk or a RemoteError, never more memory
than the form permits."""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from collections.abc import Iterable
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from p2pfl.errors import LocalError, RemoteError
from p2pfl.messages import Form, Message
from p2pfl.transport.forms import DTYPES, Anything, Wanted, check_whole, finite
from p2pfl.transport.frames import CHUNK_BYTES, HEADER_BYTES, Beat, Decoder, Part, encode, encode_beat

RUN = b"run"
FAST = settings(deadline=None)  # a busy machine is no failure
FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point]
MODEL = Form({"w": (torch.float32, (700, 1000)), "b": (torch.float64, (3,))}, {"key": bytes})
Chunks = list[tuple[Any, Any]]


def form_of(message: Message) -> Form:
    tensors = {name: (x.dtype, tuple(x.shape)) for name, x in message.tensors.items()}
    return Form(tensors, {name: type(figure) for name, figure in message.figures.items()})


def a_model(round: int = 3) -> Message:
    return Message("model", round, {"w": torch.randn(700, 1000), "b": torch.arange(3.0).double()}, {"key": b"k"})


def in_four_chunks() -> Message:
    return Message("model", 3, {name: torch.ones(5) for name in "abcd"}, {"key": b"k"})


def wanting(wanted: Wanted) -> Decoder:
    return Decoder(RUN, lambda kind, round: wanted)


def heard(decoder: Decoder, chunks: Iterable[tuple[Any, Any]]) -> list[Message | Beat]:
    return [said for said in (decoder.feed(*chunk) for chunk in chunks) if said is not None]


def first(*changes: tuple[int, Any], table: Any = None, figures: Any = None) -> bytes:
    """The header of a first chunk, with some of its parts changed."""
    rows = [["w", "float32", [2]]] if table is None else table
    head = [1, Part.FIRST, RUN, 1, "model", 3, rows, {} if figures is None else figures]
    for at, value in changes:
        head[at] = value
    packed: bytes = msgpack.packb(head)
    return packed


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(list(DTYPES.values())))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    numbers = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return numbers.to(dtype).transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else numbers.to(dtype)


FIGURES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=8,
)
MESSAGES = st.builds(
    Message,
    st.text(max_size=9),
    st.integers(0, 2**62 - 1),
    st.dictionaries(st.text(max_size=9), tensors(), max_size=4),
    st.dictionaries(st.text(max_size=9), FIGURES, max_size=4),
)


def same(ours: Message, theirs: Message | Beat) -> bool:
    return (
        isinstance(theirs, Message)
        and (ours.kind, ours.round, dict(ours.figures)) == (theirs.kind, theirs.round, dict(theirs.figures))
        and list(ours.tensors) == list(theirs.tensors)
        and all(
            x.dtype == theirs.tensors[n].dtype and torch.equal(x, theirs.tensors[n]) for n, x in ours.tensors.items()
        )
    )


@FAST
@given(MESSAGES)
def test_every_message_comes_out_as_it_went_in(message: Message) -> None:
    [back] = heard(wanting(Anything(1 << 20)), encode(RUN, 1, message))
    assert same(message, back)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_a_large_message_travels_in_chunks_of_one_mebibyte(dtype: torch.dtype) -> None:
    numbers = torch.arange(CHUNK_BYTES * 5 // 2 // dtype.itemsize) % 97
    message = Message("model", 1, {"a": numbers.to(dtype), "none": torch.zeros(0), "b": torch.ones(3)})
    chunks = encode(RUN, 1, message)
    assert [memoryview(payload or b"").nbytes for _, payload in chunks] == [
        CHUNK_BYTES,
        CHUNK_BYTES,
        CHUNK_BYTES // 2,
        12,
    ]
    [back] = heard(wanting(form_of(message)), chunks)
    assert same(message, back)
    assert back.tensors["a"].data_ptr() % 64 == 0  # type: ignore[union-attr]


def test_payloads_are_views_of_the_tensor_and_not_copies() -> None:
    x = torch.zeros(CHUNK_BYTES)
    payload = encode(RUN, 1, Message("m", 0, {"x": x}))[1][1]
    x[CHUNK_BYTES // 4] = 1.0
    assert payload is not None
    assert bytes(payload[:4]) == b"\0\0\x80\x3f"


@FAST
@given(st.integers(0, 2**62 - 1), st.booleans())
def test_a_beat_comes_out_as_it_went_in(round: int, learning: bool) -> None:
    assert wanting(None).feed(encode_beat(RUN, Beat(round, learning)), None) == Beat(round, learning)


def test_a_beat_within_a_message_does_not_disturb_it() -> None:
    message = a_model()
    chunks: Chunks = [*encode(RUN, 1, message)]
    chunks.insert(2, (encode_beat(RUN, Beat(3, True)), None))
    beat, back = heard(wanting(MODEL), chunks)
    assert beat == Beat(3, True)
    assert same(message, back)


@settings(FAST, max_examples=300)
@given(st.binary(max_size=200), st.none() | st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(header: bytes, payload: bytes | None) -> None:
    for decoder in (wanting(MODEL), wanting(Anything(1 << 20)), wanting(None)):
        with pytest.raises(RemoteError):
            decoder.feed(header, payload)


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.just(RUN),
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(st.text(max_size=3) | st.binary(max_size=3), parts),
    max_leaves=10,
)


@settings(FAST, max_examples=300)
@given(st.sampled_from(list(Part)), st.lists(HEADERS, max_size=6), st.none() | st.binary(max_size=64))
def test_well_formed_msgpack_of_any_content_is_a_chunk_or_refused(part: Part, rest: list[Any], payload: Any) -> None:
    header = msgpack.packb([1, part, RUN, *rest])
    for wanted in (MODEL, Anything(1 << 20), None):
        with contextlib.suppress(RemoteError):
            wanting(wanted).feed(header, payload)


@settings(FAST, max_examples=300)
@given(st.data())
def test_mutated_frames_are_refused_or_heard_but_never_more(data: st.DataObject) -> None:
    message = in_four_chunks()
    chunks = [(bytearray(header), bytearray(payload or b"")) for header, payload in encode(RUN, 1, message)]
    for _ in range(data.draw(st.integers(1, 4))):
        part = chunks[data.draw(st.integers(0, len(chunks) - 1))][data.draw(st.integers(0, 1))]
        if part:
            part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
        if data.draw(st.booleans()):
            del part[data.draw(st.integers(0, len(part))) :]
    decoder = wanting(form_of(message))
    for chunk in chunks:
        with contextlib.suppress(RemoteError):
            decoder.feed(*chunk)


@settings(FAST, max_examples=200)
@given(st.lists(st.integers(0, 3), max_size=12))
def test_chunks_out_of_order_never_make_a_message_that_was_not_sent(order: list[int]) -> None:
    message = in_four_chunks()
    chunks = encode(RUN, 1, message)
    decoder = wanting(form_of(message))
    run: list[int] = []
    for at in order:
        run = [0] if at == 0 else [*run, at]
        try:
            said = decoder.feed(*chunks[at])
        except RemoteError:
            said = None
        if said is not None:
            assert run == [0, 1, 2, 3]
            assert same(message, said)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, CHUNK_BYTES // 8, -1])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(dtype: torch.dtype, bad: float, at: int) -> None:
    x = torch.ones(CHUNK_BYTES // 3, dtype=dtype)
    x[at] = bad
    message = Message("model", 3, {"x": x})
    with pytest.raises(RemoteError, match="not finite"):
        heard(wanting(form_of(message)), encode(RUN, 1, message))
    with pytest.raises(RemoteError, match="not finite"):
        check_whole(message, form_of(message))
    assert heard(wanting(Anything(1 << 24)), encode(RUN, 1, message)), "a record tells what was"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_large_numbers_whose_sum_overflows_are_finite(dtype: torch.dtype) -> None:
    assert finite(torch.full((1000,), torch.finfo(dtype).max, dtype=dtype))


TRAVELLER = Form({"w": (torch.float32, (2,))})
BROKEN = {
    "another version": first((0, 2)),
    "another run": first((2, b"nur")),
    "a negative number": first((3, -1)),
    "a negative round": first((5, -1)),
    "a round beyond all rounds": first((5, 2**62)),
    "a kind that is a number": first((4, 7)),
    "another dtype": first(table=[["w", "float64", [2]]]),
    "another shape": first(table=[["w", "float32", [2, 1]]]),
    "another name": first(table=[["v", "float32", [2]]]),
    "a tensor too many": first(table=[["w", "float32", [2]], ["v", "float32", [2]]]),
    "a tensor twice": first(table=[["w", "float32", [2]], ["w", "float32", [2]]]),
    "no tensor": first(table=[]),
    "an unknown dtype": first(table=[["w", "object", [2]]]),
    "a shape of floats": first(table=[["w", "float32", [2.0]]]),
    "a shape of bools": first(table=[["w", "float32", [True, 2]]]),
    "a negative shape": first(table=[["w", "float32", [-2]]]),
    "a boundless shape": first(table=[["w", "float32", [2**63, 2**63]]]),
    "a shape of zeros and bounds": first(table=[["w", "float32", [0, 2**39, 2**39, 2**39]]]),
    "a shape of many dimensions": first(table=[["w", "float32", [1] * 50_000]]),
    "a row too short": first(table=[["w", "float32"]]),
    "a row that is no list": first(table=["w"]),
    "a figure too many": first(figures={"a": 1}),
    "a figure by no name": first(figures={b"a": 1}),
    "a timestamp": first(figures={"a": msgpack.Timestamp(1, 2)}),
    "an extension": first(figures={"a": msgpack.ExtType(5, b"x")}),
    "an empty extension": first(figures={"a": msgpack.ExtType(5, b"")}),
    "a deep nest": first(figures={"a": [[[[[[[[[[[[1]]]]]]]]]]]]}),
    "a bottomless nest": b"\x91" * 60_000,
    "a header too long": first(figures={"a": b"x" * HEADER_BYTES}),
    "a list that promises more than it holds": b"\xdd\xff\xff\xff\xff",
    "a text that promises more than it holds": b"\x98\x01\x00\xc4\x03run\x01\xdb\xff\xff\xff\xff",
    "a text that is not UTF-8": b"\x91\xa2\xff\xff",
    "two values": b"\x01\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_is_refused(header: bytes) -> None:
    with pytest.raises(RemoteError):
        wanting(TRAVELLER).feed(header, bytes(8))


@pytest.mark.parametrize("size", [0, 1, 7, 9, 4, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_a_chunk_of_another_size_than_was_due_is_refused(size: int) -> None:
    with pytest.raises(RemoteError):
        wanting(TRAVELLER).feed(first(), bytes(size))


ABSURD = ["a shape of zeros and bounds", "a boundless shape", "a shape of many dimensions", "a deep nest"]


@pytest.mark.parametrize("name", [*ABSURD, "an empty extension", "a timestamp", "a figure by no name"])
def test_a_desk_that_takes_anything_refuses_the_absurd(name: str) -> None:
    with pytest.raises(RemoteError):
        wanting(Anything(1 << 34)).feed(BROKEN[name], None)


@pytest.mark.parametrize("bad", [math.nan, [math.inf], {"a": [math.nan]}])
def test_a_figure_that_is_not_finite_is_refused_but_at_a_desk(bad: Any) -> None:
    header = first(figures={"f": bad})
    with pytest.raises(RemoteError):
        wanting(Form(TRAVELLER.tensors, {"f": type(bad)})).feed(header, bytes(8))
    assert wanting(Anything(1 << 20)).feed(header, bytes(8)) is not None


def test_a_broken_message_is_one_fault_and_the_next_is_heard() -> None:
    bad, good = a_model(), a_model()
    bad.tensors["w"][0, 0] = math.nan
    decoder, faults = wanting(MODEL), 0
    said: list[Any] = []
    for chunk in [*encode(RUN, 1, bad), *encode(RUN, 2, good)]:
        try:
            said.append(decoder.feed(*chunk))
        except RemoteError:
            faults += 1
    assert faults == 1
    assert same(good, said[-1])


def test_the_tail_of_a_message_from_before_the_connection_passes_unheard() -> None:
    old, new = encode(RUN, 56, a_model(2)), encode(RUN, 57, a_model(3))
    [back] = heard(wanting(MODEL), [*old[2:], *new])
    assert isinstance(back, Message)
    assert back.round == 3


@pytest.mark.parametrize("number", [0, 1])
def test_a_message_number_that_does_not_rise_is_refused(number: int) -> None:
    decoder = wanting(MODEL)
    heard(decoder, encode(RUN, 1, a_model()))
    with pytest.raises(RemoteError):
        heard(decoder, encode(RUN, number, a_model()))


def test_a_message_begun_within_another_is_refused() -> None:
    decoder = wanting(MODEL)
    decoder.feed(*encode(RUN, 1, a_model())[0])
    with pytest.raises(RemoteError):
        decoder.feed(*encode(RUN, 2, a_model())[0])


def growth_bytes(decoder: Decoder, chunks: Iterable[tuple[Any, Any]]) -> int:
    """The most memory that was held while these chunks were heard, broken or not."""
    tracemalloc.start()
    try:
        for chunk in chunks:
            with contextlib.suppress(RemoteError):
                decoder.feed(*chunk)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_taken_only_for_a_message_of_the_right_form() -> None:
    message = a_model()
    size = sum(x.nbytes for x in message.tensors.values())
    chunks = encode(RUN, 1, message)
    assert size < growth_bytes(wanting(MODEL), chunks) < size + 100_000
    small = Form({"w": (torch.float32, (2,))})
    assert growth_bytes(wanting(small), chunks) < 100_000
    assert growth_bytes(wanting(Anything(size - 1)), chunks) < 100_000
    assert growth_bytes(wanting(None), chunks) < 100_000
    assert growth_bytes(wanting(Anything(1 << 34)), [(header, None) for header in BROKEN.values()]) < 3_000_000


def test_a_message_begun_again_and_again_holds_the_memory_of_one() -> None:
    decoders = wanting(MODEL)
    size = sum(x.nbytes for x in a_model().tensors.values())
    chunks = [encode(RUN, number, a_model())[0] for number in range(1, 30)]
    assert growth_bytes(decoders, chunks) < size + 200_000


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (Message("m", 1, {"mask": torch.ones(3, dtype=torch.bool)}), "bool"),
        (Message("m", 1, figures={"text": "x" * HEADER_BYTES}), "figures"),
    ],
)
def test_what_no_message_can_carry_is_an_error_of_ours(message: Message, word: str) -> None:
    with pytest.raises(LocalError, match=word):
        encode(RUN, 1, message)
