"""The report of a study: as text, as JSON, as one HTML page with figures; from what MLflow holds alone."""

import base64
import gc
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.answer import Answer, CellAnswer, Family, Measurement, answer
from lrscale.claims import Verdict, check_claims, laws, verdicts
from lrscale.estimate import Interval
from lrscale.gallery import put_on_show
from lrscale.places import safe_name
from lrscale.quantity import Quantity
from lrscale.records import Line, StudyRecord
from lrscale.results import examples_seen, mean_objective
from lrscale.stopping import whole
from lrscale.tracking import Store
from lrscale.views import SUMMARY, link


def print_report(study: str | None, uri: str, form: str) -> None:
    """Prints the report of a study in a form: text, json or html.

    Raises:
      Refusal: the store or the study is not there.
    """
    store = Store.existing(uri)
    record = store.study(study)
    check_claims(record)
    gc.freeze()  # what is loaded by now stays: collecting it over and over took half of the reading
    found = answer(record, store.trials(record.experiment_id))
    if form == "json":
        print(json.dumps(as_json(found), indent=2, allow_nan=False))
    elif form == "html":
        print(as_html(found, draw(store, found)), end="")
    else:
        show(found, Console(highlight=False, markup=False, emoji=False))


def write_report(store: Store, study: StudyRecord, console: Console) -> None:
    """Writes report and figures to `studies/<study>/` and to the study's run, and shows the answer."""
    from lrscale.attachments import attachments

    trials = store.trials(study.experiment_id)
    found = answer(study, trials)
    folder = Path("studies") / safe_name(study.study)
    figures = draw(store, found)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, files in figures.items():
        for suffix, content in files.items():
            (folder / "figures" / f"{name}.{suffix}").write_bytes(content)
    document = as_json(found)
    (folder / "report.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    (folder / "report.html").write_text(as_html(found, figures))
    for name, text in attachments(found, document["cells"] or document["quantities"]).items():
        (folder / name).write_text(text)
    checked = verdicts(found)
    metrics = {"claims_held": float(sum(v.holds for v in checked)), "claims": float(len(checked))}
    if len(found.families) == 1 and found.families[0].ratio is not None:
        metrics["ratio_slope"] = round(found.families[0].ratio.value, 4)
    with whole():
        store.keep_files(study.run_id, folder, metrics)
        shown = [name for name in figures if name.startswith(("objective_against_lr", "quantities"))]
        put_on_show(store, found, trials, [f"figures/{name}.png" for name in shown])
    show(found, console)
    main = next((n for n in figures if n.startswith(("best_lr", "quantities"))), None)
    if main:
        console.print(f"figure   {folder / 'figures' / main}.png")
    console.print(f"report   {folder / 'report.html'}")
    console.print(f"browse   lrscale ui {study.study}")
    address = store.uri.rstrip("/") if store.uri.startswith("http") else "http://127.0.0.1:5000"
    console.print(f"link     {address}{link(study.experiment_id, SUMMARY, charts=True)}", soft_wrap=True, highlight=False)


def draw(store: Store, found: Answer) -> dict[str, dict[str, bytes]]:
    """Draws all figures: name -> format (png, svg) -> content."""
    from lrscale import plots

    drawn: dict[str, dict[str, bytes]] = {}
    if found.measurements:
        from lrscale import quantity_plots

        drawn["quantities"] = plots.files(quantity_plots.quantities(found))
    for i, family in enumerate(found.families):
        suffix = f"_{i + 1}" if len(found.families) > 1 else ""
        if not any(cell.best for cell in family.cells):
            continue
        name = "excess_risk" if found.study.objective == "excess_risk" else "train_loss"
        figures = {
            "objective_against_lr": plots.objective_against_lr(found, family),
            "best_lr_against_batch_size": plots.best_lr_against_batch_size(found, family),
            **({"steps_against_batch_size": plots.steps_against_batch_size(family)} if family.trade_off else {}),
            "loss_against_examples": plots.loss_against_examples(found, family, _best_lines(store, family, name), name),
        }
        for title, figure in figures.items():
            drawn[title + suffix] = plots.files(figure)
    return drawn


def main_figures(store: Store, found: Answer) -> dict[str, bytes]:
    """The figures that answer the study's question, as SVG by file name: one for each family of cells."""
    chosen = [files["svg"] for name, files in draw(store, found).items() if name.startswith(("best_lr", "quantities"))]
    return {f"figure{f'_{i}' if i > 1 else ''}.svg": content for i, content in enumerate(chosen, 1)}


def _best_lines(store: Store, family: Family, name: str) -> dict[str, Line]:
    """The loss curve of each cell's best trial, its steps counted in examples."""
    lines = {}
    for cell in family.cells:
        trial = cell.best_trial()
        if trial is not None:
            line = store.line(trial.run_id, name)
            lines[cell.record.id] = Line(tuple(examples_seen(cell.training, s) for s in line.steps), line.values)
    return lines


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}g}"


def cell_row(cell: CellAnswer) -> list[str]:
    """A cell in the table: name, best lr, interval, theory, objective, trials, diverged runs, remark."""
    best = cell.best
    interval = best.interval if best else None
    diverged = sum(sum(t.diverged) for t in cell.trials)
    runs = sum(len(t.objectives) for t in cell.trials)
    remark = "no trials" if not cell.trials else "diverged" if best is None else "edge" if best.at_edge else ""
    return [
        cell.record.label,
        number(interval.value if interval else None),
        f"{number(interval.low)} - {number(interval.high)}" if interval else "-",
        number(cell.theory_lr),
        number(least_objective(cell)),
        str(len(cell.trials)),
        f"{diverged}/{runs}",
        remark,
    ]


def least_objective(cell: CellAnswer) -> float | None:
    """The objective of the best trial of a cell."""
    trial = cell.best_trial()
    return None if trial is None else mean_objective(trial.objectives)


def cell_table(found: Answer) -> tuple[list[str], list[list[str]]]:
    """The table of cells: its columns and rows."""
    if not found.families:
        return quantity_table(found.measurements)
    columns, rows = list(COLUMNS), [cell_row(cell) for cell in found.cells]
    shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    return columns[:shown], [row[:shown] for row in rows]


def quantity_table(found: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    """What a probe measured: a row a cell, a column a quantity, beside it what is expected where that is known."""
    names = list(dict.fromkeys(m.quantity.name for m in found))
    known = {m.quantity.name for m in found if m.quantity.expected is not None}
    rows: dict[str, dict[str, Quantity]] = {}
    for m in found:
        rows.setdefault(m.cell.label, {})[m.quantity.name] = m.quantity
    columns = ["cell", *(title for name in names for title in ([name, "expected"] if name in known else [name]))]
    return columns, [
        [label, *(text for name in names for text in _quantity_texts(quantities.get(name), name in known))]
        for label, quantities in rows.items()
    ]


def _quantity_texts(quantity: Quantity | None, with_expected: bool) -> list[str]:
    if quantity is None:
        return ["-", "-"] if with_expected else ["-"]
    interval = "" if quantity.low is None else f" [{number(quantity.low)}, {number(quantity.high)}]"
    return [number(quantity.value) + interval, *([number(quantity.expected)] if with_expected else [])]


COLUMNS = ("cell", "best lr", "95 % interval", "theory", "objective", "lrs", "diverged", "")


def slope_rows(found: Answer) -> list[list[str]]:
    """Slopes of log lr* over log B, per reduction and declared range."""
    rows = []
    for entry in as_json(found)["slopes"]:
        if entry["slope"] is None:
            continue
        family = ", ".join(str(v) for v in entry["of"].values())
        low, high = entry["ci"]
        span = entry["range"] if entry["range"] == "all" else f"{entry['range']} (B {entry['low']:g} to {entry['high']:g})"
        rows.append(
            [
                " ".join([family, entry["reduction"]]).strip(),
                span,
                number(entry["slope"]),
                f"{number(low)} to {number(high)}",
            ]
        )
    return rows


def claim_row(verdict: Verdict) -> list[str]:
    """A claim in the table: name, expected, measured, holds or fails."""
    return [verdict.name, verdict.bound, number(verdict.measured), "holds" if verdict.holds else "FAILS"]


def show(found: Answer, console: Console) -> None:
    """Prints the answer: the cells, the slopes, the claims, and the law in a sentence."""
    study = found.study
    columns, rows = cell_table(found)
    cells = Table(
        caption=f"objective: {study.objective}" if found.families else None,
        caption_justify="left",
        title=study.question or study.study,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for title in columns:
        cells.add_column(title, justify="left" if title in ("cell", "") else "right", no_wrap=True)
    for row in rows:
        cells.add_row(*row)
    console.print(cells)
    for title, rows in (
        ("slope of log lr* over log B", slope_rows(found)),
        ("claims", [claim_row(v) for v in verdicts(found)]),
    ):
        if rows:
            table = Table(title=title, title_justify="left", show_header=False, box=None)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for sentence in laws(found):
        console.print(sentence, style="bold" if console.is_terminal else None)
    seeds = {len(t.objectives) for cell in found.cells for t in cell.trials}
    if seeds == {1}:
        console.print("One seed: the intervals cover the grid's resolution only. Take seeds=8.")


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _value(interval: Interval | None) -> float | None:
    return None if interval is None else interval.value


def as_json(found: Answer) -> dict[str, Any]:
    """The report as one document; other programs rely on its keys."""
    ratios = [
        {"of": dict(f.of), "slope": _value(f.ratio), "ci": _pair(f.ratio), "expected": -f.homogeneity} for f in found.families
    ]
    slopes = []
    for family in found.families:
        for reduction in family.reductions():
            for name, (low, high) in found.ranges().items():
                measured = family.slope(reduction, low, high)
                ends = {"low": low, "high": high} if math.isfinite(high) else {"low": None, "high": None}
                slopes.append(
                    {
                        "of": dict(family.of),
                        "reduction": reduction,
                        "range": name,
                        **ends,
                        "slope": _value(measured),
                        "ci": _pair(measured),
                    }
                )
    return {
        "study": found.study.study,
        "question": found.study.question,
        "objective": found.study.objective,
        "law": laws(found),
        "cells": [_cell_json(cell) for cell in found.cells],
        "quantities": [{**m.cell.scientific, "label": m.cell.label, **asdict(m.quantity)} for m in found.measurements],
        "ratio": ratios[0] if len(ratios) == 1 else None,
        "ratios": ratios,
        "slopes": slopes,
        "turn_over": [_turn_over_json(family) for family in found.families],
        "trade_off": [_trade_off_json(family) for family in found.families if family.trade_off],
        "claims": [
            {
                "name": v.name,
                "expected": v.expected,
                "measured": v.measured,
                "ci": _pair(v.interval),
                "tolerance": v.tolerance,
                "at_least": v.at_least,
                "at_most": v.at_most,
                "holds": v.holds,
            }
            for v in verdicts(found)
        ],
        "command": found.study.command,
        "made_by": dict(found.study.made_by),
    }


def _cell_json(cell: CellAnswer) -> dict[str, Any]:
    best = cell.best
    return {
        **cell.record.scientific,
        "label": cell.record.label,
        "c": cell.c,
        "lr_best": _value(best.interval if best else None),
        "lr_best_ci": _pair(best.interval if best else None),
        "objective": least_objective(cell),
        "lr_theory": cell.theory_lr,
        "at_edge": best.at_edge if best else None,
        "n_trials": len(cell.trials),
        "n_runs": sum(len(t.objectives) for t in cell.trials),
        "n_diverged": sum(sum(t.diverged) for t in cell.trials),
    }


def _turn_over_json(family: Family) -> dict[str, Any]:
    turn = family.turn_over
    if turn is None:
        return {"of": dict(family.of), "b_c": None, "ci": None}
    return {
        "of": dict(family.of),
        "b_c": turn.b_c.value,
        "ci": _pair(turn.b_c),
        "eta_max": turn.eta_max.value,
        "residual": turn.residual,
        "at_bound": turn.at_bound,
    }


def _trade_off_json(family: Family) -> dict[str, Any]:
    fit = family.trade_off
    assert fit is not None
    intervals = {"s_min": fit.s_min, "e_min": fit.e_min, "b_crit": fit.b_crit}
    numbers = {name: i.value for name, i in intervals.items()} | {f"{name}_ci": _pair(i) for name, i in intervals.items()}
    return {"of": dict(family.of), **numbers, "residual": fit.residual, "at_bound": fit.at_bound}


FIGURE_TEXTS = {
    "best_lr_against_batch_size": "Best learning rate against batch size, for each reduction, "
    "with 95 % intervals and theory's line.",
    "objective_against_lr": "Objective against learning rate: one curve a batch size, a panel a reduction; "
    "stars mark the best lr, crosses divergence.",
    "steps_against_batch_size": "Steps to the target against batch size at the best lr, with 95 % intervals over seeds, "
    "and the trade-off fitted to them between perfect scaling and the fewest steps.",
    "quantities": "What was measured in each cell, as points with their intervals, against what theory says, as lines.",
    "loss_against_examples": "Loss against examples seen, at the best lr that was tried in each cell.",
}


def trained(study: StudyRecord) -> str:
    """What a study's cells have in common, in words."""
    configs = [cell.config for cell in study.cells]
    groups = {key: sorted({config[key]["name"] for config in configs}) for key in ("task", "optimizer")}
    parts = [f"{key} {', '.join(names)}" for key, names in groups.items()]
    parts += [f"{key} {value}" for key, value in configs[0]["budget"].items() if value is not None]
    seeds = configs[0]["seeds"]
    return f"{', '.join(parts)}; seeds: {seeds if isinstance(seeds, int) else len(seeds)} a trial; {configs[0]['dtype']}."


def as_html(found: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """The report as one self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from lrscale.interactive import fragment

    page = Environment(
        loader=PackageLoader("lrscale", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    order = [name for start in FIGURE_TEXTS for name in figures if name.startswith(start)]
    images = [
        {
            "text": next(t for start, t in FIGURE_TEXTS.items() if name.startswith(start)),
            "data": base64.b64encode(figures[name]["svg"]).decode(),
            "twin": name.startswith("objective_against_lr"),
        }
        for name in order
    ]
    columns, rows = cell_table(found)
    return page.get_template("report.html").render(
        study=found.study,
        laws=laws(found),
        columns=columns,
        cells=rows,
        slopes=slope_rows(found),
        claims=[claim_row(v) for v in verdicts(found)],
        figures=images,
        runs=sum(len(t.objectives) for cell in found.cells for t in cell.trials),
        trials=sum(len(cell.trials) for cell in found.cells),
        trained=trained(found.study),
        interactive=fragment(found) if found.families else "",
    )
