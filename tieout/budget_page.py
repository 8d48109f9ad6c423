"""A budget's picture with the rows behind it, as one page that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLUMNS = {
    "reconciliation_date": "Date",
    "budget_before": "Before",
    "manual_adjustment": "Adjusted",
    "budget_after": "After",
    "api_usage_tracked": "Tracked",
    "manual_plug_amount": "Plug",
    "adjustment_reason": "Reason",
    "actor": "By",
}
AMOUNTS = frozenset(name for name in COLUMNS if "budget" in name or "manual" in name or "tracked" in name)
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; }
.rows { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; text-align: start; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); white-space: nowrap; }
.amount { text-align: end; font-variant-numeric: tabular-nums; }
"""


def page(budget: str, svg: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page; `rows` are the budget's history, the newest first."""
    heads = "".join(f'<th scope="col"{_class(name)}>{title}</th>' for name, title in COLUMNS.items())
    lines = "\n".join(
        "<tr>" + "".join(f"<td{_class(name)}>{escape(str(row[name]))}</td>" for name in COLUMNS) + "</tr>"
        for row in rows
    )
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Budget {escape(budget)}</title><style>{STYLE}</style></head>
<body><main>
<h1>Budget {escape(budget)}</h1>
<div class="rows" tabindex="0" role="region" aria-label="Picture">{svg}</div>
<h2>Reconciliations, newest first</h2>
<div class="rows" tabindex="0" role="region" aria-label="Reconciliations"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody></table></div>
</main></body></html>
"""


def _class(name: str) -> str:
    return ' class="amount"' if name in AMOUNTS else ""
