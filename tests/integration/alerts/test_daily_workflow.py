"""The script of `.github/workflows/daily-reconciliation.yml`, run as the workflow runs it, against a local server."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

WORKFLOW = Path(__file__).parents[3] / ".github" / "workflows" / "daily-reconciliation.yml"
TOKEN = "s3cret-token"
needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "jq"))), reason="the script needs bash, curl and jq, as the runner has"
)


@dataclass
class Alerts:
    """Answers the daily run, and keeps what it was asked."""

    status: int = 200
    answer: dict = field(default_factory=lambda: {"runs": [], "failed": []})
    asked: list[tuple[str, str | None, dict]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def alerts() -> Iterator[Alerts]:
    alerts = Alerts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            alerts.asked.append((self.path, self.headers["x-reconciliation-token"], json.loads(body)))
            content = json.dumps(alerts.answer).encode()
            self.send_response(alerts.status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    alerts.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield alerts
    server.shutdown()
    thread.join()
    server.server_close()


def run_step(url: str, token: str = TOKEN, org: str = "", period: str = "") -> subprocess.CompletedProcess[str]:
    [step] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["run"]["steps"]
    env = {"BASE_URL": url, "DAILY_TOKEN": token, "ORG": org, "PERIOD": period, "PATH": os.environ["PATH"]}
    assert set(step["env"]) == set(env) - {"PATH"}
    return subprocess.run(
        ["bash", "-e", "-c", step["run"]], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@needs_tools
def test_it_posts_the_token_as_a_header_and_lists_the_runs(alerts: Alerts) -> None:
    alerts.answer["runs"] = [{"org": "acme", "period": {"start": "2026-11-20"}, "status": "completed", "id": "r1"}]

    done = run_step(alerts.url + "/")

    assert (done.returncode, done.stderr) == (0, "")
    assert alerts.asked == [("/billing/reconciliation/runs/daily", TOKEN, {})]
    assert done.stdout == "acme  2026-11-20  completed  r1\n"


@needs_tools
def test_it_passes_organisation_and_period_on_as_data(alerts: Alerts) -> None:
    run_step(alerts.url, org='acme"; exit 0', period="2026-11-20")

    assert alerts.asked[0][2] == {"org": 'acme"; exit 0', "period": "2026-11-20"}


@needs_tools
@pytest.mark.parametrize("status", [401, 404, 422])
def test_it_fails_on_any_refusal_says_why_and_never_shows_the_token(alerts: Alerts, status: int) -> None:
    alerts.status, alerts.answer = status, {"detail": "the reason"}

    done = run_step(alerts.url)

    assert done.returncode != 0
    assert "the reason" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@needs_tools
def test_it_fails_when_an_organisation_could_not_be_run(alerts: Alerts) -> None:
    alerts.answer["failed"] = [{"org": "acme", "error": "no such zone"}]

    done = run_step(alerts.url)

    assert (done.returncode, done.stdout) == (1, "::error::acme: no such zone\n")


@needs_tools
@pytest.mark.parametrize(("url", "token"), [("", TOKEN), ("http://127.0.0.1:1", "")])
def test_without_its_secrets_it_says_which_to_set(url: str, token: str) -> None:
    done = run_step(url, token)

    assert done.returncode == 1
    assert "set the secrets RECONCILIATION_BASE_URL and RECONCILIATION_DAILY_TOKEN" in done.stdout


def test_the_workflow_runs_daily_and_by_hand_with_those_two_secrets_and_no_rights() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))

    on = workflow[True]  # YAML 1.1 reads the key `on` as a boolean
    assert list(on) == ["schedule", "workflow_dispatch"]
    assert workflow["permissions"] == {}
    [step] = workflow["jobs"]["run"]["steps"]
    assert step["env"]["BASE_URL"] == "${{ secrets.RECONCILIATION_BASE_URL }}"
    assert step["env"]["DAILY_TOKEN"] == "${{ secrets.RECONCILIATION_DAILY_TOKEN }}"
    assert "${{" not in step["run"]
