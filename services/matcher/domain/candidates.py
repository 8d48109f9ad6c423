"""Kind `match` without a shared key: records find their counterpart by amount, date and reference.

Every record has a cell of its own. A decision is made about a record once `decide_after` has passed since its receipt:
it looks at the record's candidates, at theirs, and so on (NODES_MAX records at most), pairs those that clearly belong
together, tries bundles of several records against one, and says so where nobody can tell. What belongs together stands
in the cell of one of them, the anchor; the cells of the others name it.

Work per decision is bounded by NODES_MAX times `candidates_max` comparisons and `bundle_steps_max` combinations for
ONES_MAX bundles, whatever a bucket holds.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from services.matcher.domain.assignment import Choice, Edge, choose
from services.matcher.domain.bundle import IsFree, find_bundle, find_whole
from services.matcher.domain.candidate_index import ADJUSTMENT, Candidate, Entry, Index, bucket_of, is_open, record_key
from services.matcher.domain.finding import Finding
from services.matcher.domain.group import PENDING, Record, hold, is_settled, supersede
from services.matcher.domain.held import hold_back, note_holder, restore_holder
from services.matcher.domain.judge import NOT_JUDGED, Verdict, judge
from services.matcher.domain.match import CAUSES, id_reused
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.revise import expire, item_status, make_item, next_due, revise
from services.matcher.domain.revision import is_open as has_open
from services.matcher.domain.similarity import allowance, score
from services.matcher.domain.state import Codec, State
from services.matcher.domain.timers import NEVER
from shared.contracts.discrepancy import Resolution
from shared.contracts.leg import Cut, GroupName, Leg, Withdraw, read_group_key
from shared.ids import discrepancy_id
from shared.money import EXACT, format_amount
from shared.rules.candidate_rule import AMBIGUOUS, WHOLE, CandidateRule
from shared.rules.extract.candidate import REFERENCE
from shared.rules.match_rule import MatchRule

CANDIDATES = Codec(4, Candidate)

NODES_MAX: Final = 24
"""Records looked at in one decision, beginning with the one that is due."""
CROWD_MAX: Final = 8
"""With more candidates that are as good, nothing is looked at further: nobody can tell."""
REVISITED_MAX: Final = 64
"""Records that are decided again when one that they named is gone."""
SHOWN_MAX: Final = 20
"""Rivals kept and named."""
_ZERO = Decimal(0)

Fingerprint = tuple[object, ...]


class Candidates:
    """Records of `match` rules without a shared key."""

    codec: Codec | None = CANDIDATES

    def __init__(self, state: State) -> None:
        self._state = state
        self._index = Index()

    # ---- what the core asks

    def apply(self, key: bytes, leg: Leg, rule: CandidateRule, offset: int) -> None:
        """Hold a leg in its record's cell; a change that decides undoes what was decided before."""
        state = self._state
        moment = state.moment(leg.received_at, offset)
        if leg.adjusts is not None:
            self._adjust(key, leg, rule, moment)
            return
        is_keyless = read_group_key(key).keyless
        if leg.supersedes is not None and leg.supersedes != leg.record and not is_keyless:
            self._supersede(key, leg, rule, moment)
        own = key if is_keyless else record_key(key, leg.source, leg.record)
        cell: Candidate = state.get(own) or _new(leg, rule, is_keyless=is_keyless)
        before, superseded_before = _fingerprint(cell), len(cell.superseded or ())
        effect = hold(cell, leg, rule.sides[leg.side].is_live)
        if effect == "id reused":
            state.changes.dead_letters.append(id_reused(own, leg))
            return
        if effect == "no-op":
            if len(cell.superseded or ()) != superseded_before or own not in state.cells:
                self._put(own, cell)
                state.schedule(own, cell, cell.due_at)
            return
        if cell.records and cell.records[0].id == leg.id:
            cell.text = (leg.values or {}).get(REFERENCE, "")
        _note_live(cell, rule, leg.received_at)
        cell.touched_at = max(cell.touched_at, leg.received_at)
        self._changed(own, cell, rule, moment, CAUSES[effect], changed=before != _fingerprint(cell))

    def fire(self, key: bytes, cell: Candidate, rule: CandidateRule, due: int, offset: int) -> None:
        """Decide what is due; raise what is missing; expire and forget."""
        state = self._state
        moment = Moment(due + 1, due + 1, state.position(offset))
        cell.due_at = NEVER
        self._put(key, cell)
        if cell.adjustments:
            state.schedule(key, cell, cell.touched_at + rule.pair.expire_ms)
            if cell.due_at <= due:
                self._forget(key, due)
            else:
                self._put(key, cell)
            return
        if cell.anchor is not None:
            anchor: Candidate | None = state.get(cell.anchor)
            assert anchor is not None, "an anchor is forgotten with its group"
            state.schedule(key, cell, max(anchor.due_at, due + 1))
            self._put(key, cell)
            return
        if self._decide(key, rule, moment):
            return
        self._judge(key, state.get(key), rule, moment, cell.cause, at_timer=True)

    def rejudge(self, key: bytes, cell: Candidate, rule: CandidateRule, offset: int) -> None:
        """Judge a cell under a new generation; what no longer belongs together is decided anew."""
        state = self._state
        at = max(state.log_time, 0)
        moment = state.moment(at, offset)
        cell.generation = rule.generation
        if not cell.adjustments:
            _note_live(cell, rule, at)
        if cell.adjustments or cell.anchor is not None:
            self._put(key, cell)
            return
        self._put(key, cell)
        if cell.members and not self._still_fits(cell, rule):
            self._dissolve(key, rule, moment, "rule_changed")
            return
        self._judge(key, cell, rule, moment, "rule_changed")
        if is_open(cell):
            cell.cause = "rule_changed"
            state.schedule(key, cell, max(cell.changed_at + rule.decide_after_ms, at))
            self._put(key, cell)

    def close(self, key: bytes, cell: Candidate, old: CandidateRule, cause: Resolution, offset: int) -> None:
        """Resolve everything that is open."""
        state = self._state
        moment = state.moment(max(state.log_time, 0), offset)
        own, shown = cell.records, self._records(cell)
        cell.records = shown
        judged = _judged_by(old, cell, shown)
        name = read_group_key(key)
        revisions = revise(cell, judged, name, NOT_JUDGED, moment, cause)
        if revisions:
            state.changes.discrepancies += revisions
            self._publish(key, cell, judged, name, PENDING, moment)
        cell.records = own

    def cut(self, key: bytes, cell: Candidate, rule: CandidateRule, record: Cut, offset: int) -> None:
        """Publish live money that waits for its counterpart and has not been published yet."""
        if cell.item_revision or not cell.live or cell.anchor is not None:
            return
        moment = self._state.moment(record.received_at, offset)
        self._publish(key, cell, rule.pair, read_group_key(key), PENDING, moment)
        self._put(key, cell)

    def withdraw(self, key: bytes, cell: Candidate, rule: CandidateRule, record: Withdraw, offset: int) -> None:
        """Let a record never count again here: it came with what partitions the rule."""
        if not supersede(cell, record.source, record.record):
            return
        cell.live = False
        cell.touched_at = max(cell.touched_at, record.received_at)
        self._judge(key, cell, rule, self._state.moment(record.received_at, offset), "superseded")

    def is_settled(self, cell: Candidate) -> bool:
        """Tell whether a cell waits for nothing but `keep`."""
        return is_settled(cell)

    def restored(self, key: bytes, cell: Candidate | None) -> None:
        """Put a restored cell into the index; count what a feed holds back."""
        self._index.note(key, cell)
        restore_holder(self._state.feeds, key, cell)

    # ---- changes

    def _changed(
        self, key: bytes, cell: Candidate, rule: CandidateRule, moment: Moment, cause: Resolution, *, changed: bool
    ) -> None:
        """Do what a leg asks for: keep what was decided and show the leg, or decide again."""
        group = cell.anchor if cell.anchor is not None else key if cell.members else None
        if changed:
            cell.changed_at, cell.cause = moment.at, cause
        if group is not None:
            self._put(key, cell)
            if changed:
                self._dissolve(group, rule, moment, cause)
            else:
                self._judge(group, self._state.get(group), rule, moment, cause)
            return
        if changed:
            self._revisit(key, moment.at)
            if not cell.live:
                _forget_rivals(cell)
        self._judge(key, cell, rule, moment, cause)

    def _supersede(self, bucket: bytes, leg: Leg, rule: CandidateRule, moment: Moment) -> None:
        """Let the record that a leg replaces never count again."""
        assert leg.supersedes is not None
        key = record_key(bucket, leg.source, leg.supersedes)
        cell: Candidate | None = self._state.get(key)
        if cell is None:
            cell = _new(leg, rule)
        elif cell.superseded and (leg.source, leg.supersedes) in cell.superseded:
            return
        supersede(cell, leg.source, leg.supersedes)
        cell.live = False
        cell.touched_at = max(cell.touched_at, moment.at)
        self._changed(key, cell, rule, moment, "superseded", changed=True)

    def _adjust(self, bucket: bytes, leg: Leg, rule: CandidateRule, moment: Moment) -> None:
        """Hold an adjustment entry and judge again what it refers to."""
        state = self._state
        key = record_key(bucket, leg.source, leg.record, ADJUSTMENT)
        cell: Candidate = state.get(key) or _new(leg, rule)
        effect = hold(cell, leg, rule.sides[leg.side].is_live)
        if effect == "id reused":
            state.changes.dead_letters.append(id_reused(key, leg))
            return
        if effect != "adjusting":
            return
        cell.touched_at = max(cell.touched_at, leg.received_at)
        state.schedule(key, cell, cell.touched_at + rule.pair.expire_ms)
        self._put(key, cell)
        raised_at = self._index.raised_at(leg.adjusts or "")
        target: Candidate | None = state.get(raised_at) if raised_at is not None else None
        if raised_at is not None and target is not None and bucket_of(raised_at) == bucket:
            self._judge(raised_at, target, rule, moment, "adjusted")

    def _dissolve(self, anchor_key: bytes, rule: CandidateRule, moment: Moment, cause: Resolution) -> None:
        """Undo what was matched: every record of it is decided anew."""
        state = self._state
        anchor: Candidate = state.get(anchor_key)
        members = anchor.members or []
        for key in members:
            cell: Candidate | None = state.get(key)
            if cell is None:
                continue
            cell.members = cell.anchor = cell.why = None
            cell.confidence = 0
            cell.changed_at, cell.cause = moment.at, cause
            cell.touched_at = max(cell.touched_at, moment.at)
            if key == anchor_key:
                cell.item_status = PENDING
            self._put(key, cell)
        # The group's item gives its records up before they stand in items of their own.
        for key in sorted(members, key=lambda key: (key != anchor_key, key)):
            cell = state.get(key)
            if cell is not None:
                self._judge(key, cell, rule, moment, cause, publish=cell.live)

    def _revisit(self, key: bytes, at: int) -> None:
        """Let the records that named this one as a rival be decided again, at the next moment."""
        for other in self._index.named_by(key)[:REVISITED_MAX]:
            cell: Candidate | None = self._state.get(other)
            if cell is not None:
                self._state.schedule(other, cell, at)
                self._put(other, cell)

    # ---- decisions

    def _decide(self, key: bytes, rule: CandidateRule, moment: Moment) -> bool:
        """Decide about a record and its neighbours as far as they are due; True: the record was matched."""
        entry = self._index.entries.get(key)
        if entry is None or not _is_due(entry, rule, moment):
            return False
        near = self._near(entry, rule, rule.accept - rule.margin)
        if not near:
            self._uncontest(key, key, rule, moment)
            return self._bundle(entry, rule, moment)
        matched = self._pair_if_clear(entry, near, rule, moment)
        if matched is not None:
            return key in matched
        known, edges, is_crowd = self._explore(entry, near, rule)
        if is_crowd:
            self._contest(key, edges, is_said=self._says_crowd(entry, edges, rule), moment=moment, rule=rule)
            return False
        choice = choose(edges, rule.accept, rule.margin)
        joined: set[bytes] = set()
        for edge in choice.pairs:
            first, last = known.get(edge.first), known.get(edge.last)
            if first is None or last is None or not (_is_due(first, rule, moment) and _is_due(last, rule, moment)):
                continue
            if not {edge.first, edge.last} & joined:
                joined |= self._pair(edge, rule, moment)
        self._say_contested(key, known, choice, joined, rule, moment)
        if key in joined:
            return True
        return key not in choice.contested and self._bundle(entry, rule, moment)

    def _pair_if_clear(
        self, entry: Entry, near: Sequence[Edge], rule: CandidateRule, moment: Moment
    ) -> set[bytes] | None:
        """Match a record and its best candidate where both are due and nobody else is nearly as good: the common case.

        Return who was matched; None: it takes a closer look.
        """
        best = near[0]
        mate = self._index.entries[best.other(entry.key)]
        if best.score < rule.accept or not _is_due(mate, rule, moment):
            return None
        edges = [*near, *self._near(mate, rule, rule.accept - rule.margin)]
        if any(edge != best and edge.score > best.score - rule.margin for edge in edges):
            return None
        matched = self._pair(best, rule, moment)
        if matched:
            self._look_again(edges, matched, moment)
        return matched

    def _look_again(self, edges: Sequence[Edge], gone: set[bytes], moment: Moment) -> None:
        """Let those be decided at once that could have had what is gone now."""
        for key in sorted({end for edge in edges for end in (edge.first, edge.last)} - gone):
            cell: Candidate = self._state.get(key)
            self._state.schedule(key, cell, moment.at)
            self._put(key, cell)

    def _pair(self, edge: Edge, rule: CandidateRule, moment: Moment) -> set[bytes]:
        """Match two records; several that add up exactly are better than one whose amount differs. Return who was matched."""
        first, last = self._index.entries[edge.first], self._index.entries[edge.last]
        if first.features.amount != last.features.amount:
            joined = self._bundled_instead(first, last, edge.score, rule, moment)
            if joined is not None:
                return joined
        self._join([edge.first, edge.last], edge.score, self._reasons(edge, rule), rule, moment)
        return {edge.first, edge.last}

    def _explore(
        self, entry: Entry, near: list[Edge], rule: CandidateRule
    ) -> tuple[dict[bytes, Entry], list[Edge], bool]:
        """Return the records around one, the edges between them, and whether there is a crowd instead."""
        floor = rule.accept - rule.margin
        known: dict[bytes, Entry] = {}
        edges: dict[tuple[bytes, bytes], Edge] = {}
        queue = [entry]
        for one in queue:
            if len(known) == NODES_MAX:
                break
            if one.key in known:
                continue
            known[one.key] = one
            found = near if one is entry else self._near(one, rule, floor)
            if one is entry and found[0].score >= rule.accept:
                as_good = [edge for edge in found if edge.score > found[0].score - rule.margin]
                if len(as_good) > CROWD_MAX:
                    return known, as_good, True
            for edge in found:
                edges[edge.first, edge.last] = edge
                queue.append(self._index.entries[edge.other(one.key)])
        return known, list(edges.values()), False

    def _near(self, entry: Entry, rule: CandidateRule, floor: int) -> list[Edge]:
        """Return the candidates of a record that score `floor` or more, the best first."""
        index, limits, amount = self._index, rule.limits, entry.features.amount
        span = _ZERO if rule.weight_reference else _span(rule, amount)
        low, high = EXACT.subtract(amount, span), EXACT.add(amount, span)
        found = {one.key: one for one in index.of_amount(entry, low, high, limits.candidates_max)}
        if rule.weight_reference:
            found |= {one.key: one for one in index.of_text(entry)}
        edges = [
            edge for one in found.values() if (edge := _edge(rule, entry, one)) is not None and edge.score >= floor
        ]
        edges.sort(key=lambda edge: edge.order)
        return edges[: limits.candidates_max]

    def _says_crowd(self, entry: Entry, edges: Sequence[Edge], rule: CandidateRule) -> bool:
        """Tell whether a record in a crowd says so: on the first side only if its rivals have no choice themselves."""
        if entry.side:
            return True
        mate = self._index.entries[edges[0].other(entry.key)]
        near = self._near(mate, rule, rule.accept)
        return sum(edge.score > near[0].score - rule.margin for edge in near) < 2 if near else True

    def _say_contested(
        self,
        key: bytes,
        known: dict[bytes, Entry],
        choice: Choice,
        joined: set[bytes],
        rule: CandidateRule,
        moment: Moment,
    ) -> None:
        """Note where nobody can decide, and where somebody can by now."""
        said = _who_says(choice.contested, self._index.entries)
        for own, entry in known.items():
            if own in joined or not _is_due(entry, rule, moment):
                continue
            edges = choice.contested.get(own)
            if edges is None:
                self._uncontest(own, key, rule, moment)
            elif all(_is_due(self._index.entries[edge.other(own)], rule, moment) for edge in edges):
                self._contest(own, edges, is_said=own in said, moment=moment, rule=rule)

    def _contest(
        self,
        key: bytes,
        edges: Sequence[Edge],
        *,
        is_said: bool,
        moment: Moment,
        rule: CandidateRule,
        adds_up: bool = False,
    ) -> None:
        """Note that a record has several candidates that are as good."""
        rivals = [(edge.other(key), edge.score) for edge in edges[:SHOWN_MAX]]
        self._name_rivals(key, rivals, rule, moment, is_said=is_said, adds_up=adds_up)

    def _name_rivals(
        self,
        key: bytes,
        rivals: list[tuple[bytes, int]],
        rule: CandidateRule,
        moment: Moment,
        *,
        is_said: bool,
        adds_up: bool,
    ) -> None:
        cell: Candidate = self._state.get(key)
        if cell.rivals == rivals and cell.is_said == is_said:
            return
        cell.rivals, cell.is_said, cell.adds_up, cell.note = rivals, is_said, adds_up, None
        self._judge(key, cell, rule, moment, cell.cause)

    def _uncontest(self, key: bytes, decided: bytes, rule: CandidateRule, moment: Moment) -> None:
        """Forget rivals that a record no longer has; those of a bundle are looked at when it is due itself."""
        cell: Candidate = self._state.get(key)
        if not cell.rivals or (cell.adds_up and key != decided):
            return
        _forget_rivals(cell)
        if key == decided:
            self._put(key, cell)
        else:
            self._judge(key, cell, rule, moment, cell.cause)

    def _bundle(self, entry: Entry, rule: CandidateRule, moment: Moment) -> bool:
        """Try a record as one that several add up to, and as one of several; True: it was matched."""
        is_free = self._freedom(rule)
        whole, found = entry, find_bundle(entry, rule, self._index, is_free)
        if not found.parts and not found.rivals and rule.weight_reference:
            as_part = find_whole(entry, rule, self._index, is_free)
            if as_part is not None:
                whole, found = as_part
        keys = [whole.key, *(part.key for part in found.parts), *(key for key, _ in found.rivals)]
        if (found.parts or found.rivals) and not self._are_due(keys, rule, moment):
            return False
        if found.scored is not None:
            self._join(keys, found.scored.total, found.scored.reasons, rule, moment)
            return True
        if found.rivals:
            self._name_rivals(whole.key, list(found.rivals), rule, moment, is_said=True, adds_up=True)
            for key, total in found.rivals:
                self._name_rivals(key, [(whole.key, total)], rule, moment, is_said=False, adds_up=True)
            return False
        cell: Candidate = self._state.get(entry.key)
        cell.note = found.note or self._best_of_none(entry, rule)
        self._put(entry.key, cell)
        return False

    def _bundled_instead(
        self, first: Entry, last: Entry, total: int, rule: CandidateRule, moment: Moment
    ) -> set[bytes] | None:
        """Several records that add up exactly are better than one whose amount differs.

        Return what was joined, nothing where one of them has to be waited for; None: nothing adds up.
        """
        for one in (first, last):
            found = find_bundle(one, rule, self._index, self._freedom(rule))
            if found.scored is not None and found.scored.total >= total:
                keys = [one.key, *(part.key for part in found.parts)]
                if not self._are_due(keys, rule, moment):
                    return set()
                self._join(keys, found.scored.total, found.scored.reasons, rule, moment)
                return set(keys)
        return None

    def _are_due(self, keys: Sequence[bytes], rule: CandidateRule, moment: Moment) -> bool:
        return all(_is_due(self._index.entries[key], rule, moment) for key in keys)

    def _freedom(self, rule: CandidateRule) -> IsFree:
        def is_free(one: Entry, other: Entry, total: int) -> bool:
            near = self._near(one, rule, max(rule.accept, total))[:2]
            return all(edge.other(one.key) == other.key for edge in near)

        return is_free

    def _best_of_none(self, entry: Entry, rule: CandidateRule) -> str | None:
        """Say how close the best candidate came that was not good enough."""
        near = self._near(entry, rule, 0)
        if not near:
            return None
        other = self._index.entries[near[0].other(entry.key)]
        return (
            f"the best candidate, {other.source} record {other.record}, scores {share(near[0].score)} "
            f"and {share(rule.accept)} is asked for"
        )

    def _reasons(self, edge: Edge, rule: CandidateRule) -> Sequence[str]:
        scored = score(rule, self._index.entries[edge.first].features, self._index.entries[edge.last].features)
        assert scored is not None
        return scored.reasons

    def _join(
        self, keys: Sequence[bytes], total: int, reasons: Sequence[str], rule: CandidateRule, moment: Moment
    ) -> None:
        """Let records stand together, in the cell of the first of them."""
        state, entries = self._state, self._index.entries
        ordered = sorted(keys, key=lambda key: (entries[key].side, entries[key].rank))
        cells: dict[bytes, Candidate] = {key: state.get(key) for key in ordered}
        cause = max(cells.values(), key=lambda cell: (cell.changed_at, cell.cause)).cause
        anchor_key = ordered[0]
        for key, cell in cells.items():
            _forget_rivals(cell)
            cell.note = None
            if key != anchor_key:
                cell.anchor = anchor_key
            else:
                cell.members, cell.confidence, cell.why = list(ordered), total, list(reasons)
            self._put(key, cell)
        for key in ordered:
            self._revisit(key, moment.at)
        # Items give records up before another takes them.
        for key in [*ordered[1:], anchor_key]:
            self._judge(key, state.get(key), rule, moment, cause)

    def _still_fits(self, anchor: Candidate, rule: CandidateRule) -> bool:
        """Tell whether a group would be accepted under another generation of its rule."""
        records = self._records(anchor)
        if anchor.confidence < rule.accept:
            return False
        return all(rule.sides[record.side].is_live(record.status) for record in records)

    # ---- what is said

    def _judge(
        self,
        key: bytes,
        cell: Candidate,
        rule: CandidateRule,
        moment: Moment,
        cause: Resolution,
        *,
        publish: bool = False,
        at_timer: bool = False,
    ) -> None:
        """Judge a cell, publish what changed, set its timer; at a timer also expire and forget."""
        state, name = self._state, read_group_key(key)
        own, shown = cell.records, self._records(cell)
        cell.records = shown
        judged = _judged_by(rule, cell, shown)
        cell.adjustments = self._adjustments(cell, name, judged)
        verdict = self._verdict(cell, judged, rule, name)
        verdict, holder = hold_back(state.feeds, key, cell, judged, name, verdict, moment)
        revisions = revise(cell, judged, name, verdict, moment, cause)
        note_holder(state.feeds, key, cell, name, holder)
        is_covered = bool(cell.rivals) and not cell.is_said
        if at_timer and not revisions and self._ends(key, cell, judged, name, verdict, moment, is_covered):
            return
        if cell.members:
            confidence, why = share(cell.confidence), list(cell.why or ())
            revisions = [msgspec.structs.replace(one, confidence=confidence, reasons=why) for one in revisions]
        state.changes.discrepancies += revisions
        status = item_status(cell, verdict)
        if publish or ((status != PENDING or cell.item_revision) and (revisions or not at_timer)):
            self._publish(key, cell, judged, name, status, moment)
        due = cell.touched_at + judged.expire_ms if is_covered else next_due(cell, judged, verdict)
        cell.waits = cell.waits or is_covered
        cell.records, cell.adjustments = own, None
        if is_open(cell) and moment.log_time <= cell.changed_at + rule.decide_after_ms:
            due = min(due, cell.changed_at + rule.decide_after_ms)
            cell.waits = True
        state.schedule(key, cell, due)
        self._put(key, cell)

    def _ends(
        self,
        key: bytes,
        cell: Candidate,
        judged: MatchRule,
        name: GroupName,
        verdict: Verdict,
        moment: Moment,
        is_covered: bool,
    ) -> bool:
        """Expire what was open too long and forget what was settled long enough; True: it is gone."""
        due = moment.at - 1
        if has_open(cell.raised) or is_covered:
            if cell.touched_at + judged.expire_ms > due:
                return False
            self._state.changes.discrepancies += expire(cell, judged, name, verdict, moment)
        elif cell.waits or cell.touched_at + judged.keep_ms > due:
            return False
        self._forget(key, due)
        return True

    def _verdict(self, cell: Candidate, judged: MatchRule, rule: CandidateRule, name: GroupName) -> Verdict:
        if cell.anchor is not None or not (cell.live or cell.members):
            return NOT_JUDGED
        verdict = judge(cell, judged, name)
        if cell.members or cell.is_keyless or verdict.matched:
            return verdict
        if cell.rivals:
            return Verdict([self._ambiguity(cell)] if cell.is_said else [], matched=False)
        gate = cell.changed_at + rule.decide_after_ms
        findings = [one._replace(gate=max(one.gate, gate), reason=cell.note) for one in verdict.findings]
        return Verdict(findings, matched=False)

    def _ambiguity(self, cell: Candidate) -> Finding:
        """Several candidates are as good: named with their scores."""
        (record,) = cell.records
        named, records = [], [record]
        for key, total in cell.rivals or ():
            rival: Candidate | None = self._state.get(key)
            if rival is not None and rival.records:
                records.append(rival.records[0])
                named.append(f"{rival.records[0].source} record {rival.records[0].record} ({share(total)})")
        amount = Decimal(record.amount or 0)
        text = format_amount(amount, record.currency)
        reason = "in several ways the sum of " if cell.adds_up else ""
        return Finding(
            name=AMBIGUOUS,
            type=AMBIGUOUS,
            side=1 - record.side,
            expected=None if record.side else text,
            actual=text if record.side else None,
            difference=amount if record.side else -amount,
            currency=record.currency,
            records=tuple(records),
            reason=reason + ", ".join(named),
        )

    def _publish(
        self, key: bytes, cell: Candidate, judged: MatchRule, name: GroupName, status: int, moment: Moment
    ) -> None:
        if cell.anchor is not None:
            if not cell.item_revision:
                return
            status = PENDING
        item = make_item(cell, judged, name, status, moment)
        if cell.members:
            item = msgspec.structs.replace(item, confidence=share(cell.confidence), reasons=list(cell.why or ()))
        self._state.changes.items.append((key, item))

    def _records(self, cell: Candidate) -> list[Record]:
        """Return the records that a cell speaks about: of an anchor its group's, of the others in a group none."""
        if cell.anchor is not None:
            return []
        if not cell.members:
            return cell.records
        cells = [self._state.get(key) for key in cell.members]
        return [record for held in cells if held is not None for record in held.records]

    def _adjustments(self, cell: Candidate, name: GroupName, judged: MatchRule) -> list[Record] | None:
        """Return the adjustment entries to anything that the cell has raised or could raise."""
        index = self._index
        if not index.has_adjustments or not cell.records:
            return None
        currency = cell.records[0].currency or ""
        ids = {raised.id for raised in cell.raised or ()}
        for side in judged.sides:
            for type_ in ("AmountMismatch", AMBIGUOUS, side.missing_type):
                for extra in ((), (currency,)):
                    ids.add(discrepancy_id(name.org, name.rule, name.key, cell.opener, type_, side.name, *extra))
        keys = sorted({key for one in ids for key in index.adjusting(one)})
        found: list[Record] = [entry for key in keys for entry in self._state.get(key).adjustments or ()]
        return [entry for entry in found if entry.adjusts in ids] or None

    # ---- state

    def _put(self, key: bytes, cell: Candidate) -> None:
        self._state.put(key, cell, settled=is_settled(cell))
        self._index.note(key, cell)

    def _forget(self, key: bytes, at: int) -> None:
        """Forget a cell, and with an anchor its group."""
        cell: Candidate = self._state.get(key)
        for one in cell.members or (key,):
            if one in self._state.cells:
                self._state.forget(one)
                self._index.note(one, None)
        self._revisit(key, at)


def share(thousandths: int) -> str:
    """Return a score as people read it: `0.96`."""
    return f"{Decimal(thousandths).scaleb(-3):.3f}".rstrip("0").ljust(4, "0") if thousandths < WHOLE else "1.00"


def _new(leg: Leg, rule: CandidateRule, *, is_keyless: bool = False) -> Candidate:
    return Candidate(
        rule.generation,
        leg.id,
        leg.received_at,
        leg.received_at + rule.pair.keep_ms,
        UNKNOWN,
        [],
        is_keyless=is_keyless,
    )


def _note_live(cell: Candidate, rule: CandidateRule, at: int) -> None:
    """Note whether the record counts, and since when it waits for its counterpart."""
    cell.live = any(rule.sides[record.side].is_live(record.status) for record in cell.records)
    if cell.live and cell.armed_at == UNKNOWN:
        cell.armed_at = at


def _fingerprint(cell: Candidate) -> Fingerprint:
    """Return everything of a record that decides."""
    if not cell.records:
        return ()
    record = cell.records[0]
    return (cell.live, record.side, record.amount, record.currency, record.first_at, cell.text)


def _forget_rivals(cell: Candidate) -> None:
    cell.rivals, cell.is_said, cell.adds_up = None, False, False


def _judged_by(rule: CandidateRule, cell: Candidate, records: Sequence[Record]) -> MatchRule:
    """Return how records are compared and shown: several against one as sums, and rivals each by name."""
    is_many = len(records) > 2 or (bool(cell.rivals) and cell.is_said)
    return rule.bundle if is_many else rule.pair


def _is_due(entry: Entry, rule: CandidateRule, moment: Moment) -> bool:
    return entry.changed_at + rule.decide_after_ms < moment.log_time


def _edge(rule: CandidateRule, one: Entry, other: Entry) -> Edge | None:
    first, last = (other, one) if one.side else (one, other)
    scored = score(rule, first.features, last.features)
    if scored is None:
        return None
    gap = abs(first.features.first_at - last.features.first_at)
    return Edge(scored.total, gap, first.key, last.key, (*first.rank, *last.rank))


def _span(rule: CandidateRule, amount: Decimal) -> Decimal:
    """Return how far around an amount candidates are looked for: a little more than what is allowed from either side."""
    return EXACT.multiply(allowance(rule, amount), Decimal(2))


def _who_says(contested: dict[bytes, list[Edge]], entries: dict[bytes, Entry]) -> set[bytes]:
    """Choose who raises an ambiguity, so that every record in it is named once: who has a choice, the last side first."""
    by_side: tuple[list[bytes], list[bytes]] = ([], [])
    for key in contested:
        by_side[entries[key].side].append(key)
    said: set[bytes] = set()
    named: set[bytes] = set()
    for with_choice in (True, False):
        for side in (1, 0):
            for key in by_side[side]:
                edges = contested[key]
                if key in said or key in named or (with_choice and len(edges) < 2):
                    continue
                said.add(key)
                named |= {edge.other(key) for edge in edges}
    return said
