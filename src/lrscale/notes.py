"""Notes that MLflow's UI shows as markdown: the answer of a study, and what a trial is; the first line says it all."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from lrscale.answer import Answer
from lrscale.claims import laws
from lrscale.views import View, link


def study_note(found: Answer, views: Sequence[View], figures: Sequence[str]) -> str:
    """The note of a study's experiment and of its parent run.

    Args:
      found: the answer, which is the first line.
      views: linked in this order.
      figures: paths of artifacts of the parent run, shown in this order.
    """
    study = found.study
    trials = sum(len(cell.trials) for cell in found.cells)
    runs = sum(len(trial.objectives) for cell in found.cells for trial in cell.trials)
    links = [f"[{view.name}]({link(study.experiment_id, view.id, charts=view == views[0])})" for view in views]
    links.append(f"[files of the study](#/experiments/{study.experiment_id}/runs/{study.run_id}/artifacts)")
    lines = [
        " ".join(map(plain, laws(found))),
        f"**{plain(study.question)}**" if study.question else "",
        f"{len(found.cells)} cells, {trials} trials, {runs} runs; objective {plain(study.objective)}." if trials else "",
        " · ".join(links),
        *(f"![{plain(name)}]({image(study.run_id, path)})" for name, path in ((p.split("/")[-1], p) for p in figures)),
        f"Repeat it: `{study.command}`, report it: `lrscale report {study.study}`, "
        f"its Optuna studies: `lrscale ui {study.study} --optuna`.",
    ]
    return "\n\n".join(line for line in lines if line)


def trial_note(name: str, result: str, config: Mapping[str, object], overrides: Sequence[str], optuna: str) -> str:
    """The note of a trial: its outcome, its Optuna trial, its overrides and its resolved config as YAML."""
    words = f"{plain(name)}: {plain(result)}"
    told = f"Optuna: {plain(optuna)}. Overrides: `{' '.join(overrides)}`"
    return f"{words}\n\n{told}\n\n```yaml\n{yaml(config)}\n```"


def yaml(config: Mapping[str, object]) -> str:
    """A config of plain values, two levels deep, as YAML."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {name}: {_scalar(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: object) -> str:
    import json

    return json.dumps(value)


def image(run_id: str, path: str) -> str:
    """Where MLflow's server has an artifact, as notes can show it."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"


def plain(text: str) -> str:
    """Text in which markdown finds nothing to format.

    Example:
      >>> print(plain("lr_sum* = c^-1"))
      lr\\_sum\\* = c^-1
    """
    return "".join("\\" + c if c in "\\`*_[]<>#" else c for c in text)
