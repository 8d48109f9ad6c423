"""The rule sets in force, as the topic `rules` tells them, and the control records that put them into the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.contracts.leg import RuleRecord
from shared.contracts.rule_set import Derivation, RuleDerived, RuleSetRecord
from shared.rules.companions import with_companions
from shared.rules.compiled import rule_record
from shared.rules.extract import Extractor
from shared.rules.load import validate_rules
from shared.rules.parts import RuleModel


@dataclass(frozen=True, slots=True)
class _Pack:
    version: int
    rules: Sequence[RuleModel]
    withdrawn: tuple[str, ...]
    derivations: Mapping[str, Derivation]


@dataclass(frozen=True, slots=True)
class Deriving:
    """A rule whose events are to be derived anew."""

    org: str
    pack: str
    rule: RuleModel
    """As it is in force now: a shadow until all of its legs are there."""
    derivation: Derivation

    @property
    def name(self) -> str:
        """Names the derivation among all."""
        return f"{self.org}.{self.pack}.{self.rule.name}.{self.derivation.number}"


def derivation_group(ingest_group: str, name: str) -> str:
    """Return the consumer group that remembers how far a derivation is."""
    return f"{ingest_group}.derivation.{name}"


class RuleBook:
    """Rules of every org. `revision` rises with every change, so that a reader knows when to announce again."""

    def __init__(self) -> None:
        self.revision = 0
        self.version = -1
        """Offset in the topic `rules` up to which everything has been taken."""
        self._packs: dict[tuple[str, str], _Pack] = {}
        self._extractors: dict[str, Extractor] = {}
        self._names: dict[str, str] = {}
        self._done: dict[tuple[str, str, str], tuple[int, int]] = {}
        """By (org, pack, rule): number of the last derivation that is done, and the version of the note that says so."""

    def apply(self, org: str, pack: str, rule_set: RuleSetRecord | None, version: int) -> None:
        """Put a rule set in force; `version` is its offset in the topic, None and no rules withdraw the pack.

        Raises:
            RulesInvalid: this build cannot read the rules; what was in force before stays.
        """
        before = self._packs.get((org, pack))
        if before is not None and version <= before.version:
            return
        rules: Sequence[RuleModel] = ()
        withdrawn: set[str] = set()
        if rule_set is not None:
            document = {"version": rule_set.version, "pack": rule_set.pack, "rules": rule_set.rules}
            rules = with_companions(validate_rules(document, f"rule set {pack} of {org}").rules)
            withdrawn.update(rule_set.withdrawn)
        if before is not None:
            withdrawn.update(before.withdrawn, (rule.name for rule in before.rules))
        withdrawn.difference_update(rule.name for rule in rules)
        derivations = {} if rule_set is None else rule_set.derivations
        self._packs[org, pack] = _Pack(version, rules, tuple(sorted(withdrawn)), derivations)
        self._compile(org)

    def derived(self, note: RuleDerived, version: int) -> None:
        """Note that every leg of a derivation is there: the rule comes out of the shadow."""
        name = (note.org, note.pack, note.rule)
        if (note.number, version) <= self._done.get(name, (0, -1)):
            return
        self._done[name] = (note.number, version)
        if (note.org, note.pack) in self._packs:
            self._compile(note.org)

    def deriving(self) -> list[Deriving]:
        """Return the rules whose events are to be derived anew, in a fixed order."""
        return [
            Deriving(org, name, rule, pack.derivations[rule.name])
            for (org, name), pack in sorted(self._packs.items())
            for rule in self._in_force(org, name, pack)
            if self._is_deriving(org, name, pack, rule)
        ]

    def _is_deriving(self, org: str, name: str, pack: _Pack, rule: RuleModel) -> bool:
        wanted = pack.derivations.get(rule.name)
        return wanted is not None and self._done.get((org, name, rule.name), (0, -1))[0] < wanted.number

    def _in_force(self, org: str, name: str, pack: _Pack) -> list[RuleModel]:
        """Return the pack's rules; one whose legs are not all there yet only watches."""
        return [
            rule.model_copy(update={"shadow": True}) if self._is_deriving(org, name, pack, rule) else rule
            for rule in pack.rules
        ]

    def _compile(self, org: str) -> None:
        packs = {name: self._in_force(org, name, pack) for (of, name), pack in self._packs.items() if of == org}
        self._extractors[org] = extractor = Extractor(org, packs)
        self._names.update((generation, rule.name) for generation, rule in extractor.rules.items())
        self.revision += 1

    def extractor(self, org: str) -> Extractor | None:
        """Return the compiled rules of `org`; None while it has none."""
        return self._extractors.get(org)

    def name_of(self, generation: str) -> str:
        """Return the rule's name of a generation that has been in force."""
        return self._names[generation]

    def records(self) -> list[RuleRecord]:
        """Return the control records that put every rule in force and withdraw what is gone.

        They go to every partition of `legs`, before the first leg that was made by them.
        """
        records: list[RuleRecord] = []
        for (org, name), pack in self._packs.items():
            records += [RuleRecord(org, gone, "", pack.version, "") for gone in pack.withdrawn]
            records += [self._record(org, name, pack, rule) for rule in self._in_force(org, name, pack)]
        return records

    def _record(self, org: str, name: str, pack: _Pack, rule: RuleModel) -> RuleRecord:
        wanted = pack.derivations.get(rule.name)
        _, noted = self._done.get((org, name, rule.name), (0, -1))
        return rule_record(
            org,
            name,
            rule,
            max(pack.version, noted),
            wanted.number if wanted else 0,
            deriving=self._is_deriving(org, name, pack, rule),
        )
