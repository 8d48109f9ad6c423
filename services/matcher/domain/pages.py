"""Entries of one account in order of arrival, some to a page: each page is a cell of its own beside the account's head."""

from collections.abc import Iterable, Iterator

from services.matcher.domain.account import PAGE_ENTRIES, AccountCell, Entry, Span, page_key
from services.matcher.domain.state import State

Page = list[Entry | None]


class Pages:
    """The pages that a span of an account's head counts. A place is a page's number and a slot in one integer."""

    def __init__(self, state: State, key: bytes, sort: bytes, generation: str) -> None:
        self._state = state
        self._key = key
        self._sort = sort
        self._generation = generation
        self._newest: Page | None = None
        self._newest_number = -1

    def key(self, number: int) -> bytes:
        """Return the key of a page's cell."""
        return page_key(self._key, self._sort, number)

    def page(self, number: int) -> Page:
        """Return a page that is held."""
        if number == self._newest_number and self._newest is not None:
            return self._newest
        cell: AccountCell = self._state.get(self.key(number))
        assert cell.page is not None
        return cell.page

    def entry(self, place: int) -> Entry:
        """Return the entry at a place."""
        number, slot = divmod(place, PAGE_ENTRIES)
        entry = self.page(number)[slot]
        assert entry is not None, "a name leads to an entry"
        return entry

    def entries(self, places: Iterable[int]) -> Iterator[Entry]:
        """Yield the entries at some places, reading a page once as long as the places stay on it."""
        at, page = -1, Page()
        for place in places:
            number, slot = divmod(place, PAGE_ENTRIES)
            if number != at:
                at, page = number, self.page(number)
            entry = page[slot]
            assert entry is not None
            yield entry

    def placed(self, number: int) -> Iterator[tuple[int, Entry]]:
        """Yield what stands on a page with its places."""
        for slot, entry in enumerate(self.page(number)):
            if entry is not None:
                yield number * PAGE_ENTRIES + slot, entry

    def append(self, span: Span, entry: Entry) -> tuple[int, bool]:
        """Put an entry on the newest page; return its place, and whether a page was begun."""
        newest = span.next - 1
        page = self.page(newest) if span.first < span.next else None
        begins = page is None or len(page) >= PAGE_ENTRIES
        if page is None or begins:
            page, newest = Page(), span.next
            span.next += 1
        page.append(entry)
        self._newest, self._newest_number = page, newest
        self._put(newest, page)
        return newest * PAGE_ENTRIES + len(page) - 1, begins

    def write(self, place: int, entry: Entry | None) -> None:
        """Put something else at a place."""
        number, slot = divmod(place, PAGE_ENTRIES)
        page = self.page(number)
        page[slot] = entry
        self._put(number, page)

    def drop(self, number: int) -> None:
        """Forget a page."""
        self.left(number)
        self._state.forget(self.key(number))

    def left(self, number: int) -> None:
        """Know that the cell of a page holds something else from now on."""
        if number == self._newest_number:
            self._newest, self._newest_number = None, -1

    def _put(self, number: int, page: Page) -> None:
        self._state.put(self.key(number), AccountCell(self._generation, page=page), settled=True)
