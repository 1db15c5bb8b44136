"""Questions as engineers ask them, the command that they type, and the first line of the answer: what to set."""

from math import sqrt

import pytest

from lrscale.commands.cli import main
from lrscale.commands.translate import MEANT, MEANT_VALUES


def adam(k: float) -> str:
    """The rest of a first line where the batch of Adam grows k times, and its betas and eps are torch's defaults."""
    return f" beta1={0.9**k:.6g} beta2={0.999**k:.6g} eps={1e-8 / sqrt(k):.6g}"


QUESTIONS: dict[str, tuple[str, str]] = {
    "AdamW at 3e-4 with decay 0.1, and the batch grows from 32 to 256. What now?": (
        "--lr 3e-4 --optimizer adamw --weight-decay 0.1 --batch-size 32 --to-batch-size 256",
        f"lr={3e-4 * sqrt(8):g} weight_decay={0.1 * sqrt(8):g}{adam(8)}",
    ),
    "HF Trainer, 8 per device with 4 accumulation steps. The new GPU takes 32 at once.": (
        "--lr 5e-5 --optimizer adamw --from hf --batch-size 8 --accumulation 4 --to-batch-size 32 --to-accumulation 1",
        "lr=5e-05",
    ),
    "Lightning: accumulate_grad_batches goes from 1 to 4, SGD at 0.1.": (
        "--lr 0.1 --from lightning --batch-size 32 --to-accumulation 4",
        f"lr={0.1 * 4:g}",
    ),
    "I had 8 GPUs with 32 each (DDP or FSDP, both average), and now get 4.": (
        "--lr 0.1 --momentum 0.9 --from hf --batch-size 32 --ranks 8 --to-ranks 4",
        f"lr={0.1 / 2:g} momentum=0.9",
    ),
    "My loss is a sum over 256. I spread the same 256 over 4 ranks of DDP.": (
        "--lr 0.1 --reduction sum --batch-size 256 --to-ranks 4",
        f"lr={0.1 * 4:g}",
    ),
    "I clip gradients at norm 1, and change mean to sum at batch 32.": (
        "--lr 0.1 --clip-norm 1 --batch-size 32 --to-reduction sum",
        f"lr={0.1 / 32:g} clip_norm={32:g}",
    ),
    "Adam with sum in place of mean, batch 64: must I touch anything?": (
        "--lr 1e-3 --optimizer adam --eps 1e-8 --batch-size 64 --to-reduction sum",
        f"lr=0.001 eps={64e-8:g}",
    ),
    "A language model: 16 sequences of 512 tokens, and the loss is now summed over the tokens.": (
        "--lr 0.5 --batch-size 16 --terms 512 --to-reduction sum",
        f"lr={0.5 / (16 * 512):g}",
    ),
    "I forgot to divide the loss by the 8 accumulation steps. Now I divide.": (
        "--lr 0.1 --accumulation 8 --batch-size 256 --to-divided",
        f"lr={0.1 * 8:g}",
    ),
    "AdamW with torch's defaults, the loss becomes a sum over 32.": (
        "--lr 1e-3 --optimizer adamw --to-reduction sum",
        f"lr=0.001 eps={32e-8:g}",
    ),
    "AdamW with torch's decay of 0.01, and the batch grows from 32 to 512.": (
        "--lr 3e-4 --optimizer adamw --batch-size 32 --to-batch-size 512",
        f"lr={3e-4 * 4:g} weight_decay={0.01 * 4:g}{adam(16)}",
    ),
    "HF Trainer's AdamW has no decay unless I give one. From 4 GPUs to 16?": (
        "--lr 5e-5 --optimizer adamw --from hf --batch-size 8 --ranks 4 --to-ranks 16",
        f"lr={5e-5 * 2:g}{adam(4)}",
    ),
    "fp16 with a static loss scale of 65536, clip at 1, and mean becomes sum over 32.": (
        "--lr 0.1 --loss-scale 65536 --clip-norm 1 --to-reduction sum",
        f"lr={0.1 / 32:g} clip_norm=32 loss_scale={65536 // 32}",
    ),
    "fp16 with a loss scale, and more accumulation in DeepSpeed at the same batch in all.": (
        "--lr 1e-3 --optimizer adamw --loss-scale 4096 --from deepspeed --batch-size 16 --accumulation 2 --to-batch-size 8 "
        "--to-accumulation 4",
        "lr=0.001 loss_scale=4096",
    ),
    "DeepSpeed: 8 a GPU, 4 accumulation steps, AdamW with decay 0.1, from 8 GPUs to 32.": (
        "--lr 3e-4 --optimizer adamw --weight-decay 0.1 --from deepspeed --batch-size 8 --accumulation 4 --ranks 8 --to-ranks 32",
        f"lr={3e-4 * 2:g} weight_decay={0.1 * 2:g}{adam(4)}",
    ),
    "FSDP, 8 a GPU on 8 GPUs, and now 4 micro-batches that nobody divides.": (
        "--lr 0.1 --momentum 0.9 --from fsdp --batch-size 8 --ranks 8 --to-accumulation 4",
        "lr=0.1 momentum=0.9",
    ),
    "A summed loss under DDP, from 8 GPUs to 4, the same 256 in all.": (
        "--lr 0.1 --from ddp --reduction sum --batch-size 32 --ranks 8 --to-ranks 4 --to-batch-size 64",
        f"lr={0.1 / 2:g}",
    ),
    "Half a million tokens a batch become two million, AdamW, decay 0.1.": (
        "--lr 3e-4 --optimizer adamw --weight-decay 0.1 --tokens 524288 --to-tokens 2097152",
        f"lr={3e-4 * 2:g} weight_decay={0.1 * 2:g}{adam(4)}",
    ),
    "65536 tokens a batch, and the loss is summed over them.": (
        "--lr 0.5 --tokens 65536 --to-reduction sum",
        f"lr={0.5 / 65536:g}",
    ),
    "My loss is a sum over 64, and I want the mean: momentum and decay?": (
        "--lr 0.001 --momentum 0.9 --weight-decay 0.0064 --reduction sum --batch-size 64 --to-reduction mean",
        f"lr={0.001 * 64:g} momentum=0.9 weight_decay=0.0001",
    ),
    "d2l's sgd divides by the batch size itself: what is its lr under mean?": (
        "--lr 0.03 --reduction sum_over_nominal --batch-size 10 --to-reduction mean",
        "lr=0.03",
    ),
    "Adagrad, and the batch grows from 32 to 128.": (
        "--lr 0.01 --optimizer adagrad --to-batch-size 128",
        "lr=0.01 eps=2.5e-11",
    ),
    "Adam with its betas, and the batch grows from 256 to 512.": (
        "--lr 1e-3 --optimizer adam --betas 0.9 0.999 --batch-size 256 --to-batch-size 512",
        f"lr={1e-3 * sqrt(2):g}{adam(2)}",
    ),
    "SGD with momentum from 32 to 512, and B_c was measured as 480.": (
        "--lr 0.1 --momentum 0.9 --batch-size 32 --to-batch-size 512 --b-crit 480",
        f"lr={0.1 * 16 * 512 / 992:g} momentum=0.9",
    ),
    "I summed the loss of 8 micro-batches of 32 and never divided. Now the mean, divided by 8.": (
        "--lr 0.001 --reduction sum --batch-size 256 --accumulation 8 --to-reduction mean --to-divided",
        f"lr={0.001 * 256:g}",
    ),
    "Accelerate, 8 GPUs with 16 each become 4, Adam.": (
        "--lr 1e-3 --optimizer adam --from accelerate --batch-size 16 --ranks 8 --to-ranks 4",
        f"lr={1e-3 / sqrt(2):g}{adam(0.5)}",
    ),
    "FSDP with AdamW, decay 0.1, betas 0.9 and 0.95, clip at 1, from 8 GPUs to 16.": (
        "--lr 3e-4 --optimizer adamw --weight-decay 0.1 --betas 0.9 0.95 --clip-norm 1 --from fsdp --batch-size 4 --ranks 8 "
        "--to-ranks 16",
        f"lr={3e-4 * sqrt(2):g} weight_decay={0.1 * sqrt(2):g} clip_norm=1 beta1=0.81 beta2={0.95**2:g} eps={1e-8 / sqrt(2):g}",
    ),
    "RMSprop with a large eps of 0.001, and the batch grows from 16 to 64.": (
        "--lr 0.05 --optimizer rmsprop --eps 1e-3 --batch-size 16 --to-batch-size 64",
        "lr=0.1 eps=0.0005",
    ),
    "Mean at 32 becomes a sum at 256, SGD with momentum and decay.": (
        "--lr 0.1 --momentum 0.9 --weight-decay 1e-4 --batch-size 32 --to-batch-size 256 --to-reduction sum",
        f"lr={0.1 / 32:g} momentum=0.9 weight_decay={1e-4 * 256:g}",
    ),
    "LAMB from 256 to 4096, decay 0.01.": (
        "--lr 1e-3 --optimizer lamb --weight-decay 0.01 --batch-size 256 --to-batch-size 4096",
        f"lr={1e-3 * 4:g} weight_decay={0.01 * 4:g} beta1={0.9**16:g} beta2={0.999**16:g}",
    ),
    "Keras with MirroredStrategy on 4 replicas, 256 in all, SUM reduction.": (
        "--lr 0.1 --from keras --batch-size 256 --ranks 4 --to-reduction sum",
        f"lr={0.1 / 256:g}",
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_first_line_is_what_to_set(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, answer = QUESTIONS[question]
    assert main(["translate", *command.split()]) == 0
    assert capsys.readouterr().out.splitlines()[0] == answer


ASKED = {
    "--bs 32": "Did you mean --batch-size 32?",
    "--per_device_train_batch_size 8": "Did you mean --from hf --batch-size 8?",
    "--gradient-accumulation-steps=4": "Did you mean --accumulation 4?",
    "--to-gpus 8": "Did you mean --to-ranks 8?",
    "--max-grad-norm 1": "Did you mean --clip-norm 1?",
    "--wd 0.1": "Did you mean --weight-decay 0.1?",
    "--momentm 0.9": "Did you mean --momentum 0.9?",
    "--beta1 0.9": "Give both betas of Adam: --betas 0.9 0.999.",
    "--label-smoothing 0.1": "Leave it out: it is part of each example's loss",
    "--ema-decay 0.999": "Leave it out: a decay of an average goes to the power B'/B",
    "--fp16": "Leave it out: mixed precision divides its loss scale out",
    "--nesterov": "Leave it out: Nesterov's momentum",
    "--to-warmup-steps 100": "Leave it out: a schedule keeps its share of the examples",
    "--to-from deepspeed": "Leave it out: --from holds before and after",
    "--zzz": "lrscale translate --help lists the options.",
    "--from transformers": "Did you mean --from hf?",
    "--from zero3": "Did you mean --from deepspeed?",
    "--from megatron": "See lrscale translate --help.",
    "--from d2l": "Did you mean --reduction sum_over_nominal?",
    "--to-reduction avg": "Did you mean --to-reduction mean?",
    "--optimizer adamw_torch": "Did you mean --optimizer adamw?",
    "--tokens 4096 --batch-size 32": "`tokens` must be given instead of batch_size",
    "--to-tokens 4096": "`tokens` must be given instead of batch_size",
}


@pytest.mark.parametrize("typed", ASKED)
def test_words_of_other_programs_are_answered_in_one_line(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--lr", "0.1", *typed.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and ASKED[typed] in err


def test_micro_batches_are_said_to_be_added_where_nobody_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for more, is_said in (("", True), (" --divided", False), (" --from hf", False), (" --no-divided", False)):
        assert main(["translate", *f"--lr 0.1 --accumulation 4 --to-reduction sum{more}".split()]) == 0
        assert ("micro-batches are added and not divided" in " ".join(capsys.readouterr().out.split())) == is_said


def test_rmsprops_alpha_follows_as_a_beta(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", *["--lr", "0.1", "--optimizer", "rmsprop", "--batch-size", "16", "--to-batch-size", "64"]]) == 0
    assert "alpha is a beta: it goes to the power B'/B too, as in 0.99^4 = 0.9606" in " ".join(capsys.readouterr().out.split())


def test_every_hint_names_options_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["translate", "--help"])
    known = capsys.readouterr().out
    hints = [hint for hint in (*MEANT.values(), *MEANT_VALUES.values()) if hint.startswith("--")]
    assert all(word in known for hint in hints for word in hint.split() if word.startswith("--"))


def test_other_commands_name_the_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--fromat", "json"]) == 2
    assert "`--fromat` is no argument of lrscale report. Did you mean --format?" in capsys.readouterr().err
