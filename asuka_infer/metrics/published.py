"""A scoreboard as files: CSV, Markdown, LaTeX, JSON, one interactive page, and the scores of every picture."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from asuka_infer.images import write_atomically
from asuka_infer.metrics.scoreboard import ALL, Cell, Collected, Measure, Row, Scoreboard

SCORES_FILE = "scores.parquet"
"""One row per method, picture and metric: the columns that `analysis` joins with what people chose."""


def write_all(board: Scoreboard, out: Path) -> list[Path]:
    """Write table.csv, table.md, table.tex, table.json and comparison.html; returns the files."""
    texts = {
        "table.csv": as_csv(board),
        "table.md": as_markdown(board),
        "table.tex": as_latex(board),
        "table.json": as_json(board),
        "comparison.html": as_page(board),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in texts]


def write_scores(
    collected: Mapping[str, Collected], pictures: Sequence[str], domains: Sequence[str], board: Scoreboard, out: Path
) -> Path:
    """`SCORES_FILE`: method, image, metric, value, domain; image is empty for metrics of the whole set."""
    file = io.BytesIO()
    # One row group per method and metric: what is in memory does not grow with how many there are.
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        for method, one in collected.items():
            for metric, values in one.scores.items():
                writer.write_table(_group(method, pictures, metric, values.tolist(), domains))
        for row in board.rows:
            for metric, cell in row.cells.items():
                if row.group == ALL and metric not in collected[row.method].scores and cell.value is not None:
                    writer.write_table(_group(row.method, [""], metric, [cell.value], [""]))
    write_atomically(out / SCORES_FILE, file.getvalue())
    return out / SCORES_FILE


_TEXT = ("method", "image", "metric")
_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXT), ("value", pa.float64()), ("domain", pa.string())])


def _group(method: str, pictures: Sequence[str], metric: str, values: Sequence[float], domains: Sequence[str]) -> Any:
    count = len(pictures)
    columns = [[method] * count, list(pictures), [metric] * count, list(values), list(domains)]
    return pa.table(columns, schema=_SCHEMA)


def as_csv(board: Scoreboard) -> str:
    """One row per group and method; four columns per metric (value, low, high, place) and one of notes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    tails = ("", "_low", "_high", "_place")
    writer.writerow(["group", "method", "n", *(f"{name}{tail}" for name in board.metrics for tail in tails), "notes"])
    for row in board.rows:
        numbers = [
            value
            for name in board.metrics
            for cell in [row.cells[name]]
            for value in (_full(cell.value), _full(cell.low), _full(cell.high), cell.place or "")
        ]
        writer.writerow([row.group, row.method, row.pictures, *numbers, "; ".join([*_notes_of(row), *board.notes])])
    return text.getvalue()


def as_json(board: Scoreboard) -> str:
    """Everything, for programs."""
    told = {
        "metrics": {name: asdict(measure) for name, measure in board.metrics.items()},
        "rows": [asdict(row) for row in board.rows],
        "notes": list(board.notes),
    }
    return json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(board: Scoreboard) -> str:
    """A table per group: best in bold, second best underlined, 95 % intervals in brackets."""
    parts: list[str] = []
    for group, rows in _grouped(board).items():
        parts += [f"## {group} ({rows[0].pictures} images)", ""]
        parts.append("| method | " + " | ".join(_heading(measure) for measure in board.metrics.values()) + " |")
        parts.append("|---" * (1 + len(board.metrics)) + "|")
        for row in rows:
            cells = [_markdown_cell(row.cells[name], measure) for name, measure in board.metrics.items()]
            parts.append(f"| {row.method} | " + " | ".join(cells) + " |")
        parts.append("")
    parts += [f"* {note}" for note in (*board.notes, *_all_notes(board))]
    return "\n".join(parts) + "\n"


def as_latex(board: Scoreboard) -> str:
    r"""A booktabs table: \textbf for the best, \underline for the second best; intervals are in the other files."""
    names = tuple(board.metrics)
    lines = [rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule"]
    arrows = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
    titles = [
        f"{_escaped(measure.title)}{f' ({_escaped(measure.unit)})' if measure.unit else ''} {arrows[measure.better]}"
        for measure in board.metrics.values()
    ]
    lines.append(" & ".join(["Method", *titles]) + r" \\")
    for group, rows in _grouped(board).items():
        title = rf"\emph{{{_escaped(group)}}} ({rows[0].pictures} images)"
        lines += [r"\midrule", rf"\multicolumn{{{len(names) + 1}}}{{l}}{{{title}}} \\"]
        for row in rows:
            cells = [_latex_cell(row.cells[name], board.metrics[name]) for name in names]
            lines.append(" & ".join([_escaped(row.method), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {note}" for note in (*board.notes, *_all_notes(board))]
    return "\n".join(lines) + "\n"


def as_page(board: Scoreboard) -> str:
    """One HTML file without network: every metric's values with intervals by method, groups to choose from."""
    from plotly import graph_objects as go  # noqa: PLC0415 - costs a second that nobody pays who wants no page
    from plotly.subplots import make_subplots  # noqa: PLC0415 - same

    groups = _grouped(board)
    names = list(board.metrics)
    across = 3
    figure = make_subplots(
        rows=-(-len(names) // across),
        cols=across,
        subplot_titles=[_heading(board.metrics[name]) for name in names],
        shared_yaxes=True,
        vertical_spacing=0.4 / (1 + len(names) / across),
    )
    for shown, rows in enumerate(groups.values()):
        for place, name in enumerate(names):
            trace = go.Scatter(**_dots(name, rows), visible=shown == 0)
            figure.add_trace(trace, row=place // across + 1, col=place % across + 1)
    buttons = [
        {
            "label": f"{group} ({rows[0].pictures})",
            "method": "update",
            "args": [{"visible": [shown == index for shown in range(len(groups)) for _ in names]}],
        }
        for index, (group, rows) in enumerate(groups.items())
    ]
    methods = len(next(iter(groups.values())))
    figure.update_layout(
        height=(110 + 28 * methods) * -(-len(names) // across) + 120,
        showlegend=False,
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 40}}],
        margin={"l": 160, "t": 120},
    )
    figure.update_yaxes(autorange="reversed")
    body = figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False}, div_id="comparison")
    notes = "".join(f"<li>{_plain(note)}</li>" for note in (*board.notes, *_all_notes(board)))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title>'
        f'<body style="font-family:sans-serif"><h1>Comparison</h1><p>Dots are means over images, bars 95 % bootstrap '
        f"intervals. Arrows say which end is better; a star marks the best, a diamond the second best.</p>"
        f"{body}<ul>{notes}</ul></body></html>\n"
    )


def _dots(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    told = [(row.method, cell, value) for row in rows if (value := (cell := row.cells[name]).value) is not None]
    cells = [cell for _, cell, _ in told]
    ends = [
        (value, value if cell.low is None else cell.low, value if cell.high is None else cell.high)
        for _, cell, value in told
    ]
    return {
        "x": [value for value, _, _ in ends],
        "y": [method for method, _, _ in told],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, high - value) for value, _, high in ends],
            "arrayminus": [max(0.0, value - low) for value, low, _ in ends],
        },
        "mode": "markers",
        "marker": {
            "size": 10,
            "color": [_COLOURS[cell.place] for cell in cells],
            "symbol": [_SYMBOLS[cell.place] for cell in cells],
        },
        "text": [cell.note for cell in cells],
        "name": name,
    }


_COLOURS, _SYMBOLS = ("#7a7a7a", "#0b6e4f", "#3a7ca5"), ("circle", "star", "diamond")
"""Of all others, the best and the second best."""


def _grouped(board: Scoreboard) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in board.rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def _heading(measure: Measure) -> str:
    arrow = "↑" if measure.better == "higher" else "↓"
    return f"{measure.title}{f' [{measure.unit}]' if measure.unit else ''} {arrow}"


def _markdown_cell(cell: Cell, measure: Measure) -> str:
    if cell.value is None:
        return "-"
    told = f"{cell.value:.{measure.digits}f}"
    told = {1: f"**{told}**", 2: f"<u>{told}</u>"}.get(cell.place, told)
    if cell.low is None or cell.high is None:
        return told
    return f"{told} [{cell.low:.{measure.digits}f}, {cell.high:.{measure.digits}f}]"


def _latex_cell(cell: Cell, measure: Measure) -> str:
    if cell.value is None:
        return "--"
    told = f"{cell.value:.{measure.digits}f}"
    return {1: rf"\textbf{{{told}}}", 2: rf"\underline{{{told}}}"}.get(cell.place, told)


def _notes_of(row: Row) -> list[str]:
    return [f"{name}: {cell.note}" for name, cell in row.cells.items() if cell.note]


def _all_notes(board: Scoreboard) -> list[str]:
    """What single cells depend on, said once per group."""
    told: dict[str, None] = {}
    for row in board.rows:
        for note in _notes_of(row):
            told[f"{row.group}: {note}"] = None
    return list(told)


def _full(value: float | None) -> str:
    return "" if value is None else repr(value)


def _escaped(text: str) -> str:
    for letter in "&%_#$":
        text = text.replace(letter, f"\\{letter}")
    return text


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
