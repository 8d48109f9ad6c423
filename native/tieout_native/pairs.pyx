# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The matcher's commonest records, applied in C: legs that wait, and second legs that agree to the letter.

What `services.matcher.domain.pairs` and the loop around it do, on the same objects, for the same bytes. Whatever is not
such a leg, in whatever way, is left untouched to the Python that says what it means: `run` stops before it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from libc.string cimport memcmp, memcpy

LAYOUT = 3
"""Raised with every change of what is read and written here: the core asks for the one it knows."""

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object, object) except? NULL
    PyObject* PyList_GET_ITEM(object, Py_ssize_t)
    PyObject* PyTuple_GET_ITEM(object, Py_ssize_t)
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1


ctypedef const unsigned char* Bytes

cdef enum:
    VERSION = 1
    ARRAY_16 = 0xDC
    LEG_FIELDS = 17
    NIL = 0xC0
    MARKED = 0xC1
    ONE = 0xFA
    TWO = 0xFB
    HEAD_OF_ONE = 10
    HEAD_OF_TWO = 14
    BUCKET_MS = 4096
    BUFFER = 8192
    INBOXES = 1024

cdef long long UNKNOWN = -1
cdef long long ABSENT = -2
cdef long long TIME_MAX = 253_402_300_799_999_999
"""The end of the year 9999, microseconds."""


cdef struct Text:
    Bytes at
    Py_ssize_t size


cdef struct Leg:
    Text generation
    long long side
    Text source
    long long inbox_partition
    long long received_at
    Text amount
    Text currency
    Text status


cdef inline bint text(Bytes* at, Bytes end, Text* found) noexcept:
    """Read a short text; False: it is none, or not plain ASCII (the other decoder judges what is text)."""
    cdef Bytes here = at[0]
    cdef Py_ssize_t size, place
    if here >= end:
        return False
    if here[0] & 0xE0 == 0xA0:
        size = here[0] & 0x1F
        here += 1
    elif here[0] == 0xD9 and end - here >= 2:
        size = here[1]
        here += 2
    else:
        return False
    if end - here < size:
        return False
    for place in range(size):
        if here[place] & 0x80:
            return False
    found.at, found.size = here, size
    at[0] = here + size
    return True


cdef inline bint number(Bytes* at, Bytes end, long long* found) noexcept:
    """Read a whole number from 0 up."""
    cdef Bytes here = at[0]
    cdef int size, place
    cdef unsigned long long value = 0
    if here >= end:
        return False
    if here[0] < 0x80:
        found[0] = here[0]
        at[0] = here + 1
        return True
    if not 0xCC <= here[0] <= 0xCF:
        return False
    size = 1 << (here[0] - 0xCC)
    here += 1
    if end - here < size:
        return False
    for place in range(size):
        value = value << 8 | here[place]
    if value >> 62:
        return False
    found[0] = <long long> value
    at[0] = here + size
    return True


cdef inline bint nil(Bytes* at, Bytes end) noexcept:
    if at[0] >= end or at[0][0] != NIL:
        return False
    at[0] += 1
    return True


cdef bint read_leg(Bytes at, Py_ssize_t size, Leg* leg) noexcept:
    """Read the Kafka value of a leg; False: it is another record, or it has what is rare (see `shared.contracts.leg`)."""
    cdef Bytes end = at + size
    cdef Text unread
    cdef long long unused
    if size < 4 or at[0] != VERSION or at[1] != ARRAY_16 or at[2] != 0 or at[3] != LEG_FIELDS:
        return False
    at += 4
    return (
        number(&at, end, &unused)
        and unused == 0
        and text(&at, end, &leg.generation)
        and number(&at, end, &leg.side)
        and leg.side <= 1
        and text(&at, end, &leg.source)
        and text(&at, end, &unread)  # record
        and text(&at, end, &unread)  # id
        and number(&at, end, &unused)  # occurred_at
        and number(&at, end, &leg.inbox_partition)
        and number(&at, end, &unused)  # inbox_offset
        and number(&at, end, &leg.received_at)
        and number(&at, end, &unused)  # sequence
        and nil(&at, end)  # supersedes
        and text(&at, end, &leg.amount)
        and text(&at, end, &leg.currency)
        and text(&at, end, &leg.status)
        and nil(&at, end)  # adjusts
        and nil(&at, end)  # values
        and at == end
    )


cdef inline bint same(Text one, Text other) noexcept:
    return one.size == other.size and memcmp(one.at, other.at, one.size) == 0


cdef inline bint same_bytes(bytes one, Text other) noexcept:
    return PyBytes_GET_SIZE(one) == other.size and memcmp(PyBytes_AS_STRING(one), other.at, other.size) == 0


cdef inline object as_str(Text found):
    return (<const char*> found.at)[:found.size].decode("ascii")


cdef inline unsigned char* put_number(unsigned char* at, unsigned long long value) noexcept:
    """Write a whole number as msgpack's shortest form."""
    cdef int size, place
    if value < 0x80:
        at[0] = <unsigned char> value
        return at + 1
    size = 1 if value <= 0xFF else 2 if value <= 0xFFFF else 4 if value <= 0xFFFFFFFFULL else 8
    at[0] = 0xCC if size == 1 else 0xCD if size == 2 else 0xCE if size == 4 else 0xCF
    at += 1
    for place in range(size):
        at[place] = <unsigned char> (value >> (8 * (size - 1 - place)))
    return at + size


cdef inline unsigned char* put_bytes(unsigned char* at, Bytes value, Py_ssize_t size) noexcept:
    if size <= 0xFF:
        at[0], at[1] = 0xC4, <unsigned char> size
        at += 2
    elif size <= 0xFFFF:
        at[0], at[1], at[2] = 0xC5, <unsigned char> (size >> 8), <unsigned char> size
        at += 3
    else:
        at[0] = 0xC6
        put_big_endian(at + 1, size, 4)
        at += 5
    memcpy(at, value, size)
    return at + size


cdef inline void put_big_endian(unsigned char* at, unsigned long long value, int size) noexcept:
    cdef int place
    for place in range(size):
        at[place] = <unsigned char> (value >> (8 * (size - 1 - place)))


cdef inline long long big_endian(Bytes at, int size) noexcept:
    cdef unsigned long long value = 0
    cdef int place
    for place in range(size):
        value = value << 8 | at[place]
    return <long long> value


cdef class Rule:
    """A rule in force that makes pairs, as one generation of it is named in legs."""

    cdef bytes generation
    cdef object known_live
    cdef bytes words
    cdef long long keep_ms
    cdef long long[2] deadline_ms
    cdef bint compares_status
    cdef bytes live_one
    cdef bytes live_other
    """The last status of each side that was live."""

    def __init__(self, str generation, known_live, bytes words, long long keep_ms, deadlines_ms, bint compares_status):
        self.generation = generation.encode()
        self.known_live = known_live
        self.words = words
        self.keep_ms = keep_ms
        self.deadline_ms[0], self.deadline_ms[1] = deadlines_ms
        self.compares_status = compares_status
        self.live_one = self.live_other = b""

    cdef bint is_live(self, int side, Text status) except -1:
        cdef bytes last = self.live_other if side else self.live_one
        if same_bytes(last, status):
            return status.size > 0
        if status.size and self.known_live[side].get(as_str(status)):
            last = (<const char*> status.at)[:status.size]
            if side:
                self.live_other = last
            else:
                self.live_one = last
            return True
        return False


cdef class Times:
    """The last time of every inbox partition as plain numbers, while a run goes on; `tell` writes them back.

    One that is new goes into the dict at once, for the state keeps the order in which they came.
    """

    cdef dict told
    cdef long long[INBOXES] last
    cdef int[INBOXES] known
    cdef int count
    cdef bint changed

    def __init__(self):
        cdef int place
        for place in range(INBOXES):
            self.last[place] = ABSENT

    cdef bint read(self, dict told) except -1:
        """Begin with what is told; False: there is a partition too many, or a time that no clock shows."""
        cdef PyObject* key
        cdef PyObject* value
        cdef Py_ssize_t walk = 0
        cdef long long partition, time
        cdef int place, over = 0, late = 0
        for place in range(self.count):
            self.last[self.known[place]] = ABSENT
        self.count, self.changed, self.told = 0, False, told
        while PyDict_Next(told, &walk, &key, &value):
            partition = PyLong_AsLongLongAndOverflow(<object> key, &over)
            time = PyLong_AsLongLongAndOverflow(<object> value, &late)
            if over or late or not 0 <= partition < INBOXES or time < UNKNOWN:
                return False
            self.last[partition] = time
            self.known[self.count] = <int> partition
            self.count += 1
        return True

    cdef int note(self, long long partition, long long time) except -1:
        if self.last[partition] == ABSENT:
            PyDict_SetItem(self.told, partition, time)
            self.known[self.count] = <int> partition
            self.count += 1
        else:
            self.changed = True
        self.last[partition] = time
        return 0

    cdef long long least(self, long long least) noexcept:
        """Return the least of `least` and all times."""
        cdef int place
        for place in range(self.count):
            if self.last[self.known[place]] < least:
                least = self.last[self.known[place]]
        return least

    cdef int tell(self) except -1:
        cdef int place
        if self.changed:
            for place in range(self.count):
                PyDict_SetItem(self.told, self.known[place], self.last[self.known[place]])
            self.changed = False
        return 0


cdef class Runner:
    """Applies runs of legs to the state of one partition."""

    cdef object core
    cdef object state
    cdef public list rules
    """Those in force."""
    cdef bytes clock_entry
    cdef long long settled_overhead
    cdef Times times

    def __init__(self, core, state, bytes clock_entry, long long settled_overhead):
        self.core = core
        self.state = state
        self.rules = []
        self.clock_entry = clock_entry
        self.settled_overhead = settled_overhead
        self.times = Times()

    cdef Rule rule_of(self, Text generation):
        cdef Rule rule
        for rule in self.rules:
            if same_bytes(rule.generation, generation):
                return rule
        return None

    def run(self, list records, Py_ssize_t begin, long long position):
        """Apply records from `begin` on; return the place of the first one that was not applied.

        `position` is the next offset to apply: what lies below it is for the caller, as is a record with headers.
        """
        cdef Py_ssize_t place, size, count = PyList_GET_SIZE(records)
        cdef object state = self.state, timers = state.timers, clock = self.core._clock
        cdef long long base = self.core._base
        cdef dict cells = state.cells, dirty = state.dirty, buckets = timers._buckets
        cdef list items = state.changes.items, bucket = None
        cdef long long log_time = state.log_time, next_at = timers.next_at, opened_until = timers._opened_until
        cdef long long bucket_number = -1
        cdef long long partitions = clock.partitions, number = state.partition
        cdef long long waiting = 0, settled = 0, settled_bytes = 0
        cdef long long offset, due_at, due_before, least, before, one_size
        cdef bint told = False, moved = False
        cdef Times times = self.times
        cdef Leg leg, one
        cdef Rule rule
        cdef object record, key, value, held, packed
        cdef PyObject* found
        cdef Bytes raw
        cdef unsigned char* at
        if not times.read(clock.times):
            return begin
        place = begin
        try:
            while place < count:
                record = <object> PyList_GET_ITEM(records, place)
                offset = record.offset
                if offset < position or record.headers:
                    break
                key, value = record.key, record.value
                if not PyBytes_CheckExact(key) or not PyBytes_CheckExact(value) or not key:
                    break
                size = PyBytes_GET_SIZE(value)
                raw = <Bytes> PyBytes_AS_STRING(value)
                if not read_leg(raw, size, &leg) or leg.inbox_partition >= INBOXES:
                    break
                rule = self.rule_of(leg.generation)
                if rule is None:
                    break
                # The time first, as for every leg; whoever goes on with this record finds it noted.
                before = max(times.last[leg.inbox_partition], UNKNOWN)
                if leg.received_at > before:
                    times.note(leg.inbox_partition, leg.received_at)
                    if not told:
                        PyDict_SetItem(dirty, self.clock_entry, None)
                        told = True
                    if (before <= log_time or log_time == UNKNOWN) and partitions and times.count >= partitions:
                        least = times.least(leg.received_at)
                        if least > log_time:
                            if next_at < least:  # something is due: that is judged in Python
                                times.tell()
                                if moved:
                                    moved, state.log_time, clock.log_time = False, log_time, log_time
                                self.core._move_log_time(offset + base)
                                next_at, opened_until = timers.next_at, timers._opened_until
                                bucket, bucket_number = None, -1
                                log_time = state.log_time
                            else:
                                log_time, moved = least, True
                if not rule.is_live(<int> leg.side, leg.status):
                    break
                found = PyDict_GetItemWithError(cells, key)
                if found == NULL:
                    if log_time > leg.received_at:
                        break
                    due_at = leg.received_at + rule.deadline_ms[1 - leg.side]
                    packed = PyBytes_FromStringAndSize(NULL, HEAD_OF_ONE + size)
                    at = <unsigned char*> PyBytes_AS_STRING(packed)
                    at[0], at[1] = MARKED, ONE
                    put_big_endian(at + 2, due_at, 8)
                    memcpy(at + HEAD_OF_ONE, raw, size)
                    waiting += 1
                    if due_at >= opened_until and due_at // BUCKET_MS == bucket_number and due_at >= next_at:
                        PyList_Append(bucket, due_at)
                        PyList_Append(bucket, key)
                    else:
                        timers.set(due_at, key)
                        next_at = timers.next_at
                        if due_at >= opened_until:
                            bucket_number = due_at // BUCKET_MS
                            bucket = buckets[bucket_number]
                else:
                    held = <object> found
                    if not PyBytes_CheckExact(held):
                        break
                    at = <unsigned char*> PyBytes_AS_STRING(held)
                    if at[0] != MARKED or at[1] != ONE:
                        break
                    one_size = PyBytes_GET_SIZE(held) - HEAD_OF_ONE
                    if (
                        not read_leg(at + HEAD_OF_ONE, one_size, &one)
                        or one.side == leg.side
                        or not same(one.amount, leg.amount)
                        or not same(one.currency, leg.currency)
                        or same(one.source, leg.source)
                        or (rule.compares_status and not same(one.status, leg.status))
                        or log_time < 0
                    ):
                        break
                    items.append((key, self.item(rule, key, number, offset + base, log_time, held, value)))
                    due_before = big_endian(at + 2, 8)
                    due_at = max(one.received_at, leg.received_at) + rule.keep_ms
                    if due_at < due_before:
                        timers.set(due_at, key)
                        next_at = timers.next_at
                    packed = PyBytes_FromStringAndSize(NULL, HEAD_OF_TWO + one_size + size)
                    raw = at + HEAD_OF_ONE
                    at = <unsigned char*> PyBytes_AS_STRING(packed)
                    at[0], at[1] = MARKED, TWO
                    put_big_endian(at + 2, due_at, 8)
                    put_big_endian(at + 10, one_size, 4)
                    memcpy(at + HEAD_OF_TWO, raw, one_size)
                    memcpy(at + HEAD_OF_TWO + one_size, PyBytes_AS_STRING(value), size)
                    waiting -= 1
                    settled += 1
                    settled_bytes += PyBytes_GET_SIZE(key) + PyBytes_GET_SIZE(packed) + self.settled_overhead
                PyDict_SetItem(cells, key, packed)
                PyDict_SetItem(dirty, key, packed)
                position = offset + 1
                place += 1
        finally:
            times.tell()
            if moved:
                state.log_time = clock.log_time = log_time
            state.waiting_items += waiting
            state.settled_items += settled
            state.settled_bytes += settled_bytes
        return place

    cdef bytes item(self, Rule rule, bytes key, long long number, long long offset, long long log_time, bytes held, bytes value):
        """Return the Kafka value of a matched pair: see `shared.contracts.matched_pair`."""
        cdef Py_ssize_t words = PyBytes_GET_SIZE(rule.words), names = PyBytes_GET_SIZE(key)
        cdef Py_ssize_t opener = PyBytes_GET_SIZE(held) - HEAD_OF_ONE, settler = PyBytes_GET_SIZE(value)
        cdef unsigned char[27] numbers
        cdef unsigned char* at = put_number(numbers, number)
        at = put_number(at, offset)
        at = put_number(at, log_time)
        cdef Py_ssize_t of_numbers = at - numbers
        cdef bytes made = PyBytes_FromStringAndSize(
            NULL, 2 + words + head(names) + names + of_numbers + head(opener) + opener + head(settler) + settler
        )
        at = <unsigned char*> PyBytes_AS_STRING(made)
        at[0], at[1] = VERSION, 0x97  # an array of seven
        memcpy(at + 2, PyBytes_AS_STRING(rule.words), words)
        at = put_bytes(at + 2 + words, <Bytes> PyBytes_AS_STRING(key), names)
        memcpy(at, numbers, of_numbers)
        at = put_bytes(at + of_numbers, <Bytes> PyBytes_AS_STRING(held) + HEAD_OF_ONE, opener)
        put_bytes(at, <Bytes> PyBytes_AS_STRING(value), settler)
        return made


cdef inline Py_ssize_t head(Py_ssize_t size) noexcept:
    """Bytes before a byte string of this size."""
    return 2 if size <= 0xFF else 3 if size <= 0xFFFF else 5


# ---- what changed, as state records hold it


def bytes_of(entries):
    """Return how many bytes keys and values of state entries have; None: they are no list of pairs of bytes."""
    cdef Py_ssize_t place, total = 0
    cdef object entry
    if not PyList_CheckExact(entries):
        return None
    for place in range(PyList_GET_SIZE(entries)):
        entry = <object> PyList_GET_ITEM(entries, place)
        if not is_entry(entry):
            return None
        total += PyBytes_GET_SIZE(part(entry, 0)) + PyBytes_GET_SIZE(part(entry, 1))
    return total


cdef inline bint is_entry(object entry):
    return (
        PyTuple_CheckExact(entry)
        and PyTuple_GET_SIZE(entry) == 2
        and PyBytes_CheckExact(part(entry, 0))
        and PyBytes_CheckExact(part(entry, 1))
    )


def pack_entries(entries, Py_ssize_t overhead, Py_ssize_t bytes_max):
    """Return the state entries as msgpack arrays of (key, value), as many in each as fit into `bytes_max`.

    An entry counts with its bytes and `overhead`. None where Python has to: one does not fit, or is no pair of bytes.
    """
    cdef Py_ssize_t count, begin = 0, end, filled, of_key, of_value, held
    cdef object entry
    cdef list pieces = []
    if not PyList_CheckExact(entries):
        return None
    count = PyList_GET_SIZE(entries)
    while True:
        end, filled, held = begin, 0, 0
        while end < count:
            entry = <object> PyList_GET_ITEM(entries, end)
            if not is_entry(entry):
                return None
            of_key, of_value = PyBytes_GET_SIZE(part(entry, 0)), PyBytes_GET_SIZE(part(entry, 1))
            if filled + of_key + of_value + overhead > bytes_max:
                break
            filled += of_key + of_value + overhead
            held += 1 + head(of_key) + of_key + head(of_value) + of_value
            end += 1
        if end == begin < count:
            return None
        pieces.append(pack_piece(entries, begin, end, held))
        if end == count:
            return pieces
        begin = end


cdef inline object part(object entry, Py_ssize_t place):
    return <object> PyTuple_GET_ITEM(entry, place)


cdef bytes pack_piece(list entries, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t held):
    """Return entries from `begin` to `end`, which take `held` bytes, as one array."""
    cdef Py_ssize_t count = end - begin, width = 0 if count < 16 else 2 if count <= 0xFFFF else 4, place, which
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 1 + width + held)
    cdef unsigned char* at = <unsigned char*> PyBytes_AS_STRING(made)
    cdef object value
    at[0] = <unsigned char> (0x90 | count) if width == 0 else ARRAY_16 if width == 2 else 0xDD
    put_big_endian(at + 1, count, <int> width)
    at += 1 + width
    for place in range(begin, end):
        at[0] = 0x92
        at += 1
        for which in range(2):
            value = part(<object> PyList_GET_ITEM(entries, place), which)
            at = put_bytes(at, <Bytes> PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    return made


# ---- the item of a pair, written out


cdef struct Out:
    unsigned char* at


cdef inline void put(Out* out, const char* value, Py_ssize_t size) noexcept:
    memcpy(out.at, value, size)
    out.at += size


cdef inline void put_text(Out* out, Text value) noexcept:
    memcpy(out.at, value.at, value.size)
    out.at += value.size


cdef inline void put_padded(Out* out, long long value, int width) noexcept:
    """Write a number from 0 up with this many digits."""
    cdef int place
    for place in range(width - 1, -1, -1):
        out.at[place] = <unsigned char> (48 + value % 10)
        value //= 10
    out.at += width


cdef inline void put_decimal(Out* out, long long value) noexcept:
    cdef int width = 1
    cdef long long rest = value // 10
    while rest:
        width += 1
        rest //= 10
    put_padded(out, value, width)


cdef void put_time(Out* out, long long microseconds) noexcept:
    """Write a time between 1970 and 9999 as RFC 3339, fractions only where there are any; proleptic Gregorian."""
    cdef long long seconds = microseconds // 1_000_000, fraction = microseconds % 1_000_000
    cdef long long days = seconds // 86_400, second = seconds % 86_400
    # Days since 0000-03-01, in eras of 400 years, so that the leap day is the last of a year.
    cdef long long since = days + 719_468
    cdef long long era = since // 146_097, day_of_era = since % 146_097
    cdef long long year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    cdef long long day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef long long shifted = (5 * day_of_year + 2) // 153
    cdef long long month = shifted + 3 if shifted < 10 else shifted - 9
    put_padded(out, year_of_era + era * 400 + (1 if month <= 2 else 0), 4)
    put(out, b"-", 1)
    put_padded(out, month, 2)
    put(out, b"-", 1)
    put_padded(out, day_of_year - (153 * shifted + 2) // 5 + 1, 2)
    put(out, b"T", 1)
    put_padded(out, second // 3_600, 2)
    put(out, b":", 1)
    put_padded(out, second // 60 % 60, 2)
    put(out, b":", 1)
    put_padded(out, second % 60, 2)
    if fraction:
        put(out, b".", 1)
        put_padded(out, fraction, 6)
    put(out, b"Z", 1)


cdef inline bint plain(Text value) noexcept:
    """Tell whether JSON writes this text as it is."""
    cdef Py_ssize_t place
    for place in range(value.size):
        if value.at[place] < 0x20 or value.at[place] >= 0x7F or value.at[place] == 34 or value.at[place] == 92:
            return False
    return True


cdef bint read_bytes(Bytes* at, Bytes end, Text* found) noexcept:
    """Read a byte string."""
    cdef Bytes here = at[0]
    cdef int width
    if end - here < 2 or not 0xC4 <= here[0] <= 0xC6:
        return False
    width = 1 << (here[0] - 0xC4)
    here += 1
    if end - here < width:
        return False
    found.size = <Py_ssize_t> big_endian(here, width)
    here += width
    if end - here < found.size:
        return False
    found.at = here
    at[0] = here + found.size
    return True


cdef bint read_token(Bytes* at, Bytes end, Text* found) noexcept:
    """Read a JSON string that needs no escapes, with its quotes, and the comma or bracket behind it."""
    cdef Bytes here = at[0]
    if here >= end or here[0] != 34:
        return False
    here += 1
    while here < end and here[0] != 34:
        if here[0] < 0x20 or here[0] >= 0x7F or here[0] == 92:
            return False
        here += 1
    if end - here < 2 or (here[1] != 44 and here[1] != 93):
        return False
    found.at, found.size = at[0], here + 1 - at[0]
    at[0] = here + 2
    return True


cdef struct Record:
    Leg leg
    Text record
    Text id
    long long occurred_at


cdef bint read_record(Text value, Record* found) noexcept:
    """Read a leg, with what evidence says of it; False: Python has to."""
    cdef Bytes at = value.at + 4
    cdef Bytes end = value.at + value.size
    cdef long long unused
    cdef Text unread
    if not read_leg(value.at, value.size, &found.leg):
        return False
    return (
        number(&at, end, &unused)
        and text(&at, end, &unread)  # generation
        and number(&at, end, &unused)  # side
        and text(&at, end, &unread)  # source
        and text(&at, end, &found.record)
        and text(&at, end, &found.id)
        and number(&at, end, &found.occurred_at)
        and found.occurred_at <= TIME_MAX
        and found.leg.received_at <= TIME_MAX // 1_000
        and plain(found.leg.source)
        and plain(found.record)
        and plain(found.id)
        and plain(found.leg.amount)
        and plain(found.leg.currency)
        and plain(found.leg.status)
    )


cdef const char* HEX = b"0123456789abcdef"
cdef const char* VARIANT = b"89ab"


cdef class Writer:
    """Writes items of pairs as JSON; `sha1` hashes the name of an id, `decimals_of` tells how a currency is printed."""

    cdef object sha1
    cdef object decimals_of
    cdef bytes namespace
    cdef bytes currency
    cdef Py_ssize_t decimals

    def __init__(self, sha1, decimals_of, bytes namespace):
        self.sha1 = sha1
        self.decimals_of = decimals_of
        self.namespace = namespace
        self.currency = b""

    cdef bint is_printed(self, Leg* leg) except -1:
        """Tell whether an amount is written the way amounts of its currency are printed."""
        cdef Py_ssize_t size = leg.amount.size
        cdef Bytes amount = leg.amount.at
        if not same_bytes(self.currency, leg.currency):
            self.decimals = self.decimals_of(as_str(leg.currency))
            self.currency = (<const char*> leg.currency.at)[:leg.currency.size]
        return (
            self.decimals > 0
            and size > self.decimals + 1
            and amount[size - self.decimals - 1] == 46
            and amount[0] != 45
            and (amount[0] != 48 or amount[1] == 46)
        )

    def write(self, bytes value):
        """Return the item as JSON; None where Python has to write it."""
        cdef Bytes at = <Bytes> PyBytes_AS_STRING(value)
        cdef Bytes end = at + PyBytes_GET_SIZE(value)
        cdef Text pack, one, other, group, org, rule, key, opener, settler
        cdef long long partition, offset, log_time
        cdef Record opened, settled
        cdef bint several
        cdef unsigned char[BUFFER] buffer
        cdef Out out
        if end - at < 4 or at[0] != VERSION or at[1] != 0x97 or at[2] != 0x92:
            return None
        at += 3
        if not (text(&at, end, &pack) and at < end and at[0] == 0x92):
            return None
        at += 1
        if not (
            text(&at, end, &one)
            and text(&at, end, &other)
            and read_bytes(&at, end, &group)
            and number(&at, end, &partition)
            and number(&at, end, &offset)
            and number(&at, end, &log_time)
            and read_bytes(&at, end, &opener)
            and read_bytes(&at, end, &settler)
            and at == end
            and log_time <= TIME_MAX // 1_000
            and plain(pack)
            and plain(one)
            and plain(other)
            and read_record(opener, &opened)
            and read_record(settler, &settled)
            and opened.leg.side != settled.leg.side
            and self.is_printed(&opened.leg)
            and self.is_printed(&settled.leg)
        ):
            return None
        if 1_000 + 2 * group.size + pack.size + one.size + other.size + opener.size + settler.size > BUFFER:
            return None
        at, end = group.at, group.at + group.size
        if group.size < 2 or at[0] != 91 or end[-1] != 93:
            return None
        at += 1
        if not (read_token(&at, end, &org) and read_token(&at, end, &rule) and read_token(&at, end, &key)):
            return None
        several = at != end
        while at != end:
            if not read_token(&at, end, &key):
                return None
        if several:  # the array that they stand in
            key.at = rule.at + rule.size + 1
            key.size = end - key.at
        out.at = buffer
        put(&out, b'{"id":"', 7)
        self.put_id(&out, group, opened.id)
        put(&out, b'","revision":1,"status":"matched","org":', 40)
        put_text(&out, org)
        put(&out, b',"rule":', 8)
        put_text(&out, rule)
        put(&out, b',"pack":"', 9)
        put_text(&out, pack)
        put(&out, b'","key":', 8)
        put(&out, b"[", 1 if several else 0)
        put_text(&out, key)
        put(&out, b',"sides":{"', 11)
        put_side(&out, one, settled if opened.leg.side else opened)
        put(&out, b',"', 2)
        put_side(&out, other, opened if opened.leg.side else settled)
        put(&out, b'},"discrepancies":[],"at":"', 27)
        put_time(&out, settled.leg.received_at * 1_000)
        put(&out, b'","occurred_at":"', 17)
        put_time(&out, settled.occurred_at if opened.leg.side else opened.occurred_at)
        put(&out, b'","live":true,"log":{"partition":', 33)
        put_decimal(&out, partition)
        put(&out, b',"offset":', 10)
        put_decimal(&out, offset)
        put(&out, b',"time":"', 9)
        put_time(&out, log_time * 1_000)
        put(&out, b'"}}', 3)
        return PyBytes_FromStringAndSize(<char*> buffer, out.at - buffer)

    cdef int put_id(self, Out* out, Text group, Text opener) except -1:
        """Write the uuid5 of what the item is named by: see `shared.ids.group_item_id`."""
        cdef bytes named = b'%b%b,"%b","item"]' % (
            self.namespace,
            (<const char*> group.at)[: group.size - 1],
            (<const char*> opener.at)[: opener.size],
        )
        cdef bytes digest = self.sha1(named)
        cdef Bytes at = <Bytes> PyBytes_AS_STRING(digest)
        cdef int place
        for place in range(16):
            if place == 4 or place == 6 or place == 8 or place == 10:
                put(out, b"-", 1)
            out.at[0] = HEX[at[place] >> 4]
            out.at[1] = HEX[at[place] & 15]
            if place == 6:
                out.at[0] = 53
            elif place == 8:
                out.at[0] = VARIANT[at[place] >> 4 & 3]
            out.at += 2
        return 0


cdef void put_side(Out* out, Text name, Record record) noexcept:
    """Write a side with its only record, without the first quote."""
    put_text(out, name)
    put(out, b'":{"records":[{"id":"', 21)
    put_text(out, record.id)
    put(out, b'","source":"', 12)
    put_text(out, record.leg.source)
    put(out, b'","record":"', 12)
    put_text(out, record.record)
    put(out, b'","amount":"', 12)
    put_text(out, record.leg.amount)
    put(out, b'","currency":"', 14)
    put_text(out, record.leg.currency)
    put(out, b'","status":"', 12)
    put_text(out, record.leg.status)
    put(out, b'","occurred_at":"', 17)
    put_time(out, record.occurred_at)
    put(out, b'"}]}', 4)
