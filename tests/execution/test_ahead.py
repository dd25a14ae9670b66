"""Preparing ahead changes when things are prepared, never what comes back."""

from __future__ import annotations

import threading

import pytest

from tinytrain_dist.execution.ahead import ITEMS_AHEAD, Ahead


def test_expected_items_are_prepared_on_another_thread_in_order() -> None:
    places: dict[str, int] = {}

    def prepare(item: str) -> str:
        places[item] = threading.get_ident()
        return item.upper()

    items = ["a", "b", "c", "d"]
    ahead = Ahead(prepare)
    ahead.expect(items)
    assert [ahead.get(item) for item in items] == ["A", "B", "C", "D"]
    assert threading.get_ident() not in places.values() and list(places) == items
    assert ahead.get("e") == "E" and places["e"] == threading.get_ident()


def test_no_more_is_prepared_than_allowed() -> None:
    seen: list[int] = []
    ahead = Ahead(seen.append)
    ahead.expect(list(range(10)))
    ahead.get(0)
    ahead.get(99)  # not expected: forgets the rest
    assert set(seen) <= {99, *range(ITEMS_AHEAD + 1)}


def test_an_error_arrives_where_the_item_is_asked_for() -> None:
    def prepare(item: int) -> float:
        return 1 / item

    ahead = Ahead(prepare)
    items = [1, 0, 2]
    ahead.expect(items)
    assert ahead.get(items[0]) == 1
    with pytest.raises(ZeroDivisionError):
        ahead.get(items[1])
    assert ahead.get(items[2]) == 0.5


def test_what_was_begun_is_kept_where_it_is_expected_again() -> None:
    seen: list[str] = []
    ahead = Ahead(seen.append)
    ahead.expect(["a", "b", "c"])
    ahead.get("a")
    ahead.get("b")
    ahead.expect(["".join("c"), "d"])  # an equal item, as one that has travelled is
    ahead.get("c")
    ahead.get("d")
    assert seen == ["a", "b", "c", "d"]
    ahead.expect(["e"])
    ahead.expect(["f", "e"])  # another order: begun again
    assert (ahead.get("f"), ahead.get("e")) == (None, None) and seen[-2:] == ["f", "e"]
