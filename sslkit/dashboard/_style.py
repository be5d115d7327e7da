"""The style of ``report.html``: light and dark, from a phone to a wide screen."""

STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --card: #f5f5f8; --ink: #1b1b1f; --muted: #63636e;
  --rule: #dcdce3; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141418; --card: #1e1e24; --ink: #e8e8ee; --muted: #a0a0ac; --rule: #34343d; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 12px; padding-bottom: 6px;
  border-bottom: 1px solid var(--rule); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 10px;
  margin: 0; }
.facts div { background: var(--card); border-radius: 8px; padding: 8px 12px; min-width: 0; }
dt { color: var(--muted); font-size: 0.8rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.95rem; }
th, td { padding: 6px 18px 6px 0; text-align: left; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--muted); font-weight: 500; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
.plots { display: grid; gap: 18px;
  grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); margin-top: 12px; }
img { display: block; max-width: 100%; height: auto; }
.plots img { width: 100%; max-width: 420px; }
figure { margin: 0 0 24px; }
figure img { border-radius: 8px; }
figcaption, .note { color: var(--muted); font-size: 0.9rem; margin: 8px 0 0; }
summary { cursor: pointer; }
pre { background: var(--card); border-radius: 8px; padding: 14px; overflow-x: auto;
  font-size: 0.85rem; }
"""
