"""The rule sets in force, as the topic `rules` tells them, and the control records that put them into the log."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.contracts.leg import RuleRecord
from shared.contracts.rule_set import RuleSetRecord
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


class RuleBook:
    """Rules of every org. `revision` rises with every change, so that a reader knows when to announce again."""

    def __init__(self) -> None:
        self.revision = 0
        self._packs: dict[tuple[str, str], _Pack] = {}
        self._extractors: dict[str, Extractor] = {}
        self._names: dict[str, str] = {}

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
        self._packs[org, pack] = _Pack(version, rules, tuple(sorted(withdrawn)))
        packs = {name: known.rules for (of, name), known in self._packs.items() if of == org}
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
            records += [rule_record(org, name, rule, pack.version) for rule in pack.rules]
        return records
