"""The report of a study: as text, as JSON, as one HTML page with figures; from what MLflow holds alone."""

import base64
import gc
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.answer import Answer, CellAnswer, Family, answer, law
from lrscale.claims import Verdict, verdicts
from lrscale.estimate import Interval
from lrscale.gallery import put_on_show
from lrscale.places import safe_name
from lrscale.records import Line, StudyRecord
from lrscale.results import examples_seen, mean_objective
from lrscale.stopping import whole
from lrscale.tracking import Store


def print_report(study: str | None, uri: str, form: str) -> None:
    """Prints the report of a study in a form: text, json or html.

    Raises:
      Refusal: the store or the study is not there.
    """
    store = Store.existing(uri)
    record = store.study(study)
    gc.freeze()  # what is loaded by now stays: collecting it over and over took half of the reading
    found = answer(record, store.trials(record.experiment_id))
    if form == "json":
        print(json.dumps(as_json(found), indent=2, allow_nan=False))
    elif form == "html":
        print(as_html(found, draw(store, found)), end="")
    else:
        show(found, Console(highlight=False))


def write_report(store: Store, study: StudyRecord, console: Console) -> None:
    """Writes report and figures to `studies/<study>/` and to the study's run, and shows the answer."""
    trials = store.trials(study.experiment_id)
    found = answer(study, trials)
    folder = Path("studies") / safe_name(study.study)
    figures = draw(store, found)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, files in figures.items():
        for suffix, content in files.items():
            (folder / "figures" / f"{name}.{suffix}").write_bytes(content)
    (folder / "report.json").write_text(json.dumps(as_json(found), indent=2, allow_nan=False) + "\n")
    (folder / "report.html").write_text(as_html(found, figures))
    checked = verdicts(found)
    metrics = {"claims_held": float(sum(v.holds for v in checked)), "claims": float(len(checked))}
    if len(found.families) == 1 and found.families[0].ratio is not None:
        metrics["ratio_slope"] = found.families[0].ratio.value
    with whole():
        store.keep_files(study.run_id, folder, metrics)
        put_on_show(store, found, trials, [f"figures/{name}.png" for name in figures if name.startswith("objective_against_lr")])
    show(found, console)
    main = next((n for n in figures if n.startswith("best_lr")), None)
    if main:
        console.print(f"figure   {folder / 'figures' / main}.png")
    console.print(f"report   {folder / 'report.html'}")
    console.print(f"browse   lrscale ui {study.study}")


def draw(store: Store, found: Answer) -> dict[str, dict[str, bytes]]:
    """Draws all figures: name -> format (png, svg) -> content."""
    from lrscale import plots

    drawn: dict[str, dict[str, bytes]] = {}
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
    expected = f"{verdict.expected:g}" + (f" ± {verdict.tolerance:g}" if verdict.tolerance is not None else "")
    return [verdict.name, expected, number(verdict.measured), "holds" if verdict.holds else "FAILS"]


def show(found: Answer, console: Console) -> None:
    """Prints the answer: the cells, the slopes, the claims, and the law in a sentence."""
    study = found.study
    rows = [cell_row(cell) for cell in found.cells]
    columns = list(COLUMNS)
    if not any(row[-1] for row in rows):
        columns = columns[:-1]
    cells = Table(
        caption=f"objective: {study.objective}",
        caption_justify="left",
        title=study.question or study.study,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, title in enumerate(columns):
        cells.add_column(title, justify="left" if i in (0, 7) else "right", no_wrap=True)
    for row in rows:
        cells.add_row(*row[: len(columns)])
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
    for family in found.families:
        console.print(f"[bold]{law(family)}[/bold]" if console.is_terminal else law(family))
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
        "law": [law(family) for family in found.families],
        "cells": [_cell_json(cell) for cell in found.cells],
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
    "loss_against_examples": "Loss against examples seen, at the best lr that was tried in each cell.",
}


def as_html(found: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """The report as one self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

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
        }
        for name in order
    ]
    rows = [cell_row(cell) for cell in found.cells]
    return page.get_template("report.html").render(
        study=found.study,
        laws=[law(family) for family in found.families],
        columns=COLUMNS,
        cells=rows,
        slopes=slope_rows(found),
        claims=[claim_row(v) for v in verdicts(found)],
        figures=images,
        runs=sum(len(t.objectives) for cell in found.cells for t in cell.trials),
        trials=sum(len(cell.trials) for cell in found.cells),
        seeds=found.cells[0].record.config["seeds"],
    )
