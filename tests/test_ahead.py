"""Items made ahead: in order, no more than asked for, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clips import make_audio
from commands import voice

from avdetect.ahead import Ahead
from avdetect.windows import prepare


def test_all_items_come_in_order() -> None:
    assert list(Ahead((n for n in range(50)), 4)) == list(range(50))
    assert list(Ahead((n for n in ()), 4)) == []


def test_they_are_made_in_another_thread_while_one_is_in_use() -> None:
    third = threading.Event()
    threads = set()

    def source() -> Iterator[int]:
        for number in range(10):
            threads.add(threading.current_thread())
            if number == 2:
                third.set()
            yield number

    items = Ahead(source(), 3)
    assert next(items) == 0
    assert third.wait(5), "the third is made although the first alone was asked for"
    items.close()
    assert threading.current_thread() not in threads and not any(thread.is_alive() for thread in threads)


def test_no_more_are_made_than_there_is_room_for() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = Ahead(source(), 4)
    taken = [next(items) for _ in range(10)]
    items.close()
    assert taken == list(range(10)) and len(made) <= 14


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("the third")

    items = Ahead(source(), 4)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(LookupError, match="the third"):
        next(items)


def test_a_source_is_closed_with_it() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    items = Ahead(source(), 2)
    next(items)
    items.close()
    assert closed.wait(5)


def test_speech_found_in_the_background_is_the_same(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "voice.wav", voice(2.5))
    plain = prepare(path)
    with ThreadPoolExecutor(1) as pool:
        prepared = prepare(path, background=pool)
        assert prepared.speech is None and prepared.listening is not None
        windows = list(prepared)
    assert prepared.speech == plain.speech and prepared.listening is None
    assert [w.speech.tolist() for w in windows if w.speech is not None] == [
        w.speech.tolist() for w in plain if w.speech is not None
    ]
