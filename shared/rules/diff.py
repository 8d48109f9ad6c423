"""What changes between two versions of a pack's rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.rules.generation import specification
from shared.rules.parts import RuleModel

ChangeKind = Literal["added", "changed", "unchanged", "withdrawn"]
_MARKS: dict[ChangeKind, str] = {"added": "+", "changed": "~", "unchanged": "=", "withdrawn": "-"}


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What happens to one rule."""

    rule: str
    change: ChangeKind
    fields: tuple[str, ...] = ()
    """Fields of the rule that differ."""
    fixed: tuple[str, ...] = ()
    """What differs of what open groups were made by (kind, sides, key, …): only `rules apply --rederive` changes it."""
    shadow: bool = False
    """After the change: it only watches."""
    left_shadow: bool = False
    """It was a shadow and is none any more: what it has raised is alerted now."""

    def __str__(self) -> str:
        """One line for people."""
        words: str = self.change
        if self.change == "added":
            words = "new"
        elif self.change == "changed":
            words = f"{', '.join(self.fields)} changed"
        if self.shadow:
            words += " (shadow: it only watches, nobody is alerted)"
        elif self.left_shadow:
            words += " (a shadow no longer: what it has raised is alerted now)"
        if self.fixed:
            words += f"; {', '.join(self.fixed)} only with --rederive"
        return f"{_MARKS[self.change]} {self.rule}: {words}"


def diff_rules(before: Sequence[RuleModel], after: Sequence[RuleModel]) -> list[RuleChange]:
    """Return a change for every rule of either version: those of `after` in their order, then what is withdrawn."""
    former = {rule.name: rule for rule in before}
    changes = [_change(former.pop(rule.name, None), rule) for rule in after]
    return changes + [RuleChange(name, "withdrawn") for name in former]


def _change(old: RuleModel | None, new: RuleModel) -> RuleChange:
    if old is None:
        return RuleChange(new.name, "added", shadow=new.shadow)
    was, now = specification(old), specification(new)
    if was == now:
        return RuleChange(new.name, "unchanged", shadow=new.shadow)
    return RuleChange(
        new.name,
        "changed",
        tuple(sorted(field for field in was.keys() | now.keys() if was.get(field) != now.get(field))),
        fixed_changes(old, new),
        new.shadow,
        old.shadow and not new.shadow,
    )


def fixed_changes(old: RuleModel, new: RuleModel) -> tuple[str, ...]:
    """Return the names of what may not change in place, where the two differ in it."""
    was, now = old.fixed, new.fixed
    return tuple(name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name))
