"""The report's page: plain HTML and CSS, light and dark, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1b1f24;--soft:#57606a;--line:#d9dee4;--grid:#e8ebef;
--s0:#2f6feb;--s1:#c2410c;--s2:#0f766e;--gap:#f59e0b;--valid:#2da44e;--invalid:#cf222e}
@media(prefers-color-scheme:dark){:root{--page:#0f1318;--card:#171c23;--text:#e6eaef;--soft:#9aa5b1;--line:#2b333d;
--grid:#232a33;--s0:#79b0ff;--s1:#ff9d6c;--s2:#5bd5c4;--gap:#d29922;--valid:#3fb950;--invalid:#f85149}.heat{filter:brightness(1.5)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:19px;margin:40px 0 12px}h3{font-size:15px;margin:0;overflow-wrap:anywhere}
h3 .soft{font-weight:400;font-size:13px}
p{margin:0 0 12px;max-width:78ch}.soft{color:var(--soft)}code{font:13px ui-monospace,SFMono-Regular,Menlo,monospace}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:24px 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.tile b{display:block;font-size:22px;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.card{margin:0 0 14px}.card>.soft{font-size:13px;margin-bottom:8px}
.pictures{display:flex;flex-wrap:wrap;gap:12px}
.pictures img{image-rendering:pixelated}
.pair{display:grid;grid-template-columns:minmax(0,1.7fr) minmax(0,1fr);gap:20px}
.views{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:20px;align-items:start}
@media(max-width:820px){.pair,.views{grid-template-columns:minmax(0,1fr)}}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
caption{text-align:left;color:var(--soft);padding-bottom:6px;font-size:13px}
th,td{text-align:right;padding:6px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;font-size:13px}th:first-child,td:first-child{text-align:left;padding-left:0}
td.text,th.text{text-align:left}td.text{white-space:normal;overflow-wrap:anywhere}tr:last-child td{border-bottom:0}
figure{margin:0}figcaption{color:var(--soft);font-size:13px;margin:2px 0 4px}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font:11px system-ui,sans-serif}
.grid{stroke:var(--grid)}.base,.mark{stroke:var(--line)}.gap{fill:var(--gap);opacity:.22}
.line,.faded{fill:none;stroke-width:1.5;stroke-linejoin:round}.faded{stroke-dasharray:2 3;opacity:.55}
.rings{fill:none;stroke-width:1.3}
.dots{opacity:.55}.heat{image-rendering:pixelated}.valid{fill:var(--valid)}.invalid{fill:var(--invalid)}
.line.s0,.faded.s0,.rings.s0{stroke:var(--s0)}
.line.s1,.faded.s1,.rings.s1{stroke:var(--s1)}
.line.s2,.faded.s2,.rings.s2{stroke:var(--s2)}
.dots.s0{fill:var(--s0)}.dots.s1{fill:var(--s1)}.dots.s2{fill:var(--s2)}
.key{display:inline-block;width:10px;height:10px;border-radius:3px;margin:0 5px 0 12px;vertical-align:-1px}
footer{margin-top:40px;color:var(--soft);font-size:13px;border-top:1px solid var(--line);padding-top:12px}
"""


def page(title: str, intro: str, tiles: Iterable[tuple[str, str]], sections: Iterable[str], footer: str) -> str:
    """A whole page.

    Args:
        title: Plain text.
        intro: Plain text under the title.
        tiles: Pairs of a number and what it is, plain text.
        sections: HTML.
        footer: Plain text.
    """
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(intro)}</p><div class="tiles">{shown}</div>'
        f"{''.join(sections)}<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def section(title: str, text: str, *parts: str) -> str:
    """A heading, a paragraph of plain text, and HTML."""
    paragraph = f'<p class="soft">{escape(text)}</p>' if text else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{''.join(parts)}</section>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table of plain text; the first `left` columns are words, the others numbers."""

    def cell(tag: str, index: int, text: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        side = ' class="text"' if index < left else ""
        return f"<{tag}{scope}{side}>{escape(text)}</{tag}>"

    head = "".join(cell("th", index, text) for index, text in enumerate(header))
    body = "".join(
        "<tr>" + "".join(cell("td", index, text) for index, text in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="card scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(caption: str, *parts: str) -> str:
    """Pictures with a caption of plain text above them."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{''.join(parts)}</figure>"
