"""Whoever types a wrong thing gets one line and exit status 2, and nothing has been written."""

import subprocess
import sys
from pathlib import Path

import pytest

from lrscale.commands.cli import main

LR = "optimizer.lr=tag(log,interval(1e-4,1))"
STUDY = ["run", "-m", "batch_size=8,64", "reduction=sum,mean", LR]
BAD: list[tuple[list[str], str]] = [
    (["run", "optimizer.lr=-0.1"], "`optimizer.lr` must be finite and > 0, got -0.1"),
    (["run", "optimizer.lr=0"], "`optimizer.lr`"),
    (["run", "optimizer.lr=nan"], "`optimizer.lr`"),
    (["run", "optimizer.lr=inf"], "`optimizer.lr`"),
    (["run", "optimizer.lr=1e999"], "`optimizer.lr`"),
    (["run", "optimizer.lr=fast"], "`optimizer.lr`"),
    (["run", "optimizer.lr=[0.1,0.2]"], "one number in a single training"),
    (["run", "optimizer.lr=[]"], "`optimizer.lr`"),
    (["run", "optimizer.lr=null"], "`optimizer.lr`"),
    (["run", "batch_size=0"], "`batch_size`"),
    (["run", "batch_size=1.5"], "`batch_size`"),
    (["run", "batch_size=99999999999999999999"], "`batch_size`"),
    (["run", "batch_size=1001"], "1000 training examples"),
    (["run", "reduction=average"], "`reduction`"),
    (["run", "objective=valid_error"], "`objective`"),
    (["run", "seeds=[]"], "`seeds`"),
    (["run", "seeds=-1"], "`seeds`"),
    (["run", "task=cifar"], "task/cifar"),
    (["run", "optimizer=lion"], "optimizer/lion"),
    (["run", "optimizer=adam", "optimizer.foreach=true"], "`optimizer.foreach` is not an option here, got"),
    (["run", "+optimizer.maximize=true"], "The objective is always minimised: leave it out."),
    (["run", "schedule=triangle"], "schedule/triangle"),
    (["run", "schedule=wsd"], "`schedule` wsd needs the length of its decay, got none. Take schedule.decay_fraction=0.2."),
    (["run", "schedule.warmup_steps=301"], "`schedule` constant must fit in the run's 300 steps, got 301 steps of warm-up."),
    (["run", "schedule.warmup_steps=-1"], "`schedule.warmup_steps` must be a whole number"),
    (["run", "schedule.final=0.1"], "schedule.final"),
    ([*STUDY, "schedule=constant,cosine", "probe=gradient_scale"], "measures at a constant lr, got schedule cosine"),
    (["run", "optimizer=lbfgs"], "`optimizer` cannot be lbfgs: it computes the loss several times in a step (a closure)"),
    ([*STUDY, "optimizer=adam,sparse_adam"], "`optimizer` cannot be sparse_adam: it is for sparse gradients"),
    (
        ["run", "optimizer=muon"],
        "`optimizer` muon takes parameters that are matrices only, as torch.optim.Muon does",
    ),
    ([*STUDY, "optimizer=adamw,muon"], "`optimizer` muon takes parameters that are matrices only"),
    (["run", "optimizer=rprop", "optimizer.etas=[1,2]"], "`optimizer.etas` must be two numbers, the first > 0 and < 1"),
    (["run", "optimizer=adafactor", "optimizer.eps=[0.1,null]"], "`optimizer.eps` must be two numbers >= 0"),
    (["run", "optimiser=adam"], "optimiser"),
    (["run", "optimizer.learning_rate=0.1"], "optimizer.learning_rate"),
    (["run", "+optimizer.learning_rate=0.1"], "optimizer.learning_rate"),
    (["run", "+foo=1"], "`foo`"),
    (["run", "+budget.steps=10"], "got epochs and steps"),
    (["run", "budget=target"], "belong together"),
    (["run", "budget.epochs=null"], "got none"),
    (["run", "budget.epochs=-3"], "`budget.epochs`"),
    (["run", "task=fashion_mnist", "task.root=/nowhere"], "apt-get install dataset-fashion-mnist"),
    (["run", "tracking.uri=sqlite:////nowhere/mlflow.db"], "`tracking.uri`"),
    (["run", "tracking.uri=/tmp/mlruns"], "`tracking.uri`"),
    (["run", "tracking.uri=http://127.0.0.1:9"], "`tracking.uri`"),
    (["run", "compute.threads=0"], "`compute.threads`"),
    (["run", "compute.memory_mb=0"], "`compute.memory_mb`"),
    (["run", "compute.device=gpu"], "`compute.device` must be one of auto, cpu, cuda, mps, got 'gpu'"),
    ([*STUDY, "compute.device=cpu,cuda"], "`compute.device` must have one value"),
    (["run", "device=cuda"], "`device` is called compute.device now"),
    (["run", "compute.tf32=true"], "`compute.tf32` true needs compute.device=cuda, got cpu. Leave it out."),
    (["run", "threads=2"], "`threads` is called compute.threads now"),
    (["run", "~threads"], "`threads` is called compute.threads now"),
    ([*STUDY, "hydra.sweeper.direction=minimize"], "The objective is always minimised: leave it out."),
    (["run", "nokey=1"], "Could not override 'nokey': there is no such key."),
    ([*STUDY, "memory_mb=512"], "`memory_mb` is called compute.memory_mb now"),
    ([*STUDY, "compute.threads=1,2"], "`compute.threads` must have one value"),
    (["run", "-m", "bs=8,64"], "`bs` is not known, got bs=8,64. Did you mean batch_size?"),
    (["run", "-m", "lr=tag(log,interval(1e-3,1))"], "Did you mean optimizer.lr?"),
    (["run", "optimizer.lr=0.1,0.2"], "multirun"),
    (["run", "optimizer.lr"], "optimizer.lr"),
    (["run", "optimizer.lr='"], "optimizer.lr"),
    (["run", "-m", "sweeps=nosuch"], "quickstart"),
    (["run", "task=" + 9000 * "a"], "must be a file's name"),
    (["run", "task=" + 10_000 * "a"], "at most 10,000 characters"),
    ([*STUDY, "study.question=" + 1001 * "a"], "`study.question` must be a text of at most 1000"),
    ([*STUDY, "batch_size=8,2000,3000"], "b2000 sum, b2000 mean: `batch_size`"),
    ([*STUDY[:-1], "optimizer.lr=interval(1,1e-4)"], "low < high"),
    ([*STUDY[:-1], "optimizer.lr=tag(log,interval(0,1))"], "`optimizer.lr`"),
    ([*STUDY[:-1], "batch_size=interval(1,10)"], "`batch_size` must be swept over values"),
    ([*STUDY, "reduction=sum,sum"], "values that differ"),
    ([*STUDY, "hydra.sweeper.n_trials=0"], "`hydra.sweeper.n_trials`"),
    ([*STUDY, "hydra.sweeper.n_trials=many"], "`hydra.sweeper.n_trials`"),
    ([*STUDY, "hydra.sweeper.n_jobs=0"], "`hydra.sweeper.n_jobs`"),
    ([*STUDY, "hydra.sweeper.n_retries=-1"], "`hydra.sweeper.n_retries`"),
    ([*STUDY, "hydra.sweeper.job_timeout=0"], "`hydra.sweeper.job_timeout`"),
    ([*STUDY, "hydra.sweeper.direction=maximize"], "hydra.sweeper.direction"),
    ([*STUDY, "+hydra.sweeper.direction=maximize"], "`hydra.sweeper.direction` is not known"),
    ([*STUDY, "hydra.sweeper.max_failure_rate=2"], "`hydra.sweeper.max_failure_rate`"),
    ([*STUDY, "hydra.sweeper.sampler=cmaes"], "`hydra.sweeper.sampler`"),
    ([*STUDY, "+hydra.sweeper.n_rounds=3"], "hydra.sweeper.n_rounds"),
    ([*STUDY, "hydra.sweeper.storage=/nowhere/optuna.journal"], "`hydra.sweeper.storage`"),
    ([*STUDY, "hydra.sweeper.study_name=''"], "`hydra.sweeper.study_name`"),
    ([*STUDY, "tracking.uri=http://127.0.0.1:9"], "`tracking.uri`"),
    ([*STUDY, "study.claims=[{name:x,measure:guess,expected:1}]"], "`study.claims[0].measure`"),
    ([*STUDY, "hydra.sweeper.params=True"], "`hydra.sweeper.params` must be a mapping"),
    ([*STUDY, "study.ranges=[1]"], "`study.ranges` must be a mapping"),
    ([*STUDY, "study.claims=3"], "`study.claims` must be a list"),
    ([*STUDY, "study.question=[a]"], "`study.question` must be a text"),
    ([*STUDY, "batch_size=range(1,1000000)"], "a study must have at most 10000 cells, got more batch_size. Take"),
    ([*STUDY, "batch_size=range(1,200)", "accumulation=range(1,200)"], "got 199 batch_size x 2 reduction x 199 accumulation"),
    ([*STUDY, "batch_size=range(1,101)", "hydra.sweeper.n_trials=100000"], "`hydra.sweeper.n_trials` x cells must be at most"),
    ([*STUDY, "seeds=1000000000"], "`seeds`"),
    ([*STUDY, "task=linear", "task.examples=1000000", "task.features=10000", "data_seeds=own", "seeds=256"], "GiB. Lower"),
    (["run", "task=fashion_mnist_mlp", "task.hidden=10000", "batch_size=60000", "seeds=256"], "60000 examples in a step x 30030"),
    ([*STUDY, "seeds=256", "hydra.sweeper.n_trials=100000"], "points x 100000 trials x 256 seeds, which need"),
    ([*STUDY, "tracking=null"], "Config group"),
    ([*STUDY, "tracking.uri=3"], "`tracking.uri`"),
    ([*STUDY, "study.ranges={small:[3,1]}"], "`study.ranges.small`"),
    (["report"], "`--tracking-uri`"),
    (["report", "quickstart", "--tracking-uri", "sqlite:///other.db"], "`--tracking-uri`"),
    (["report", "--tracking-uri", "mlruns"], "`tracking.uri`"),
    (["ui"], "`--tracking-uri`"),
    (["ui", "--port", "0"], "`--port`"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(a)[:70] for a, _ in BAD])
def test_a_wrong_thing_is_refused(arguments: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.startswith("lrscale: ") and err.count("\n") == 1
    assert out == ""
    assert list(folder.iterdir()) == []


def test_a_single_training_is_refused_before_torch_and_mlflow_are_imported(folder: Path) -> None:
    code = (
        "import sys; from lrscale.commands.cli import main; print(main(['run', 'seeds=0']), {'torch', 'mlflow'} & {*sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert ended.stdout == "2 set()\n" and "`seeds`" in ended.stderr


def test_aliases_that_stand_for_a_billion_values_are_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = [f"  b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]" for i in range(1, 10)]
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "bomb.yaml").write_text("\n".join(["# @package _global_", "study:", "  b0: &b0 [1, 2]", *lists]))
    assert main(["run", "-m", "sweeps=bomb"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "must hold at most 20000 values" in err and err.count("\n") == 1
    assert [file.name for file in folder.iterdir()] == ["sweeps"]


@pytest.mark.parametrize("arguments", [["nosuch"], ["report", "--format", "xml"], ["demo", "--fast"]])
def test_an_unknown_command_or_flag_is_a_usage_error(arguments: list[str], folder: Path) -> None:
    try:
        ended = main(arguments)
    except SystemExit as stopped:  # argparse's own
        ended = stopped.code
    assert ended == 2
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [["run"], STUDY])
def test_a_folder_that_cannot_be_written_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/proc")  # where not even root can make a file
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lrscale: `tracking.uri`") and err.count("\n") == 1
