"""`python -m shared.telemetry.probe`: exit 0 when the service in this container is ready; imports nothing heavy.

Container images run it as their health check; it asks the port that the service itself listens on.
"""

import http.client
import json
import os
import sys
from typing import Final

TIMEOUT_S: Final = 2.5
"""Below the time-out of the images' HEALTHCHECK, so that the reason is said."""


def probe(port: int, path: str = "/health/ready") -> str | None:
    """Return None when the service on `port` of this machine answers 200, else why not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"port {port} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if answer.status == http.client.OK else _reasons(answer.status, body)


def _reasons(status: int, body: bytes) -> str:
    try:
        checks = json.loads(body)["checks"].items()
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"answers {status}"
    return "; ".join(f"{name}: {reason}" for name, reason in checks if reason != "ok") or f"answers {status}"


def main() -> int:
    """Say on stderr what is missing."""
    given = os.environ.get("TIEOUT_HTTP_PORT", "")
    if not given.isdecimal():
        sys.stderr.write("TIEOUT_HTTP_PORT is not a port: the image sets it\n")
        return 1
    trouble = probe(int(given))
    if trouble is not None:
        sys.stderr.write(f"not ready: {trouble}\n")
    return 0 if trouble is None else 1


if __name__ == "__main__":
    sys.exit(main())
