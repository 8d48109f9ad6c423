# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Lines of event files read into columns, in C: those that are plain in every respect, straight from the bytes.

What `tieout.offline.columns` makes of them, row for row. Whatever is not plain, in whatever way, is left to it: its
place is given back. No Python object is touched on the way, so that threads read side by side.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memchr

LAYOUT = 1
"""Raised with every change of what is read and written here: who uses it asks for the one it knows."""

KINDS_MAX = 64
"""Combinations of names that may be known at once: they are looked for one after another."""
PARTS_MAX = 32
"""Different fields that the keys of all rules may have."""

cdef extern from "Python.h":
    ctypedef struct PyHash_FuncDef:
        Py_ssize_t (*hash)(const void*, Py_ssize_t) noexcept nogil
    PyHash_FuncDef* PyHash_GetFuncDef()


ctypedef const unsigned char* Bytes

# Of a plain line in bytes, and what its longest key takes with its money before it.
cdef enum:
    LINE_SIZE_MAX = 20_000
    BUFFER = 21_000
    MONEY = 300

# As in `shared.contracts.event` and `shared.money`.
cdef enum:
    TEXT_LENGTH_MAX = 255
    VALUE_LENGTH_MAX = 1024
    ENTRIES_MAX = 64
    DIGITS_MAX = 18

cdef enum:
    NAMES = 5
    PARTS = 32

cdef long long AHEAD_MAX = 600_000_000
"""How far `occurred_at` may be ahead of the receipt, microseconds."""
cdef long long NO_TIME = -1
cdef long long DAY = 86_400_000_000
cdef long long YEAR_LAST = 9_998

# Places of the fields of an event. The first five are its names, in the order in which combinations are known.
cdef enum:
    ORG
    SOURCE
    TYPE
    CURRENCY
    STATUS
    ID
    RECORD
    SUPERSEDES
    AMOUNT
    ACCOUNT
    OCCURRED_AT
    RECEIVED_AT
    SEQUENCE
    REFS
    ATTRS
    FIELDS


cdef struct Text:
    Bytes at
    Py_ssize_t size  # -1: there is none


cdef struct Part:
    int field
    Text name  # of an entry, where the field is `REFS` or `ATTRS`
    int wanted  # its place among the entries that are wanted


cdef struct Side:
    unsigned long long spread
    long long wait_ms
    unsigned char side
    int parts
    Part[PARTS] part


cdef struct Kind:
    Text[NAMES] names
    long long status
    int side  # its place among the sides; -1: no rule with plain pairs selects these events; -2: Python looks at each


cdef packed struct LineRow:
    long long at
    long long offset
    long long number
    unsigned char is_event


cdef packed struct LegRow:
    unsigned long long group
    unsigned long long says
    unsigned long long record
    long long status
    long long line
    long long at
    long long until_ms
    unsigned char side


cdef struct Event:
    Text[FIELDS] text
    long long occurred_at
    long long received_at
    Text[PARTS] key  # what the entries say that are wanted


# What ends a plain stretch of a text: quotes, escapes, control characters, and everything beyond ASCII.
cdef unsigned char[256] SPECIAL
cdef int _place
for _place in range(256):
    SPECIAL[_place] = _place < 0x20 or _place == 0x22 or _place == 0x5C or _place >= 0x80

cdef Py_ssize_t (*_hash)(const void*, Py_ssize_t) noexcept nogil
_hash = PyHash_GetFuncDef().hash


cdef inline unsigned long long hashed(const void* at, Py_ssize_t size) noexcept nogil:
    """Return what Python's `hash` gives of this ASCII text."""
    cdef Py_ssize_t found = 0 if size == 0 else _hash(at, size)
    return <unsigned long long> (-2 if found == -1 else found)


cdef inline void skip_space(Bytes* at) noexcept nogil:
    while at[0][0] == 0x20 or at[0][0] == 0x09 or at[0][0] == 0x0D:
        at[0] += 1


cdef inline bint is_hex(unsigned char one) noexcept nogil:
    return 48 <= one <= 57 or 65 <= one <= 70 or 97 <= one <= 102


cdef inline int beyond_ascii(Bytes at) noexcept nogil:
    """Return how many bytes the character takes; 0: it is not UTF-8."""
    if 0xC2 <= at[0] <= 0xDF:
        return 2 if at[1] & 0xC0 == 0x80 else 0
    if 0xE0 <= at[0] <= 0xEF:
        if at[1] & 0xC0 != 0x80 or at[2] & 0xC0 != 0x80:
            return 0
        if (at[0] == 0xE0 and at[1] < 0xA0) or (at[0] == 0xED and at[1] > 0x9F):
            return 0
        return 3
    if 0xF0 <= at[0] <= 0xF4:
        if at[1] & 0xC0 != 0x80 or at[2] & 0xC0 != 0x80 or at[3] & 0xC0 != 0x80:
            return 0
        if (at[0] == 0xF0 and at[1] < 0x90) or (at[0] == 0xF4 and at[1] > 0x8F):
            return 0
        return 4
    return 0


cdef inline Py_ssize_t text(Bytes* at, Text* found) noexcept nogil:
    """Read a JSON string; return its length in characters, or -1: it is none, or Python has to judge it.

    `found` is the text itself if it is plain ASCII, else empty and not there. Every line ends with a control character,
    so no string goes beyond it.
    """
    cdef Bytes here = at[0]
    cdef Bytes begin
    cdef Py_ssize_t more = 0
    cdef int size
    cdef bint is_plain = True
    if here[0] != 0x22:
        return -1
    here += 1
    begin = here
    while True:
        while not SPECIAL[here[0]]:
            here += 1
        if here[0] == 0x22:
            break
        is_plain = False
        if here[0] == 0x5C:
            if here[1] == 0x75:  # \uXXXX; of surrogates Python knows more
                if not (is_hex(here[2]) and is_hex(here[3]) and is_hex(here[4]) and is_hex(here[5])):
                    return -1
                if (here[2] == 0x44 or here[2] == 0x64) and here[3] >= 0x38:
                    return -1
                size = 6
            elif memchr(b'"\\/bfnrt', here[1], 8) != NULL:
                size = 2
            else:
                return -1
        else:
            size = beyond_ascii(here)
            if size == 0:
                return -1
        more += size - 1
        here += size
    found.at, found.size = begin, here - begin if is_plain else -1
    at[0] = here + 1
    return here - begin - more


cdef inline bint is_text(Bytes at, const char* expected, Py_ssize_t size) noexcept nogil:
    return memcmp(at, expected, size) == 0


cdef inline int field_named(Text name) noexcept nogil:
    """Return the field of this name, `FIELDS` for none."""
    if name.size == 2:
        return ID if is_text(name.at, b"id", 2) else FIELDS
    if name.size == 3:
        return ORG if is_text(name.at, b"org", 3) else FIELDS
    if name.size == 4:
        return TYPE if is_text(name.at, b"type", 4) else REFS if is_text(name.at, b"refs", 4) else FIELDS
    if name.size == 5:
        return ATTRS if is_text(name.at, b"attrs", 5) else FIELDS
    if name.size == 6:
        if is_text(name.at, b"source", 6):
            return SOURCE
        if is_text(name.at, b"amount", 6):
            return AMOUNT
        if is_text(name.at, b"status", 6):
            return STATUS
        return RECORD if is_text(name.at, b"record", 6) else FIELDS
    if name.size == 7:
        return ACCOUNT if is_text(name.at, b"account", 7) else FIELDS
    if name.size == 8:
        return CURRENCY if is_text(name.at, b"currency", 8) else SEQUENCE if is_text(name.at, b"sequence", 8) else FIELDS
    if name.size == 10:
        return SUPERSEDES if is_text(name.at, b"supersedes", 10) else FIELDS
    if name.size == 11:
        if is_text(name.at, b"occurred_at", 11):
            return OCCURRED_AT
        return RECEIVED_AT if is_text(name.at, b"received_at", 11) else FIELDS
    return FIELDS


cdef inline int two_digits(Bytes at) noexcept nogil:
    """Return the number from 0 to 99 that stands here; 1000: there is none."""
    if not (48 <= at[0] <= 57 and 48 <= at[1] <= 57):
        return 1000
    return (at[0] - 48) * 10 + at[1] - 48


cdef long long time_of(Text value) noexcept nogil:
    """Return microseconds since 1970 of a time as most write it, such as `2026-11-20T10:00:00.5+01:00`; else `NO_TIME`."""
    cdef Bytes at = value.at
    cdef Bytes end = at + value.size
    cdef int year, month, day, hour, minute, second, zone_hour, zone_minute, last, width
    cdef long long fraction = 0, found, shifted, era, year_of_era, day_of_year
    if value.size < 20 or at[4] != 45 or at[7] != 45 or at[10] != 84 or at[13] != 58 or at[16] != 58:
        return NO_TIME
    year = two_digits(at) * 100 + two_digits(at + 2)
    month, day, hour = two_digits(at + 5), two_digits(at + 8), two_digits(at + 11)
    minute, second = two_digits(at + 14), two_digits(at + 17)
    if not 1970 <= year <= YEAR_LAST or not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 59:
        return NO_TIME
    last = 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31
    if month == 2:
        last = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    if not 1 <= day <= last:
        return NO_TIME
    at += 19
    if at[0] == 46:
        at += 1
        width = 0
        while 48 <= at[0] <= 57 and width < 6:
            fraction = fraction * 10 + at[0] - 48
            at += 1
            width += 1
        if width == 0:
            return NO_TIME
        while width < 6:
            fraction *= 10
            width += 1
    # Days since 0000-03-01, in eras of 400 years, so that the leap day is the last of a year.
    shifted = year - 1 if month <= 2 else year
    era, year_of_era = shifted // 400, shifted % 400
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    found = era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468
    found = found * DAY + ((hour * 60 + minute) * 60 + second) * 1_000_000LL + fraction
    if end - at == 1 and at[0] == 90:
        return found
    if end - at != 6 or (at[0] != 43 and at[0] != 45) or at[3] != 58:
        return NO_TIME
    zone_hour, zone_minute = two_digits(at + 1), two_digits(at + 4)
    if zone_hour > 23 or zone_minute > 59:
        return NO_TIME
    fraction = (zone_hour * 60 + zone_minute) * 60_000_000LL
    found = found + fraction if at[0] == 45 else found - fraction
    return found if found >= 0 else NO_TIME


cdef inline bint is_plain_amount(Text value) noexcept nogil:
    """Tell whether this is an amount that `shared.money.is_plain_amount` says is plain."""
    cdef Bytes at = value.at
    cdef Bytes end = at + value.size
    cdef Bytes begin = at
    while at < end and 48 <= at[0] <= 57:
        at += 1
    if not 1 <= at - begin <= DIGITS_MAX:
        return False
    if at == end:
        return True
    if at[0] != 46:
        return False
    at += 1
    begin = at
    while at < end and 48 <= at[0] <= 57:
        at += 1
    return at == end and 1 <= at - begin <= DIGITS_MAX


cdef inline bint same(Text one, Text other) noexcept nogil:
    return one.size == other.size and (one.size <= 0 or memcmp(one.at, other.at, one.size) == 0)


cdef inline bint is_filled(Text part) noexcept nogil:
    """Tell whether a part of a key says something."""
    cdef Py_ssize_t place
    for place in range(part.size):
        if part.at[place] != 0x20:
            return True
    return False


cdef inline bint is_entry(Part* part, int field, Text name) noexcept nogil:
    return part.field == field and same(part.name, name)


cdef class Scanner:
    """Reads blocks for one set of rules; it never changes, so that threads may share it.

    Args:
        sides: of each (spread, side, milliseconds it waits, fields of the key).
        kinds: of each (names, place of its side, hash of its status). No side: -1. For Python: -2.
    """

    cdef Side* sides
    cdef Kind* kinds
    cdef int known
    cdef Part* wanted
    """Entries of `refs` and `attrs` that are parts of a key."""
    cdef int wants
    cdef list held
    """What the texts point into."""

    def __cinit__(self, list sides, list kinds):
        cdef int place, number
        self.held = []
        self.sides = <Side*> malloc(max(len(sides), 1) * sizeof(Side))
        self.kinds = <Kind*> malloc(max(len(kinds), 1) * sizeof(Kind))
        self.wanted = <Part*> malloc(PARTS * sizeof(Part))
        if self.sides == NULL or self.kinds == NULL or self.wanted == NULL:
            raise MemoryError
        self.wants = 0
        for place, (spread, side, wait_ms, key) in enumerate(sides):
            self.sides[place].spread, self.sides[place].side, self.sides[place].wait_ms = spread, side, wait_ms
            self.sides[place].parts = len(key)
            for number, path in enumerate(key):
                self.sides[place].part[number] = self.part_of(path)
        self.known = len(kinds)
        for place, (names, side, status) in enumerate(kinds):
            self.kinds[place].side, self.kinds[place].status = side, status
            for number, name in enumerate(names):
                self.kinds[place].names[number] = self.text_of(name)

    def __dealloc__(self):
        free(self.sides)
        free(self.kinds)
        free(self.wanted)

    cdef Text text_of(self, object value):
        cdef Text found
        cdef bytes raw
        found.at, found.size = NULL, -1
        if value is not None:
            raw = value.encode("ascii")
            self.held.append(raw)
            found.at, found.size = <Bytes> PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)
        return found

    cdef Part part_of(self, str path):
        """Return where a field of a key stands; an entry by its place among those that are wanted."""
        cdef Part found
        first, _, name = path.partition(".")
        if first not in ("refs", "attrs"):
            found.field = field_named(self.text_of(path))
            found.name = self.text_of(None)
            found.wanted = -1
            return found
        found.field = REFS if first == "refs" else ATTRS
        found.name = self.text_of(name)
        found.wanted = 0
        while found.wanted < self.wants and not is_entry(&self.wanted[found.wanted], found.field, found.name):
            found.wanted += 1
        if found.wanted == self.wants:
            self.wanted[self.wants] = found
            self.wants += 1
        return found

    def scan(self, bytes raw, long long begin, unsigned char[::1] lines, unsigned char[::1] legs, long long[::1] rest):
        """Read the lines of a block that begins at a place of its file; return how many, of them legs, and of them rest.

        The rows are as `LINES` and `LEGS`; a line among the rest has its number and place, and is for Python.
        """
        cdef Bytes here = <Bytes> PyBytes_AS_STRING(raw)
        cdef Bytes start = here
        cdef Bytes end = here + PyBytes_GET_SIZE(raw)
        cdef Bytes line_end
        cdef LineRow* line = <LineRow*> &lines[0]
        cdef LegRow* leg = <LegRow*> &legs[0]
        cdef long long number = 0, rests = 0
        cdef Py_ssize_t made = 0
        cdef int kind = 0, done
        with nogil:
            while here < end:
                line_end = <Bytes> memchr(here, 10, end - here)
                if line_end == NULL:
                    line_end = end  # where a bytes object has a zero
                line.offset, line.number, line.is_event, line.at = begin + (here - start), number, 0, 0
                done = 0 if line_end - here > LINE_SIZE_MAX else self.read(here, line_end, &kind, line, leg + made)
                if done:
                    made += done - 1
                else:
                    rest[rests] = number
                    rests += 1
                number += 1
                line += 1
                here = line_end + 1
        return number, made, rests

    cdef int read(self, Bytes at, Bytes end, int* kind, LineRow* line, LegRow* leg) noexcept nogil:
        """Read one line; 0: it is for Python, 1: an event, 2: a leg too. `kind` is that of the line before."""
        cdef Event event
        cdef Kind* found
        cdef Side* side
        cdef Text key
        cdef unsigned char* money
        cdef unsigned char[BUFFER] buffer
        cdef int field, place
        cdef unsigned int seen = 0, one
        cdef Py_ssize_t length
        for place in range(FIELDS):
            event.text[place].size = -1
        for place in range(self.wants):
            event.key[place].size = -1
        event.occurred_at = event.received_at = NO_TIME
        skip_space(&at)
        if at[0] != 0x7B:
            return 0
        at += 1
        while True:
            skip_space(&at)
            if text(&at, &key) < 0 or key.size < 0:
                return 0
            field = field_named(key)
            one = 1 << field
            if field == FIELDS or seen & one:
                return 0
            seen |= one
            skip_space(&at)
            if at[0] != 0x3A:
                return 0
            at += 1
            skip_space(&at)
            if field == REFS or field == ATTRS:
                if not self.read_entries(&at, field, &event):
                    return 0
            elif at[0] == 0x6E:
                if at[1] != 0x75 or at[2] != 0x6C or at[3] != 0x6C:
                    return 0
                if field == SOURCE or field == TYPE or field == ID or field == OCCURRED_AT:
                    return 0
                at += 4
            elif field == SEQUENCE:
                if not read_sequence(&at):
                    return 0
            else:
                length = text(&at, &event.text[field])
                if length < 0 or length > TEXT_LENGTH_MAX or (event.text[field].size < 0 and field != ACCOUNT):
                    return 0
                if length == 0 and (field == ID or field == RECORD or field == SUPERSEDES):
                    return 0
            skip_space(&at)
            if at[0] == 0x2C:
                at += 1
                continue
            if at[0] == 0x7D:
                break
            return 0
        at += 1
        skip_space(&at)
        if at != end:
            return 0
        if event.text[ID].size < 0 or event.text[OCCURRED_AT].size < 0 or event.text[SUPERSEDES].size >= 0:
            return 0
        event.occurred_at = time_of(event.text[OCCURRED_AT])
        if event.occurred_at == NO_TIME:
            return 0
        if event.text[RECEIVED_AT].size >= 0:
            event.received_at = time_of(event.text[RECEIVED_AT])
            if event.received_at == NO_TIME or event.occurred_at - event.received_at > AHEAD_MAX:
                return 0
        else:
            event.received_at = event.occurred_at
        if event.text[AMOUNT].size >= 0 and not is_plain_amount(event.text[AMOUNT]):
            return 0
        if not self.find(&event, kind):
            return 0
        found = &self.kinds[kind[0]]
        if found.side == -2:
            return 0
        if found.side == -1:
            line.at, line.is_event = event.received_at, 1
            return 1
        side = &self.sides[found.side]
        if event.text[AMOUNT].size < 0 or not self.key_of(side, &event, buffer, &key):
            return 0
        # What the leg says is amount, currency and key, with zeros between them.
        money = buffer + MONEY - (event.text[AMOUNT].size + event.text[CURRENCY].size + 2)
        leg.group = hashed(buffer + MONEY, key.size) ^ side.spread
        leg.says = hashed(put_money(money, event.text[AMOUNT], event.text[CURRENCY]), buffer + MONEY + key.size - money)
        key = event.text[RECORD] if event.text[RECORD].size >= 0 else event.text[ID]
        leg.record = hashed(key.at, key.size)
        leg.status = found.status
        leg.line = line.number
        leg.at = event.received_at
        leg.until_ms = side.wait_ms + event.received_at // 1000
        leg.side = side.side
        line.at, line.is_event = event.received_at, 1
        return 2

    cdef bint find(self, Event* event, int* kind) noexcept nogil:
        """Find the combination of names; False: it is not known."""
        cdef int place
        if kind[0] < self.known and self.is_of(event, kind[0]):  # most lines are of the kind of the line before
            return True
        for place in range(self.known):
            if self.is_of(event, place):
                kind[0] = place
                return True
        return False

    cdef inline bint is_of(self, Event* event, int kind) noexcept nogil:
        cdef Text* names = self.kinds[kind].names
        cdef int place
        for place in range(NAMES):
            if not same(names[place], event.text[place]):
                return False
        return True

    cdef bint read_entries(self, Bytes* at, int field, Event* event) noexcept nogil:
        """Read `refs` or `attrs`, and keep what may be part of a key."""
        cdef Bytes here = at[0]
        cdef Text name, value
        cdef Py_ssize_t length
        cdef int count = 0, place
        if here[0] != 0x7B:
            return False
        here += 1
        skip_space(&here)
        if here[0] == 0x7D:
            at[0] = here + 1
            return True
        while True:
            skip_space(&here)
            if text(&here, &name) < 0 or name.size < 0:
                return False
            skip_space(&here)
            if here[0] != 0x3A:
                return False
            here += 1
            skip_space(&here)
            length = text(&here, &value)
            count += 1
            if length < 0 or length > VALUE_LENGTH_MAX or count > ENTRIES_MAX:
                return False
            for place in range(self.wants):
                if is_entry(&self.wanted[place], field, name):
                    if event.key[place].size != -1 or value.size < 0:
                        return False
                    event.key[place] = value
            skip_space(&here)
            if here[0] == 0x2C:
                here += 1
                continue
            if here[0] == 0x7D:
                at[0] = here + 1
                return True
            return False

    cdef bint key_of(self, Side* side, Event* event, unsigned char* buffer, Text* found) noexcept nogil:
        """Write the text of the key behind the place for the money; False: a part says nothing, or it is too long."""
        cdef unsigned char* at = buffer + MONEY
        cdef Text part
        cdef int place
        for place in range(side.parts):
            if side.part[place].field == REFS or side.part[place].field == ATTRS:
                part = event.key[side.part[place].wanted]
            else:
                part = event.text[side.part[place].field]
                if side.part[place].field == RECORD and part.size < 0:
                    part = event.text[ID]
            if not is_filled(part):
                return False
            if side.parts > 1:
                at = put_length(at, part.size)
            memcpy(at, part.at, part.size)
            at += part.size
        found.size = at - buffer - MONEY
        return True


cdef inline unsigned char* put_length(unsigned char* at, Py_ssize_t length) noexcept nogil:
    """Write a part's length and a colon before it, so that no two keys of several parts are one text."""
    cdef int width = 1
    cdef Py_ssize_t rest = length // 10
    while rest:
        width += 1
        rest //= 10
    at[width] = 58
    rest = width
    while rest:
        rest -= 1
        at[rest] = <unsigned char> (48 + length % 10)
        length //= 10
    return at + width + 1


cdef inline unsigned char* put_money(unsigned char* at, Text amount, Text currency) noexcept nogil:
    memcpy(at, amount.at, amount.size)
    at[amount.size] = 0
    memcpy(at + amount.size + 1, currency.at, currency.size)
    at[amount.size + 1 + currency.size] = 0
    return at


cdef bint read_sequence(Bytes* at) noexcept nogil:
    """Read a whole number from 0 up that surely fits."""
    cdef Bytes here = at[0]
    while 48 <= here[0] <= 57:
        here += 1
    if not 1 <= here - at[0] <= DIGITS_MAX or (at[0][0] == 48 and here - at[0] > 1):
        return False
    at[0] = here
    return True
