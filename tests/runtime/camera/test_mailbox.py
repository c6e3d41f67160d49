"""Hand-over: the newest wins, or nothing is lost; never a growing queue."""

import threading

import pytest

from edgekit.runtime.camera.mailbox import Mailbox, Queue


def test_the_newest_item_wins_and_the_lost_one_comes_back():
    box = Mailbox()
    assert [box.put(i) for i in (1, 2, 3)] == [None, 1, 2]
    assert box.take() == 3
    assert box.take(0.01) is None


@pytest.mark.parametrize("make", [lambda: Mailbox(lossless=True), lambda: Queue(2, lossless=True)])
def test_a_lossless_box_waits_for_its_reader(make):
    box, taken = make(), []
    reader = threading.Thread(target=lambda: taken.extend(box))
    reader.start()
    assert [box.put(i) for i in range(50)] == [None] * 50
    box.close()
    reader.join(5)
    assert taken == list(range(50))


@pytest.mark.parametrize("make", [Mailbox, lambda: Mailbox(lossless=True), lambda: Queue(1), lambda: Queue(1, True)])
def test_closing_wakes_everybody_and_lets_the_last_item_through(make):
    box = make()
    box.put("last")
    waiter = threading.Thread(target=box.close)
    waiter.start()
    waiter.join(5)
    assert box.put("late") == "late"
    assert list(box) == ["last"]
    assert box.take() is None


@pytest.mark.parametrize("make", [lambda: Mailbox(lossless=True), lambda: Queue(1, lossless=True)])
def test_closing_frees_a_writer_that_waits(make):
    box, lost = make(), []
    box.put(1)
    writer = threading.Thread(target=lambda: lost.append(box.put(2)))
    writer.start()
    box.close()
    writer.join(5)
    assert not writer.is_alive()
    assert lost == [2]


def test_a_full_queue_refuses():
    queue = Queue(2)
    assert [queue.put(i) for i in range(4)] == [None, None, 2, 3]
    assert (queue.take(), queue.put(9), queue.take(), queue.take()) == (0, None, 1, 9)
