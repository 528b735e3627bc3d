"""The Profile Store stand-in's page for people: what has arrived, without JavaScript, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .event_store import EventStore, Row

LATEST = 50
_MOST_BARS = 12

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #66758a; --line: #dfe5ec; --ground: #f5f7fa; --card: #fff;
  --accent: #0b6e8f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #93a3b5; --line: #2b3644; --ground: #10161d;
  --card: #18212b; --accent: #4db6d6; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 96rem; margin: 0 auto; }
h1 { margin: 0; font-size: 1.5rem; letter-spacing: -.01em; }
h2 { margin: 0 0 .75rem; font-size: .95rem; }
p.about { margin: .25rem 0 1.75rem; color: var(--soft); }
.tiles, .split { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr));
  margin-bottom: 1rem; }
.split { grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.15rem; }
.tile b { display: block; font-size: 1.9rem; line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile span, .none { color: var(--soft); }
dl { display: grid; grid-template-columns: minmax(6rem, auto) 1fr auto; gap: .35rem .75rem; margin: 0;
  align-items: center; }
dt { overflow-wrap: anywhere; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
meter { width: 100%; height: .7rem; }
form { display: flex; gap: .5rem; flex-wrap: wrap; margin-bottom: 1rem; }
input { flex: 1 1 16rem; padding: .5rem .7rem; font: inherit; color: inherit; background: var(--ground);
  border: 1px solid var(--line); border-radius: .4rem; }
button { padding: .5rem 1.1rem; font: inherit; color: #fff; background: #0b6e8f; border: 0; border-radius: .4rem;
  cursor: pointer; }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
a { color: var(--accent); align-self: center; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .88rem; }
th, td { padding: .45rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
code { font-size: .85em; }
"""


def render(store: EventStore, term: str) -> str:
    """Return the page.

    term: the order number or email to look for, or "" for the latest events.
    """
    totals = store.totals()
    rows = store.latest(term, LATEST)
    heading = f"Events of {escape(term)}" if term else f"Latest {LATEST} events"
    back = '<a href="/">All events</a>' if term else ""
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Profile Store (sandbox)</title><style>{_STYLE}</style></head>
<body><main>
<h1>Profile Store</h1>
<p class="about">The sandbox's stand-in. Everything it accepted since its state folder was made.
Reload to look again.</p>
<section class="tiles" aria-label="Totals">
{_tile(totals["events"], "events")}{_tile(totals["track_ids"], "distinct track ids")}
{_tile(totals["emails"], "distinct emails")}{_tile(totals["ignored"], "ignored (blacklist)")}
</section>
<section class="split">
<div class="card"><h2>Events by type</h2>{_bars(store.counts_by("event_type"))}</div>
<div class="card"><h2>Events by store</h2>{_bars(store.counts_by("store"))}</div>
</section>
<section class="card">
<h2>{heading}</h2>
<form method="post" action="/" role="search"><input name="q" value="{escape(term)}" aria-label="Order number or email"
placeholder="Order number or email" autocomplete="off"><button>Search</button>{back}</form>
{_table(rows)}
</section>
</main></body></html>
"""


def _tile(number: int, label: str) -> str:
    return f'<div class="card tile"><b>{number:,}</b><span>{escape(label)}</span></div>'


def _bars(counts: list[tuple[str, int]]) -> str:
    if not counts:
        return '<p class="none">Nothing yet.</p>'
    most = counts[0][1]
    shown, rest = counts[:_MOST_BARS], counts[_MOST_BARS:]
    bars = [
        f'<dt>{escape(name) or "(none)"}</dt><dd><meter min="0" max="{most}" value="{n}">{n}</meter></dd><dd>{n:,}</dd>'
        for name, n in shown
    ]
    if rest:
        bars.append(f"<dt>{len(rest)} more</dt><dd></dd><dd>{sum(n for _, n in rest):,}</dd>")
    return f"<dl>{''.join(bars)}</dl>"


def _table(rows: Iterable[Row]) -> str:
    lines = [
        "<tr>"
        + "".join(
            f"<td>{escape(row[column]) or '–'}</td>"
            for column in ("event_time", "event_type", "order_number", "store", "email", "scope", "device_id")
        )
        + f"<td><code>{escape(row['track_id'])}</code></td></tr>"
        for row in rows
    ]
    if not lines:
        return '<p class="none">No events.</p>'
    heads = ("Event time", "Type", "Order", "Store", "Email", "Scope", "Device", "Track id")
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(f"<th scope=col>{head}</th>" for head in heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
