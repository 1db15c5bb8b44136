"""`lrscale translate`: translates a tuned lr and its knobs to another reduction or batch size."""

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from lrscale.commands import Command
from lrscale.errors import Refusal
from lrscale.law.habits import HABITS, default_knobs
from lrscale.rules import check, integer, shown

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
  DeepSpeed, 8 a GPU and 4 accumulation steps, from 8 GPUs to 16, with AdamW?
    lrscale translate --lr 3e-4 --optimizer adamw --from deepspeed --batch-size 8 --accumulation 4 --ranks 8 --to-ranks 16
  Half a million tokens a batch become two million?
    lrscale translate --lr 3e-4 --optimizer adamw --weight-decay 0.1 --tokens 524288 --to-tokens 2097152
"""

KNOB_HELP = {
    "momentum": "momentum or beta",
    "weight_decay": "weight decay; see --coupled and --decoupled",
    "clip_norm": "threshold of clip-by-norm",
    "clip_value": "threshold of clip-by-value",
    "eps": "the optimizer's eps",
    "loss_scale": "fp16: factor of the loss that is divided out before the step",
    "l1": "factor of an L1 penalty in the loss",
    "l2": "factor of an L2 penalty in the loss",
}
"""Help of each knob; the names are those of `lrscale.law.translation.KNOBS`."""
BATCH: dict[str, Any] = {"reduction": "mean", "size": 32, "accumulation": 1, "divided": False, "ranks": 1, "terms": 1.0}
"""Defaults of the batch under which the lr was tuned."""


MEANT = {
    **dict.fromkeys(("bs", "batch", "train-batch-size", "global-batch-size", "batchsize"), "--batch-size"),
    **dict.fromkeys(("per-device-train-batch-size", "per-device-batch-size"), "--from hf --batch-size"),
    **dict.fromkeys(("train-micro-batch-size-per-gpu", "micro-batch-size"), "--from deepspeed --batch-size"),
    **dict.fromkeys(
        ("gpus", "num-gpus", "n-gpus", "ngpus", "devices", "world-size", "nproc-per-node", "num-processes"), "--ranks"
    ),
    **dict.fromkeys(("gradient-accumulation-steps", "gradient-accumulation", "grad-accum", "accum", "ga"), "--accumulation"),
    "accumulate-grad-batches": "--from lightning --accumulation",
    **dict.fromkeys(("clip", "max-grad-norm", "grad-clip", "clip-grad-norm", "clip-grad", "max-norm"), "--clip-norm"),
    **dict.fromkeys(("gradient-clip-val", "gradient-clipping", "clipnorm", "global-clipnorm"), "--clip-norm"),
    **dict.fromkeys(("clip-grad-value", "clipvalue"), "--clip-value"),
    **dict.fromkeys(("wd", "decay"), "--weight-decay"),
    **dict.fromkeys(("beta1", "beta2", "adam-beta1", "adam-beta2", "beta"), "Give both betas of Adam: --betas 0.9 0.999."),
    **dict.fromkeys(("epsilon", "adam-epsilon"), "--eps"),
    **dict.fromkeys(("learning-rate", "base-lr"), "--lr"),
    **dict.fromkeys(("opt", "optim"), "--optimizer"),
    **dict.fromkeys(("framework", "library", "strategy", "trainer"), "--from"),
    **dict.fromkeys(("init-scale", "initial-scale", "scale", "grad-scale"), "--loss-scale"),
    **dict.fromkeys(("batch-tokens", "tokens-per-batch", "max-tokens", "num-tokens"), "--tokens"),
    **dict.fromkeys(("outputs", "seq-len", "sequence-length", "max-seq-length"), "--terms"),
    **dict.fromkeys(("b-c", "bc", "b-noise", "noise-scale", "critical-batch-size"), "--b-crit"),
    "from": "Leave it out: --from holds before and after. What differs afterwards: --to-batch-size, --to-divided, --to-ranks.",
    **dict.fromkeys(("num-items-in-batch", "average-tokens-across-devices"), "--from hf"),
    **dict.fromkeys(
        ("fp16", "amp", "bf16", "mixed-precision", "precision", "grad-scaler", "gradscaler"),
        "Leave it out: mixed precision divides its loss scale out before the step, so c stays. The scale: --loss-scale 65536.",
    ),
    **dict.fromkeys(
        ("nesterov", "dampening"), "Leave it out: Nesterov's momentum and dampening change nothing. Their beta: --momentum 0.9."
    ),
    **dict.fromkeys(
        ("label-smoothing", "dropout"),
        "Leave it out: it is part of each example's loss, so c and lr stay.",
    ),
    **dict.fromkeys(
        ("ema", "ema-decay", "alpha", "rho", "smoothing"),
        "Leave it out: a decay of an average goes to the power B'/B, as betas do, so that it remembers the same examples.",
    ),
    **dict.fromkeys(
        ("steps", "max-steps", "warmup-steps", "warmup", "num-warmup-steps", "scheduler", "schedule", "epochs"),
        "Leave it out: a schedule keeps its share of the examples, so its steps are divided by B'/B, and lr is its peak.",
    ),
}
"""What to say of options that other programs have: the options of this one, or a sentence."""
MEANT_VALUES = {
    **dict.fromkeys(("transformers", "huggingface", "trainer", "trl", "peft"), "--from hf"),
    **dict.fromkeys(("pl", "pytorch-lightning", "pytorch_lightning", "fabric"), "--from lightning"),
    **dict.fromkeys(("tensorflow", "tf"), "--from keras"),
    **dict.fromkeys(("zero", "zero1", "zero2", "zero3"), "--from deepspeed"),
    **dict.fromkeys(("fsdp1", "fsdp2", "fully_shard"), "--from fsdp"),
    **dict.fromkeys(("d2l", "book"), "--reduction sum_over_nominal"),
    **dict.fromkeys(("avg", "average", "batchmean"), "--reduction mean"),
    **dict.fromkeys(("torch", "pytorch"), "--from ddp"),
    **dict.fromkeys(("sgdm", "nesterov", "heavyball", "momentum"), "--optimizer sgd --momentum 0.9"),
    **dict.fromkeys(("fusedadam", "adam8bit", "adamw8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), "--optimizer adamw"),
}
"""The options that stand for values which users type, in lower case."""
ASSUMED = {"reduction": "{} reduction", "size": "B = {}", "accumulation": "{} micro-batch", "ranks": "{} rank"}
"""What is assumed where an option is not given."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog, parser.allow_abbrev = TRANSLATE, TRANSLATE_EXAMPLES, False
    parser.formatter_class, parser.usage = argparse.RawDescriptionHelpFormatter, "lrscale translate --lr LR [options]"
    parser.add_argument("--lr", type=float, help="the tuned learning rate")
    parser.add_argument("--optimizer", default="sgd", help="a name of torch.optim, or lion, signsgd, lars, lamb (default: sgd)")
    for knob, text in KNOB_HELP.items():
        parser.add_argument(f"--{knob.replace('_', '-')}", type=float, metavar="X", help=text)
    parser.add_argument("--betas", type=float, nargs=2, metavar=("BETA1", "BETA2"), help="betas of Adam-like optimizers")
    parser.add_argument("--b-crit", type=float, metavar="B", help="turn-over batch size, if it is known")
    parser.add_argument("--model", help="network or least_squares: whose studies are quoted where B changes (default: network)")
    parser.add_argument(
        "--from",
        dest="library",
        metavar="LIBRARY",
        help="take the habits of a library, before and after. " + "; ".join(f"{n}: {h.about}" for n, h in HABITS.items()),
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
            f"--{prefix}tokens",
            type=int,
            metavar="N",
            help="in place of a batch size: all tokens whose losses count in one update",
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
    from lrscale.law.evidence import MODELS
    from lrscale.law.homogeneity import RESPONSES
    from lrscale.law.translation import Batch
    from lrscale.report.translation import print_translation

    if options.lr is None:
        raise Refusal("`lr` is missing. Give the lr that was tuned, as in --lr 0.1; --lr 1 gives the factor.")
    _choose("from", options.library, HABITS)
    _choose("optimizer", options.optimizer.lower(), RESPONSES)
    _choose("model", options.model, MODELS)
    source, target, assumed = _batches(vars(options))
    if options.model is None and target["size"] != source["size"]:
        assumed.append("a network")
    knobs = {name: value for name in KNOB_HELP if (value := getattr(options, name)) is not None}
    if options.betas is not None:
        knobs |= {"beta1": options.betas[0], "beta2": options.betas[1]}
    _check_options(options.optimizer.lower(), knobs)
    before, after = Batch(**source), Batch(**target)
    grows = after.size != before.size  # what a change of the batch size or of c must change, whether it was given or not
    must_change = {"eps": grows or after.c != before.c, "weight_decay": grows and options.decoupled is None}
    defaults = default_knobs(options.optimizer.lower(), options.library)
    added = {name: value for name, value in defaults.items() if must_change.get(name, grows) and name not in knobs}
    knobs |= added
    if added:
        texts = ", ".join(f"{name} = {value:g}" for name, value in added.items())
        assumed.append(f"the default{'s' if len(added) > 1 else ''} {texts}")
    print_translation(
        options.optimizer,
        options.lr,
        before,
        after,
        knobs,
        options.decoupled,
        options.format,
        options.b_crit,
        assumed,
        options.model or "network",
        counts_tokens=options.tokens is not None,
    )


def _check_options(optimizer: str, knobs: Iterable[str]) -> None:
    """Raises Refusal where an optimizer does not have an option that was given."""
    from lrscale.law.homogeneity import HAS_BETAS, HAS_MOMENTUM, HAS_NO_EPS, RESPONSES

    known = {"momentum": HAS_MOMENTUM, "beta1": HAS_BETAS, "eps": [name for name in RESPONSES if name not in HAS_NO_EPS]}
    for knob, having in known.items():
        if knob in knobs and optimizer not in having:
            option = "betas" if knob == "beta1" else knob
            raise Refusal(
                f"`--{option}` is no option of the optimizer {optimizer}. It is one of {', '.join(having)}. "
                "Leave it out, or take another --optimizer."
            )


def _choose(option: str, value: str | None, known: Iterable[str]) -> None:
    """Raises Refusal unless a value is one of the known names, or None; it says which option the user may mean."""
    if value is None or value in known:
        return
    near = get_close_matches(value, known, 1, 0.5)
    meant = MEANT_VALUES.get(value.lower()) or (f"--{option} {near[0]}" if near else "")
    meant = meant.replace("--reduction", f"--{option}") if option == "to-reduction" else meant
    way_out = f"Did you mean {meant}?" if meant else "See lrscale translate --help."
    raise Refusal(f"`{option}` must be one of {', '.join(known)}, got {shown(value)}. {way_out}")


def _batches(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Returns the batch before and after, as arguments of `Batch`, and what was assumed, in words."""
    from lrscale.law.translation import KINDS

    library = values["library"]
    counted = {"size": values["batch_size"], "to_size": values["to_batch_size"]}
    has_tokens = [values["tokens"], values["to_tokens"]] != [None, None]
    if has_tokens:
        if set(counted.values()) != {None} or values["tokens"] is None:
            raise Refusal(
                "`tokens` must be given instead of batch_size, before and after. Take --tokens 524288 --to-tokens 2097152, or "
                "--batch-size in sequences, with --terms tokens a sequence under sum."
            )
        counted = {"size": values["tokens"], "to_size": values["to_tokens"]}
    values = values | counted
    for name in ("reduction", "to_reduction"):
        _choose(name.replace("_", "-"), values[name], KINDS)
    source = {name: default if values[name] is None else values[name] for name, default in BATCH.items()}
    assumed = [text.format(BATCH[name]) for name, text in ASSUMED.items() if values[name] is None]
    target = {name: source[name] if values[f"to_{name}"] is None else values[f"to_{name}"] for name in BATCH}
    if has_tokens:
        assumed.append("B counts tokens")
    if max(source["accumulation"], target["accumulation"]) > 1 and values["divided"] is values["to_divided"] is library is None:
        assumed.append("the losses of micro-batches are added and not divided")
    if library:
        habit = HABITS[library]
        if habit.adds_up_sums:  # a mean is over all ranks and a sum adds them up, as in one process
            for batch in (source, target):
                check("ranks", integer(1), batch["ranks"])
                batch["ranks"] = 1
        source["divided"] = habit.divides if values["divided"] is None else values["divided"]
        target["divided"] = source["divided"] if values["to_divided"] is None else values["to_divided"]
        for batch in (source, target):
            if not has_tokens:  # tokens are those of the whole update
                batch["size"] *= max(batch["accumulation"], 1) * (max(batch["ranks"], 1) if habit.is_per_rank else 1)
        assumed.append(habit.about)
    return source, target, assumed


COMMAND = Command(8, "translate a tuned lr and its knobs to another reduction or batch size", _add, _run, hints=MEANT)
