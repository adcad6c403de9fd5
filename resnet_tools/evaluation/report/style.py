"""The style sheet of the page: readable on a phone, and in the dark where the reader asks for it."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --soft: #f3f5f8; --line: #e2e2e2; --faint: #555;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --soft: #23272e; --line: #363b44; --faint: #a8adb5; --link: #7db7f0; }
  .picture img { filter: brightness(.88); }
}
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  padding: 0 1.5rem; max-width: 1180px; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.figures div { background: var(--soft); border-radius: 8px; padding: .7rem 1.2rem; }
.figures b { display: block; font-size: 1.6rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
td { min-width: 6rem; }
.files td:first-child { min-width: 17rem; }
th { white-space: nowrap; font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.number { min-width: 0; }
summary, .sorted label { cursor: pointer; color: var(--link); }
summary { margin: .4rem 0; }
.picture { overflow-x: auto; margin-block: .6rem 1rem;
  margin-inline: calc((100% - max(100%, min(100vw - 3rem, 1900px))) / 2); }
.picture img { display: block; margin: 0 auto; background: #fff; border-radius: 6px; }
.note { color: var(--faint); font-size: .9rem; }

/* The table of classes: rows are laid out as a grid, so that `order` can sort them; see class_table.py. */
.sortings { display: flex; flex-wrap: wrap; gap: .2rem .9rem; font-size: .9rem; margin-bottom: .4rem; }
.sorted input { margin: 0 .35rem 0 0; accent-color: var(--link); vertical-align: -.1em; }
.more { display: block; margin: .4rem 0; }
.classes { display: block; min-width: 50rem; --columns: minmax(9rem, 1fr) 4.5rem repeat(4, 6.3rem) minmax(12rem, 1fr); }
.classes.with-top5 { min-width: 56rem; --columns: minmax(9rem, 1fr) 4.5rem repeat(5, 6.3rem) minmax(12rem, 1fr); }
.classes thead { display: block; }
.classes tbody { display: grid; }
.classes tr { display: grid; grid-template-columns: var(--columns); }
.classes th { white-space: normal; align-content: end; overflow-wrap: normal; }
.classes td { min-width: 0; height: 1.9rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.classes :is(th, td):first-child { position: sticky; left: 0; background: var(--paper); }
.classes :is(th, td):last-child { padding-left: .8rem; }
.sorted:has(.more input:not(:checked)) tbody { max-height: 38rem; overflow: hidden; }  /* 20 rows */
.sorted:has(.sort1:checked) tr { order: var(--p1); }
.sorted:has(.sort2:checked) tr { order: var(--p2); }
.sorted:has(.sort3:checked) tr { order: var(--p3); }
.sorted:has(.sort4:checked) tr { order: var(--p4); }
"""
