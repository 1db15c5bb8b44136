"""Studies under real launchers whose workers and heads are killed: submitit on this machine, Slurm, and Ray.

python -m pytest -q -s tests/stress/test_launchers.py      (about 12 minutes on two cores)

Slurm needs Debian's packages slurm-wlm and munge, and root; Ray needs `pip install 'ray>=2.55,<3'` and
`pip install --no-deps hydra-ray-launcher==1.2.2`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.test_workers import killing, lost
from tests.program import TINY, lrscale
from tests.run.test_study import lrs_of
from tests.scripts import command, install, runs
from tests.stress.test_kills import assert_like

PATIENCE_SECONDS = 120.0
SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=300
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs={cpus} RealMemory=8000 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""
"""A Slurm of one controller and two nodes on this machine, without accounting."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(what: Callable[[], object]) -> None:
    """Waits until something is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running Slurm; SLURM_CONF names its configuration."""
    folder = Path(f"/tmp/lrscale-slurm-{os.getpid()}")  # a socket's path must be short
    munge = folder / "munge"
    munge.mkdir(parents=True, mode=0o700)
    folder.chmod(0o755)
    for name in ("state", "spool-node1", "spool-node2"):
        (folder / name).mkdir()
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    files = [f"--{name}={munge / file}" for name, file in (("key-file", "key"), ("socket", "socket"), ("seed-file", "seed"))]
    subprocess.run(
        ["munged", "--force", *files, f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log"], check=True
    )
    ports = dict(zip(("port", "node1", "node2"), free_ports(3), strict=True))
    conf = folder / "slurm.conf"
    conf.write_text(SLURM.format(dir=folder, host=socket.gethostname().split(".")[0], cpus=os.cpu_count(), **ports))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        try:
            subprocess.run(["slurmctld", "-f", str(conf)], check=True)
            for node in ("node1", "node2"):
                subprocess.run(["slurmd", "-f", str(conf), "-N", node], check=True)
            until(lambda: said_by("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"])
            yield folder
        finally:
            subprocess.run(["scancel", "--full", "--user=root"], check=False)
            for name in ("slurmd-node1", "slurmd-node2", "slurmctld", "munged"):
                if (folder / f"{name}.pid").exists():
                    os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Ray of a head and a second node, which started in another folder than the study."""
    folder = tmp_path_factory.mktemp("ray")
    port, *of_workers = free_ports(9)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    start = [str(Path(sys.executable).with_name("ray")), "start", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block"]
    ports = [f"--worker-port-list={','.join(map(str, of_workers[i : i + 4]))}" for i in (0, 4)]
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir=/tmp/lrscale-ray-{os.getpid()}"]
    started = []
    try:
        for more in ([*head, ports[0]], [f"--address=127.0.0.1:{port}", ports[1]]):
            with (folder / "log").open("ab") as log:
                process = subprocess.Popen(
                    [*start, *more], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            started.append(process)
            time.sleep(8)
        status = [start[0], "status", f"--address=127.0.0.1:{port}"]
        until(lambda: "/2.0 CPU" in said_by(*status))
        yield f"127.0.0.1:{port}"
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        shutil.rmtree(f"/tmp/lrscale-ray-{os.getpid()}", ignore_errors=True)


def submitit(kind: str) -> list[str]:
    return [*TINY, f"hydra/launcher={kind}", "hydra.sweeper.n_jobs=2"]


def on_ray(address: str) -> list[str]:
    return [*TINY, "hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address={address}", "hydra.sweeper.n_jobs=2"]


@pytest.mark.parametrize("launcher", ["processes", "slurm", "ray"])
def test_a_worker_that_is_killed(launcher: str, tiny: Path, folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = "" if launcher == "processes" else str(request.getfixturevalue(launcher))
    arguments = on_ray(address) if launcher == "ray" else submitit(launcher)
    worker = "default_worker.py" if launcher == "ray" else "submitit.core._submit"
    said = lrscale(folder, "run", "-m", *arguments, "hydra.sweeper.n_retries=2", **killing(tmp_path, worker))
    assert launcher == "ray" or lost(tmp_path) == 2  # Ray's workers have the environment of their node
    assert_like(folder, tiny)
    assert "sacct" not in said and "lost " not in said


def left(launcher: str, folder: Path) -> list[str]:
    """The jobs of a study that run or wait."""
    if launcher == "slurm":
        return said_by("squeue", "-h", "-o", "%i").split()
    of_study = f"{folder}/studies/.submitit"
    return [line for line in said_by("ps", "-eww", "-o", "pid=,args=").splitlines() if of_study in line]


@pytest.mark.parametrize("launcher", ["processes", "slurm"])
@pytest.mark.parametrize("send", [signal.SIGKILL, signal.SIGINT])
def test_a_head_that_is_killed_leaves_no_job(
    launcher: str, send: signal.Signals, tiny: Path, folder: Path, request: pytest.FixtureRequest
) -> None:
    if launcher == "slurm":
        request.getfixturevalue("slurm")
    command = [sys.executable, "-m", "lrscale", "run", "-m", *submitit(launcher)]
    head = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: left(launcher, folder))
    time.sleep(1.0)
    head.send_signal(send)
    head.wait(PATIENCE_SECONDS)
    before = left(launcher, folder)
    if send == signal.SIGINT:
        until(lambda: not left(launcher, folder))
    lrscale(folder, "run", "-m", *submitit(launcher))
    assert not set(before) & set(left(launcher, folder))
    assert_like(folder, tiny)


@pytest.mark.parametrize("by", ["ray", "lrscale"])
def test_a_task_of_ray_that_is_killed_is_retried_and_recorded_once(by: str, ray: str, tiny: Path, folder: Path) -> None:
    retries = ["hydra.sweeper.n_retries=0"] if by == "ray" else ["+hydra.launcher.ray.remote.max_retries=0"]
    command = [sys.executable, "-m", "lrscale", "run", "-m", *on_ray(ray), *retries]
    kill_a_task_of_ray(command, folder)
    assert_like(folder, tiny)


@pytest.mark.parametrize("by", ["ray", "lrscale"])
def test_a_script_on_ray_whose_task_is_killed_is_recorded_once(by: str, ray: str, folder: Path) -> None:
    install("numbers", folder)
    retries = ["hydra.sweeper.n_retries=0"] if by == "ray" else ["+hydra.launcher.ray.remote.max_retries=0"]
    ways = ["hydra/launcher=ray", f"+hydra.launcher.ray.init.address={ray}", "+hydra.launcher.ray.remote.num_cpus=1"]
    kill_a_task_of_ray(command(*ways, *retries, "seconds=1", "hydra.sweeper.n_jobs=2"), folder)
    assert_recorded_once(folder)


def kill_a_task_of_ray(command: list[str], folder: Path) -> None:
    """Runs a command to its end, and kills the first worker of Ray that runs a task of it, with signal 9."""
    head = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found: list[int] = []

    def at_work() -> bool:
        rows = [line.split(None, 1) for line in said_by("ps", "-eww", "-o", "pid=,args=").splitlines()]
        found.extend(int(pid) for pid, arguments in rows if arguments.startswith("ray::_run_job"))
        return bool(found)

    until(at_work)
    os.kill(found[0], signal.SIGKILL)
    said = head.communicate(timeout=PATIENCE_SECONDS)[0]
    assert head.returncode == 0 and not re.search(r"^lost  |, \d+ crashed", said, re.MULTILINE), said


def assert_recorded_once(folder: Path) -> None:
    """The sweep of the app `numbers` has six trials, each with one run of a job that has ended well."""
    finished = [job for job in runs(folder, "job") if job["status"] == "FINISHED"]
    assert len({job["tags"]["lrscale.job_key"] for job in finished}) == len(finished) == 6
    assert {job["status"] for job in runs(folder, "job")} <= {"FINISHED", "KILLED"}


def test_a_script_in_slurm_goes_on_after_its_head_is_killed(slurm: Path, folder: Path) -> None:
    install("numbers", folder)
    ways = command("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "seconds=3", "hydra.sweeper.n_trials=4")
    head = subprocess.Popen(ways, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: left("slurm", folder))
    time.sleep(2.0)
    head.kill()
    head.wait(PATIENCE_SECONDS)
    before = left("slurm", folder)
    assert before
    said = subprocess.run(command(*ways[3:-1]), cwd=folder, capture_output=True, text=True, check=True, timeout=300).stdout
    assert "6/6 trials" in said and not set(before) & set(left("slurm", folder))
    assert_recorded_once(folder)


def test_ray_gives_the_same_trials(ray: str, tiny: Path, folder: Path) -> None:
    lrscale(folder, "run", "-m", *on_ray(ray))
    assert lrs_of(folder) == lrs_of(tiny)
