"""Feed rules as people write them: what is taken, and what is said of mistakes."""

import pytest

from shared.rules.feed_rule import FeedRuleModel, compile_feed
from shared.rules.load import RulesInvalid, parse_rules

HEAD = "version: 1\npack: billing\nrules:\n"


def one(text: str) -> FeedRuleModel:
    (rule,) = parse_rules(f"{HEAD}  - {{name: billing.feeds, kind: feed, {text}}}").rules
    assert isinstance(rule, FeedRuleModel)
    return rule


def problem(text: str) -> str:
    with pytest.raises(RulesInvalid) as refused:
        one(text)
    return "; ".join(refused.value.problems)


def test_a_given_silence() -> None:
    rule = compile_feed("acme", "billing", one("source: stripe, silent_after: 15m"))
    assert (rule.sources, rule.given_ms) == (("stripe",), 900_000)
    assert rule.severity_of("FeedSilent", None, None) == "high"


def test_a_learned_silence_of_several_sources() -> None:
    text = "source: [stripe, adyen], silent_after: {learned: {factor: 5, at_least: 1h}}, zone: Europe/Berlin"
    rule = compile_feed("acme", "billing", one(text))
    assert (rule.sources, rule.given_ms, rule.factor, rule.at_least_ms) == (("stripe", "adyen"), None, 5, 3_600_000)
    assert rule.zone.key == "Europe/Berlin"


def test_learned_is_the_default() -> None:
    rule = compile_feed("acme", "billing", one("source: stripe"))
    assert (rule.given_ms, rule.factor, rule.at_least_ms) == (None, 3, 600_000)


def test_severity_is_high_unless_the_rule_says_so() -> None:
    def severity(text: str) -> str:
        return compile_feed("acme", "billing", one(f"source: stripe{text}")).severity_of("FeedSilent", None, None)

    assert severity(", severity: {FeedSilent: critical}") == "critical"
    assert severity(", severity: {default: low}") == "low"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: []", "source"),
        ("source: stripe, silent_after: 2bd", "in hours, minutes or seconds"),
        ("source: stripe, silent_after: 0s", "greater than 0"),
        ("source: stripe, silent_after: soon", "'soon' is no duration"),
        ("source: [stripe, stripe]", "names a source twice"),
        ("source: 'a b'", "is no name of a source"),
        ("source: stripe, zone: Mars/Olympus", "is no time zone"),
        ("source: stripe, silent_after: {learned: {factor: 0}}", "factor"),
        ("source: stripe, silent_after: {learned: {times: 3}}", "is not a field"),
        ("source: stripe, severity: {AmountMismatch: high}", "it raises FeedSilent"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, words: str) -> None:
    told = problem(text)
    assert words in told
    assert "billing.feeds" in told


def test_two_rules_about_one_source_contradict_each_other() -> None:
    text = f"{HEAD}  - {{name: billing.one, kind: feed, source: stripe}}\n  - {{name: billing.two, kind: feed, source: stripe}}\n"
    with pytest.raises(RulesInvalid, match=r"billing.one and billing.two both say when 'stripe' is silent"):
        parse_rules(text)
