"""Several processes against one: the same examples, shared by the ranks of torch.distributed."""

from typing import NamedTuple

from torch import Tensor

from lrscale.audit.auditing import Auditing
from lrscale.audit.parts import heaviest_last
from lrscale.audit.vectors import along, is_same


class Shared(NamedTuple):
    """What one rank of several measured.

    `equal` is the gradient where each rank has the same examples, and `unlike` where each has others, both [entry]. `share`
    holds the examples of each rank in the second, [rank][example]. `runs` counts the runs of the step.
    """

    equal: Tensor
    unlike: Tensor
    share: list[list[int]]
    runs: int


def measure_share(m: Auditing, rank: int, ranks: int) -> Shared:
    """Measures one rank's part; all ranks call it together.

    Args:
      m: the audit of this rank, which is otherwise empty.
      rank: the number of this process.
      ranks: the number of processes.
    """
    k = m.accumulation or 1
    m.bench.run(m.indices)  # it tells which optimizers take a step, and so what counts as the gradient
    try:
        order = heaviest_last(m)
    except (ValueError, RuntimeError):  # the step does not run one example, in any rank
        order = list(m.indices)
    size = max(1, len(order) // ranks)
    share = [[order[(r * size + i) % len(order)] for i in range(size)] for r in range(ranks)]
    m.bench.forget()  # a run that one rank knows already and another one makes would wait for the first for ever
    equal = m.bench.gradient(*[m.indices[: m.half]] * k)
    m.bench.forget()
    return Shared(equal, m.bench.gradient(*[share[rank]] * k), share, m.bench.runs)


def measure_ranks(m: Auditing, shared: list[Shared]) -> None:
    """Compares what the ranks measured together with one process, in which this is called.

    Args:
      m: the audit of one process.
      shared: what each rank measured, [rank].
    """
    ranks, k = len(shared), m.accumulation or 1
    first = shared[0]
    accuracy = max(m.accuracy, 1e-4)
    if not all(is_same(first.unlike, other.unlike, accuracy) for other in shared[1:]):
        m.say(
            "ranks apart",
            "After their step the ranks have other gradients: nothing is exchanged between them.",
            fix="model = torch.nn.parallel.DistributedDataParallel(model)",
        )
        return
    factor, _ = along(first.equal, m.gradient(*[m.indices[: m.half] * ranks] * k))
    everything = [i for part in first.share for i in part]
    whole = m.gradient(*[everything] * k)
    _, apart = along(first.unlike, whole)
    m.numbers |= {"ranks": ranks, "ranks / one process": factor, "ranks apart from one process": apart}
    numbers = {"factor": factor, "ranks": ranks}
    is_sum = m.numbers.get("reduction") == "sum"
    if m.near(factor, 1):
        pass
    elif m.near(factor, 1 / ranks) and is_sum:
        m.say(
            "ranks averaged",
            f"The loss is summed in each of {ranks} ranks, and their gradients are averaged: c is the number of terms of one "
            f"rank, 1/{ranks} of that of the whole batch.",
            numbers,
            "loss = losses.sum() * world_size / count_over_all_ranks",
        )
    elif m.near(factor, 1 / ranks):
        m.say(
            "ranks averaged twice",
            f"{ranks} ranks give 1/{ranks} of the gradient of one process: it is divided by the number of ranks once too often. "
            "DDP divides by itself.",
            numbers,
            "loss = losses.sum() * world_size / count_over_all_ranks   # DDP averages over ranks",
        )
    elif m.near(factor, ranks):
        m.say(
            "ranks added up",
            f"{ranks} ranks give {ranks} times the gradient of one process: c grows with the number of ranks.",
            numbers,
            "loss.backward()   # without a factor world_size: DDP averages over ranks",
        )
    else:
        m.say("ranks factor", f"{ranks} ranks give {factor:.4g} times the gradient of one process.", numbers)
    if apart > 10 * accuracy and not m.has("coupled loss", "batch norm"):
        m.say(
            "mean of ranks' means",
            f"Each rank divides by the count of its own examples: {apart:.1%} of the gradient is off where the counts differ.",
            {"apart": apart},
            "count = all_reduce(local_count); loss = losses.sum() * world_size / count",
        )
