"""`tieout bots feed` and `tieout bots rules`: the live path of the pack."""

from typing import Annotated

import typer

FEED_EXAMPLE = """Examples:

    TIEOUT_INGEST_URL=http://127.0.0.1:8080 TIEOUT_API_KEY=tk_... tieout bots feed --org acme

    tieout bots feed --once
"""
RULES_EXAMPLE = """Examples:

    tieout bots rules > rules.json

    tieout bots rules --org acme
"""
RETRY_S = 2.0
"""How long one request is tried again before the feed says that it waits."""
OrgOption = Annotated[
    str | None,
    typer.Option(help="Put the rules that the thresholds make in force for this org, over Kafka.", show_default=False),
]


def feed(
    org: OrgOption = None,
    once: Annotated[bool, typer.Option("--once", help="Post what is new now and leave.")] = False,
    poll_s: Annotated[
        float, typer.Option("--poll-s", help="Seconds between two looks at the files.", min=0.05, max=60)
    ] = 0.5,
) -> None:
    """Follow what bots write (snapshots, fills.csv, event stores, the exchange's snapshot) and post it to ingest.

    Files lie where RECON_SNAPSHOT_FILES, RECON_FILLS_FILES, RECON_EVENT_FILES and RECON_EXCHANGE_SNAPSHOT_PATH say, as
    for `reconcile`. How far they were read is stored beside the reports once ingest has acknowledged, so a feed that is
    killed goes on where it was. With --org the thresholds file is followed too: when it changes, so do the rules. While
    ingest is away the feed waits; exit code 2: something has to be mended, such as the key; 3 (with --once): away.
    """
    from dataclasses import replace
    from datetime import timedelta

    from shared.kafka.settings import KafkaSettings
    from shared.packs.bots.thresholds import ThresholdsFile
    from shared.settings import load_settings
    from tieout.bots.alone import alone
    from tieout.bots.feed.rules import RulesFollower
    from tieout.bots.feed.run import LOCK, Feed, stopped_by_signals
    from tieout.bots.service import read_settings
    from tieout.ingest_api import from_environment, tell_of_retries

    ingest = from_environment()
    if once:
        tell_of_retries(lambda line: print(line, flush=True))
    else:
        # The feed waits itself, so that it can be stopped while it does, and says so once.
        tell_of_retries(lambda _: None)
        ingest = replace(ingest, retry_timeout_s=RETRY_S)
    settings = read_settings()
    follower = (
        None
        if org is None
        else RulesFollower(load_settings(KafkaSettings), org, settings.options.reset, settings.options.zone)
    )
    running = Feed(
        settings.places,
        ingest,
        ThresholdsFile(),
        follower,
        lambda line: print(line, flush=True),
        told_for=timedelta(seconds=settings.interval_seconds),
    )
    with alone(settings.places.reports / LOCK, "feed"), stopped_by_signals(running.stop):
        if once:
            running.once()
        else:
            print(f"following the bots' files; position in {running.position_path}", flush=True)
            running.forever(poll_s)
    print(f"{running.posted} events posted, {running.refused} refused", flush=True)


def rules(org: OrgOption = None) -> None:
    """Print the rules that the thresholds file and environment make, as JSON; with --org, put them in force.

    `tieout rules check` and `tieout rules apply` take what is printed. The bots are those whose files are there.
    """
    from shared.packs.bots.rules import document_of
    from shared.packs.bots.thresholds import load_thresholds
    from tieout.bots.service import read_settings

    settings, thresholds = read_settings(), load_thresholds()
    reset, zone = settings.options.reset, settings.options.zone
    bots = [one.bot for one in settings.places.find().bots]
    if org is None:
        import json

        print(json.dumps(document_of(thresholds, bots, reset=reset, zone=zone), indent=2), flush=True)
        return
    import threading

    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings
    from tieout.bots.feed.rules import RulesFollower

    lines = RulesFollower(load_settings(KafkaSettings), org, reset, zone).follow(thresholds, bots, threading.Event())
    for line in lines or [f"pack bots of org {org} is in force as it is"]:
        print(line, flush=True)
