"""One HTML page of every study there is: tables and figures of the paper's shape, its numbers beside ours."""

import base64
import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from hildaft.study import drawing
from hildaft.study.collect import Entry
from hildaft.study.pages import not_run
from hildaft.study.results import WRITERS
from hildaft.types import HilDaftError

TITLES: Final = {
    "table1": "Table I: success and episode length",
    "fig5": "Fig. 5: with and without the dual actor, against robot minutes",
    "table2": "Table II: two backbones",
    "long-horizon": "Long horizon",
    "multi-robot": "Fig. 7: several robots",
    "talk-control": "Talk: right, random, opposite",
    "ablations": "Ablations",
}
"""In the order of the page."""
_TRAINING: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "obedience",
        "Obedience over training",
        "Share of single-axis commands that move the end effector the commanded way.",
    ),
    (
        "intervention_share",
        "Interventions over training",
        "Share of the robot's steps in which the human acted.",
    ),
)


def read_documents(folder: Path) -> list[Entry]:
    """Every study's documents in a results folder, the newest first; what was set aside below it is not shown.

    Raises:
        HilDaftError: no such folder, or a damaged file.
    """
    if not folder.is_dir():
        msg = f"results folder {folder}: there is no such folder; `hildaft study NAME` makes one"
        raise HilDaftError(msg)
    found: list[Entry] = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = (
                f"results file {path}: {error}; write it anew with `hildaft study NAME --summarise`"
            )
            raise HilDaftError(msg) from error
        # Other results files, such as the benchmarks', lie beside.
        if isinstance(document, dict) and document.get("study") in TITLES and "not_run" in document:
            found.append(document)
    order = list(TITLES)
    found.sort(key=lambda d: (d["date"], -len(d["name"])), reverse=True)
    return sorted(found, key=lambda d: order.index(d["study"]))


def compose_overview(documents: Sequence[Entry], pictures: Sequence[Path]) -> str:
    """The page as HTML text; `pictures` are of the refinement actor, made by `hildaft draw-commands`."""
    sections = [
        '<p class="eyebrow">HiL-DAFT</p><h1>The experiments of the paper, on the bolt bench</h1>'
    ]
    sections.append(_contents(documents))
    sections += [_section(document) for document in documents]
    sections += [_picture(path) for path in pictures]
    style = files("hildaft.eval").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>HiL-DAFT: experiments</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def write_overview(folder: Path, pictures: Sequence[Path] = ()) -> Path:
    """Writes `index.html` into a results folder and returns its path; raises HilDaftError."""
    page = compose_overview(read_documents(folder), pictures)
    path = folder / "index.html"
    try:
        part = path.with_name(f".writing-{path.name}")
        part.write_text(page, encoding="utf-8")
        part.rename(path)
    except OSError as error:
        msg = f"report {path}: {error.strerror or error}; free space or mend its permissions"
        raise HilDaftError(msg) from error
    return path


def _contents(documents: Sequence[Entry]) -> str:
    there = {document["study"] for document in documents if document["runs"]}
    missing = [title for study, title in TITLES.items() if study not in there]
    parts = ["<p>What exists is shown with how it was made; what does not is named.</p>"]
    if missing:
        items = "".join(f"<li>{escape(title)}</li>" for title in missing)
        parts.append(f"<p>Not run:</p><ul>{items}</ul>")
    return "".join(parts)


def _section(document: Entry) -> str:
    write_page, draw = WRITERS[document["study"]]
    name = "" if document["name"] == document["study"] else f" ({document['name']})"
    parts = [f"<h2>{escape(TITLES[document['study']] + name)}</h2>"]
    facts = (
        f"`{document['command']}`, seeds {', '.join(map(str, document['seeds'])) or 'none yet'}, commit "
        f"{document['commit'] or 'none'}, {document['date']}, {document['machine']}, "
        f"{document['hours']} hours of training."
    )
    parts.append(_markdown([facts]))
    if document["runs"]:
        parts.append(_image(drawing.render(draw, document), document["name"]))
        parts.append(_markdown(write_page(document)))
        parts += [_training(document, *each) for each in _TRAINING]
    if absent := not_run(document):
        parts.append(_markdown(["Not run:", "", *absent]))
    return "".join(parts)


def _training(document: Entry, series: str, title: str, caption: str) -> str:
    if document["study"] not in ("table1", "ablations"):
        return ""
    if not any(run["series"][series] for run in document["runs"]):
        return ""
    figure: Callable[[Entry], Figure] = lambda d: drawing.draw_series(d, series, title)  # noqa: E731
    image = _image(drawing.render(figure, document), title)
    return f"<h3>{escape(title)}</h3><p>{escape(caption)}</p>{image}"


def _markdown(lines: Sequence[str]) -> str:
    html = MarkdownIt("commonmark").enable("table").render("\n".join(lines))
    return html.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )


def _image(png: bytes, name: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<figure class="wide"><img alt="{escape(name)}" src="data:image/png;base64,{data}"></figure>'


def _picture(path: Path) -> str:
    try:
        png = path.read_bytes()
    except OSError as error:
        msg = f"picture {path}: {error.strerror or error}; `hildaft draw-commands RUN` makes one"
        raise HilDaftError(msg) from error
    return (
        "<h2>What the refinement actor does</h2><p>States in which the simulated operator would have spoken (one on "
        "the way, where it never would); from the end effector the mean step in silence and under each single-axis "
        "command.</p>" + _image(png, path.stem)
    )
