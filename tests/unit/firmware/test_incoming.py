# SPDX-License-Identifier: Apache-2.0
"""An image on its way: what of it counts after a drop and after a power cut, and what that costs."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import incoming, program
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.incoming import Incoming
from ansible_collections.wattfleet.energy.plugins.plugin_utils._transfer import (
    GROWTH,
    LARGEST,
    SMALLEST,
    Pace,
)

from .gateway import FakeGateway, envelope

IMAGE = random.Random(7).randbytes(3_000_000)
SHA = hashlib.sha256(IMAGE).hexdigest()
RELEASE = envelope(IMAGE)


@pytest.fixture
def host(place: Path) -> FakeGateway:
    return FakeGateway.make(place / "root")


@pytest.fixture
def image(host: FakeGateway) -> Incoming:
    one = Incoming(host, SHA)
    one.prepare(RELEASE, len(IMAGE))
    return one


def pipe(image: Incoming, data: bytes, offset: int) -> int:
    """What a session brings that carries these bytes and then ends."""
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return image.receive(reading, offset, len(IMAGE))
    finally:
        os.close(reading)
        thread.join()


def lose_what_is_not_synced(image: Incoming) -> None:
    """What a power cut may leave of a file: its length, and zeros where nothing was synced."""
    with image.image.open("r+b") as stream:
        stream.seek(image.offset())
        stream.truncate()
        stream.seek(200_000, os.SEEK_CUR)
        stream.write(b"\0")


def test_fifty_drops_and_three_cuts_cost_one_chunk_each(host: FakeGateway, image: Incoming) -> None:
    chance = random.Random(11)
    chunk, sent, drops, cuts = 64 * 1024, 0, 0, 0
    while (offset := image.offset()) < len(IMAGE):
        data = IMAGE[offset : offset + chunk]
        sent += len(data)
        if drops < 50 and chance.random() < 0.8:
            # The link is lost somewhere in the chunk: what came counts.
            data = data[: chance.randrange(len(data))]
            drops += 1
        if cuts < 3 and offset > (cuts + 1) * len(IMAGE) // 4:
            cuts += 1
            with image.image.open("ab") as stream:
                stream.write(os.urandom(5000))
            lose_what_is_not_synced(image)
        before = offset
        assert pipe(image, data, before) >= before
    assert (drops, cuts) == (50, 3)
    assert image.image.read_bytes() == IMAGE
    assert sent - len(IMAGE) <= 0.02 * len(IMAGE) + (drops + cuts) * chunk
    assert program.verify(host, image) == {}


def test_a_transfer_never_begins_anew(image: Incoming) -> None:
    pipe(image, IMAGE[:500_000], 0)
    assert image.offset() == 500_000
    with pytest.raises(FirmwareError, match="these bytes begin at 600000, and the gateway has 500000"):
        pipe(image, IMAGE[600_000:], 600_000)
    # The same bytes again, as a session does whose answer was lost.
    assert pipe(image, IMAGE[400_000:700_000], 400_000) == 700_000
    assert image.image.read_bytes() == IMAGE[:700_000]


def test_without_the_journal_it_begins_anew(image: Incoming) -> None:
    """The control of the fault test: the place to go on at is in the journal, and nowhere else."""
    pipe(image, IMAGE[:500_000], 0)
    image._journal.unlink()
    assert image.offset() == 0


def test_what_was_not_synced_counts_for_nothing(image: Incoming) -> None:
    pipe(image, IMAGE[:300_000], 0)
    with image.image.open("ab") as stream:
        stream.write(b"\0" * 200_000)
    assert image.offset() == 300_000
    pipe(image, IMAGE[300_000:], 300_000)
    assert image.image.read_bytes() == IMAGE


def test_the_journal_is_written_after_the_bytes_were_synced(
    image: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(incoming.durable, "watch", lambda step, path: order.append(f"{step} {path.name}"))
    pipe(image, IMAGE[: incoming.SYNC + 1], 0)
    first = order.index(f"synced {SHA}.image")
    renamed = order.index(f"renamed {SHA}.json")
    assert first < renamed


def test_an_image_that_arrives_damaged_is_given_up(host: FakeGateway, image: Incoming) -> None:
    damaged = IMAGE[:1000] + bytes([IMAGE[1000] ^ 1]) + IMAGE[1001:]
    assert pipe(image, damaged, 0) == len(IMAGE)
    told = program.verify(host, image)
    assert "is not what was signed" in told["refused"]
    assert image.offset() == 0
    assert not image.image.exists()


def test_a_receiver_that_is_told_to_end_keeps_what_it_has(image: Incoming) -> None:
    reading, writing = os.pipe()
    os.write(writing, IMAGE[:50_000])
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    begun = time.monotonic()
    assert image.receive(reading, 0, len(IMAGE)) == 50_000
    assert time.monotonic() - begun < 5
    assert image.offset() == 50_000
    os.close(reading)
    os.close(writing)


def test_a_silent_sender_is_given_up(image: Incoming, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "SILENT", 0.2)
    reading, writing = os.pipe()
    os.write(writing, IMAGE[:10])
    assert image.receive(reading, 0, len(IMAGE)) == 10
    os.close(reading)
    os.close(writing)


def test_a_disk_that_is_too_small_is_told_before_a_byte_is_sent(host: FakeGateway) -> None:
    with pytest.raises(FirmwareError, match=r"MiB free, and the image on its way needs 1048584 MiB"):
        Incoming(host, "0" * 64).prepare(RELEASE, 1 << 40)


@pytest.mark.parametrize("name", ["../../etc/shadow", "0" * 63, "G" * 64])
def test_a_name_is_a_digest(host: FakeGateway, name: str) -> None:
    with pytest.raises(FirmwareError, match="expected the SHA-256 of an image"):
        Incoming(host, name)


# The controller's side


def clock() -> tuple[Callable[[], float], list[float]]:
    now = [0.0]
    return lambda: now[0], now


def test_chunks_grow_to_what_fits_the_link() -> None:
    read, _now = clock()
    slow, fast = Pace(0, read), Pace(0, read)
    for _time in range(20):
        slow.took(slow.next(), 1.8 + slow.next() / 32_000)
        fast.took(fast.next(), 0.3 + fast.next() / 10e6)
    # By satellite a chunk takes about 20 s, of which 1.8 s are round trips.
    assert 15 < slow.next() / 32_000 < 25
    assert fast.next() == LARGEST
    first = Pace(0, read)
    first.took(SMALLEST, 0.001)
    assert first.next() == GROWTH * SMALLEST
    for _time in range(20):
        fast.lost()
    assert fast.next() == SMALLEST


def test_the_rate_holds_over_every_ten_seconds() -> None:
    read, now = clock()
    pace = Pace(50_000, read)
    sent: list[tuple[float, int]] = []
    while now[0] < 120:
        size = pace.next()
        now[0] += pace.wait(size)
        sent.append((now[0], size))
        now[0] += 0.3  # the link itself is quick
        pace.took(size, 0.3)
    for start, _size in sent:
        window = sum(size for at, size in sent if start <= at < start + 10)
        assert window <= 50_000 * 10 + 2 * 50_000 * 5
    assert sum(size for _at, size in sent) > 0.85 * 50_000 * 120
