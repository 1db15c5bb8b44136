"""`lrscale translate`: translates a tuned lr and its knobs to another reduction or batch size."""

import argparse
from typing import Any

from lrscale.commands import Command

TRANSLATE = """\
Translate a tuned lr and its knobs (weight decay, eps, ...) to another reduction, accumulation or batch size.
The first line is the answer. Then why: exact algebra at one batch size. Then the other rules where B changes.
"""
TRANSLATE_EXAMPLES = """\
examples: lr 0.1 was tuned under mean at B = 32, with momentum SGD and weight decay 1e-4. What must it be for
  sum at B = 256?
    lrscale translate --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --to-reduction sum --to-batch-size 256
  8 accumulated micro-batches of 32, not divided by 8?
    lrscale translate --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --to-batch-size 256 --to-accumulation 8
  DDP over 4 ranks of 8 with a summed loss?
    lrscale translate --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --to-reduction sum --to-ranks 4
"""

KNOB_HELP = {
    "momentum": "momentum or beta",
    "weight_decay": "weight decay; see --coupled and --decoupled",
    "clip_norm": "threshold of clip-by-norm",
    "clip_value": "threshold of clip-by-value",
    "eps": "the optimizer's eps",
    "l1": "factor of an L1 penalty in the loss",
    "l2": "factor of an L2 penalty in the loss",
}
"""Help of each knob; the names are those of `lrscale.law.translation.KNOBS`."""
BATCH: dict[str, Any] = {"reduction": "mean", "size": 32, "accumulation": 1, "divided": False, "ranks": 1, "terms": 1.0}
"""Defaults of the batch under which the lr was tuned."""


HABITS = {
    "hf": ("device", "HF Trainer: batch sizes are per device and micro-batch, accumulation is divided"),
    "lightning": (
        "device",
        "Lightning: batch sizes are per device and micro-batch, accumulation is divided (but not in manual optimization)",
    ),
    "accelerate": (
        "device",
        "Accelerate: batch sizes are per process and micro-batch (split_batches=False), accumulation is divided by backward",
    ),
    "keras": (
        "global",
        "Keras: batch sizes are over all replicas of tf.distribute, per micro-batch, accumulation is averaged; replicas add up "
        "sums and average means",
    ),
}
"""What a batch size counts in each library, and its habits in words; all of them divide by the number of micro-batches."""
ASSUMED = {"reduction": "{} reduction", "size": "B = {}", "accumulation": "{} micro-batch", "ranks": "{} rank"}
"""What is assumed where an option is not given."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog, parser.allow_abbrev = TRANSLATE, TRANSLATE_EXAMPLES, False
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--lr", type=float, required=True, help="the tuned learning rate")
    parser.add_argument("--optimizer", default="sgd", help="a name of torch.optim, or lion, signsgd, lars, lamb (default: sgd)")
    for knob, text in KNOB_HELP.items():
        parser.add_argument(f"--{knob.replace('_', '-')}", type=float, metavar="X", help=text)
    parser.add_argument("--betas", type=float, nargs=2, metavar=("BETA1", "BETA2"), help="betas of Adam-like optimizers")
    parser.add_argument("--b-crit", type=float, metavar="B", help="turn-over batch size, if it is known")
    parser.add_argument("--model", help="network or least_squares: whose studies are quoted where B changes (default: network)")
    parser.add_argument(
        "--from",
        dest="library",
        choices=list(HABITS),
        help="take the habits of a library, before and after. " + "; ".join(text for _, text in HABITS.values()),
    )
    decay = parser.add_mutually_exclusive_group()
    decay.add_argument("--decoupled", action="store_true", default=None, help="weight decay acts on the weights directly")
    decay.add_argument("--coupled", dest="decoupled", action="store_false", help="weight decay is added to the gradient")
    for prefix, title in (("", "how the lr was tuned"), ("to-", "how it will be used (default: as it was tuned)")):
        group, default = parser.add_argument_group(title), dict.fromkeys(BATCH)
        group.add_argument(f"--{prefix}reduction", default=default["reduction"], help="mean, sum or sum_over_nominal")
        group.add_argument(
            f"--{prefix}batch-size",
            type=int,
            metavar="B",
            default=default["size"],
            help="examples in one update, in total (with --from: as the library counts)",
        )
        group.add_argument(
            f"--{prefix}accumulation", type=int, metavar="K", default=default["accumulation"], help="micro-batches in one update"
        )
        group.add_argument(
            f"--{prefix}divided",
            action=argparse.BooleanOptionalAction,
            default=default["divided"],
            help="the loss of each micro-batch is divided by the number of micro-batches",
        )
        group.add_argument(
            f"--{prefix}ranks", type=int, metavar="R", default=default["ranks"], help="processes whose gradients DDP averages"
        )
        group.add_argument(
            f"--{prefix}terms",
            type=float,
            metavar="T",
            default=default["terms"],
            help="summed terms per example, such as outputs",
        )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="form of the answer (default: text)")


def _run(options: argparse.Namespace) -> None:
    from lrscale.law.translation import Batch
    from lrscale.report.translation import print_translation
    from lrscale.rules import check, integer

    values = vars(options) | {"size": options.batch_size, "to_size": options.to_batch_size}
    source = {name: default if values[name] is None else values[name] for name, default in BATCH.items()}
    assumed = [text.format(BATCH[name]) for name, text in ASSUMED.items() if values[name] is None]
    target = {name: source[name] if values[f"to_{name}"] is None else values[f"to_{name}"] for name in BATCH}
    if options.library:
        per, habit = HABITS[options.library]
        if per == "global":  # a mean is over all replicas and a sum adds them up, as in one process
            for batch in (source, target):
                check("ranks", integer(1), batch["ranks"])
                batch["ranks"] = 1
        source["divided"] = True if options.divided is None else options.divided
        target["divided"] = source["divided"] if options.to_divided is None else options.to_divided
        for batch in (source, target):
            batch["size"] *= max(batch["accumulation"], 1) * (max(batch["ranks"], 1) if per == "device" else 1)
        assumed.append(habit)
    if options.model is None and target["size"] != source["size"]:
        assumed.append("a network")
    knobs = {name: values[name] for name in KNOB_HELP if values[name] is not None}
    if options.betas is not None:
        knobs |= {"beta1": options.betas[0], "beta2": options.betas[1]}
    print_translation(
        options.optimizer,
        options.lr,
        Batch(**source),
        Batch(**target),
        knobs,
        options.decoupled,
        options.format,
        options.b_crit,
        assumed,
        options.model or "network",
    )


COMMAND = Command(8, "translate a tuned lr and its knobs to another reduction or batch size", _add, _run)
