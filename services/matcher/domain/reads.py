"""As of which times an account was read: so that the same reading is known when it comes again, and a stale one is told."""

from services.matcher.domain.account import READ, Account, Entry, Reading
from services.matcher.domain.pages import Pages
from services.matcher.domain.state import State
from services.matcher.domain.timers import NEVER
from shared.rules.balance_rule import BalanceRule

AsOf = tuple[str | None, int]
"""Currency, and time in microseconds."""


class Reads:
    """Readings of one account, remembered for `expire`; of two as of one time the greater is."""

    def __init__(self, state: State, key: bytes, account: Account, rule: BalanceRule) -> None:
        self._pages = Pages(state, key, b"r", rule.generation)
        self._expire_ms = rule.expire_ms
        self._places: dict[AsOf, int] = {}
        for number in range(account.reads.first, account.reads.next):
            for place, entry in self._pages.placed(number):
                self._places[entry.currency, entry.occurred_at] = place

    def rank(self, currency: str | None, as_of: int) -> tuple[int, str] | None:
        """Return the greatest rank of the readings as of a time; None: there was none."""
        place = self._places.get((currency, as_of))
        if place is None:
            return None
        entry = self._pages.entry(place)
        return entry.sequence, entry.event

    def remember(self, account: Account, reading: Reading, currency: str | None) -> None:
        """Note a reading; it is greater than those as of its time."""
        entry = Entry(READ, "", "", reading.id, reading.as_of, reading.sequence, currency=currency)
        place = self._places.get((currency, reading.as_of))
        if place is not None:
            self._pages.write(place, entry)
            return
        place, _ = self._pages.append(account.reads, entry)
        self._places[currency, reading.as_of] = place
        account.unread_at = min(account.unread_at, reading.as_of // 1000 + self._expire_ms)

    def forget(self, account: Account, now: int) -> None:
        """Forget pages whose readings are older than `expire`, oldest first; `now` is log time (milliseconds)."""
        span = account.reads
        account.unread_at = NEVER
        while span.first < span.next:
            held = list(self._pages.placed(span.first))
            newest = max(entry.occurred_at for _, entry in held)
            if newest >= (now - self._expire_ms) * 1000:
                account.unread_at = newest // 1000 + self._expire_ms
                return
            for _, entry in held:
                del self._places[entry.currency, entry.occurred_at]
            self._pages.drop(span.first)
            span.first += 1
