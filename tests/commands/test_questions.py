"""Ten questions as engineers ask them, the command that they type, and the first line of the answer: what to set."""

from math import sqrt

import pytest

from lrscale.commands.cli import main

QUESTIONS: dict[str, tuple[str, str]] = {
    "AdamW at 3e-4 with decay 0.1, and the batch grows from 32 to 256. What now?": (
        "--lr 3e-4 --optimizer adamw --weight-decay 0.1 --batch-size 32 --to-batch-size 256",
        f"lr={3e-4 * sqrt(8):g} weight_decay={0.1 * sqrt(8):g}",
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
