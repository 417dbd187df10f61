"""The benchmark: stacks measured in turn, in rounds. A round's measurements give ratios, the rounds an interval."""

import itertools
import random
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.display.markdown import table
from lab.display.terminal import make_bar, print_table, warn
from lab.errors import UserError
from lab.evaluation.significance import median_interval
from lab.experiments.measurement import IMAGES, KERAS, NEIGHBOURS, STACKS, TASKS, TUNED_KERAS, WARM, WHOLE, Bench, Job
from lab.files import write_csv, write_json, write_text

LEAST_ROUNDS = 5  # for a claim: the true median lies between the least and the greatest of five with 94 %
MOST_BY_OTHERS = 0.1  # of the machine's time, for it to count as quiet


def benchmark(config: DictConfig, folder: Path) -> None:
    """Measure what `config`, a Benchmark, names; print a table; leave benchmark.csv, .json and .md in `folder`."""
    blocks, rows = _list_blocks(config), []
    total = config.rounds * sum(map(len, blocks))
    with tempfile.TemporaryDirectory() as place, make_bar(total, " measurements") as bar:
        bench = Bench(config, Path(place))
        about = bench.describe({job.stack for block in blocks for job in block})
        for seed, block in itertools.product(range(1, config.rounds + 1), blocks):
            peak = bench.measure_peak(block[0].recipe)  # each time: it drifts on a virtual machine
            order = random.Random(f"{config.seed} {seed} {block[0].name()}")
            for job in order.sample(block, len(block)):
                bar.set_description(f"{job.name()}: {STACKS[job.stack][0]}")
                rows.append({"round": seed, **job._asdict(), **bench.measure(job, seed), **peak})
                write_csv(rows, folder / "benchmark.csv")  # what there is, should the next one fail
                bar.update()
    lines = [line for block in blocks for line in _compare(block, rows)]
    content = {"about": about, "options": OmegaConf.to_container(config), "table": lines, "measured": rows}
    write_json(content, folder / "benchmark.json")
    _report(lines, about, folder)
    if (most := max((row["others"] for row in rows if row["neighbour"] == "quiet"), default=0)) > MOST_BY_OTHERS:
        warn(f"The machine was not quiet: other processes took up to {most:.0%} of it.")


def _list_blocks(config: DictConfig) -> list[list[Job]]:
    """The jobs by task, recipe and neighbour: those of a list are compared with one another. UserError for bad keys."""
    for key, known in (("tasks", TASKS), ("recipes", IMAGES), ("neighbours", NEIGHBOURS), ("stacks", STACKS)):
        if unknown := set(config[key]) - known.keys():
            raise UserError(f"{key}: {min(unknown)} is none of {', '.join(known)}")
        if not config[key]:
            raise UserError(f"{key}=[]: nothing is left to measure")
    stacks = [stack for stack in STACKS if stack in config.stacks]
    if config.keras is None and find_spec("keras") is None and KERAS & set(stacks):
        warn("Keras is not measured: this Python has none. keras=PYTHON names one that has.")
        stacks = [stack for stack in stacks if stack not in KERAS]
    blocks = itertools.product(config.tasks, config.recipes, config.neighbours)
    blocks = [block for block in blocks if block[2] != "late" or block[0] in WARM]  # of the others no epoch is told
    jobs = [[Job(*block, stack) for stack in stacks if stack not in TASKS[block[0]][1]] for block in blocks]
    if not any(jobs):
        raise UserError("nothing is left to measure: none of these stacks has any of these tasks")
    return [block for block in jobs if block]


def _compare(block: Sequence[Job], rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A line of the table for each stack; of Keras tuned with XLA and without only the faster one."""

    def of(job: Job) -> list[dict[str, Any]]:
        return [row for row in rows if job._asdict().items() <= row.items()]

    tuned = [job for job in block if job.stack in TUNED_KERAS]
    tuned.sort(key=lambda job: median(row["rate"] for row in of(job)))
    lines = []
    for job in (job for job in block if job not in tuned[:-1]):
        # the lab is compared with each other stack; beside a neighbour with itself without one
        pair = (job, job._replace(neighbour="quiet")) if job.stack == "lab" else (job._replace(stack="lab"), job)
        pairs = zip(*map(of, pair), strict=False) if pair[0] != pair[1] else []
        lines.append(_line(job, of(job), [ours["rate"] / theirs["rate"] for ours, theirs in pairs]))
    return lines


def _line(job: Job, rows: Sequence[dict[str, Any]], ratios: Sequence[float]) -> dict[str, str]:
    values = [row["seconds"] if job.task in WHOLE else row["rate"] for row in rows]
    form, unit = ("{:.1f}", "s") if job.task in WHOLE else ("{:,.0f}", "images/s")
    least, middle, most = (form.format(each(values)) for each in (min, median, max))
    ratio, verdict = tell_ratio(ratios) if ratios else ("-", "-")
    shares = [row["rate"] * row["gflop"] / row["peak_gflops"] for row in rows]
    return {
        "what": job.name(),
        "stack": STACKS[job.stack][0] + (" (ratio to quiet)" if job.stack == "lab" and ratios else ""),
        "median": f"{middle} {unit}",
        "least to most": f"{least} to {most}",
        "speed, lab / it": ratio,
        "the lab is": verdict,
        "peak memory": f"{median(row['memory_mb'] for row in rows):,.0f} MB",
        "of the processor's peak": f"{median(shares):.0%}" if job.task == "training" else "-",
    }


def tell_ratio(ratios: Sequence[float]) -> tuple[str, str]:
    """The median of the rounds' ratios with its interval, and what that shows: nothing where the interval holds 1."""
    value, low, high = (round(figure, 2) for figure in median_interval(ratios))  # as it is told
    shows = "faster" if low > 1 else "slower" if high < 1 else "no difference shown"
    return f"{value:.2f} ({low:.2f} to {high:.2f})", shows if len(ratios) >= LEAST_ROUNDS else "too few rounds"


def _report(lines: Sequence[dict[str, str]], about: dict[str, Any], folder: Path) -> None:
    said = ", ".join(f"{name} {value}" for name, value in about.items())
    write_text(f"{said}\n\n{table(list(lines[0]), [[*line.values()] for line in lines])}\n", folder / "benchmark.md")
    short = ["stack", "median", "speed, lab / it", "the lab is"]
    for what, group in itertools.groupby(lines, lambda line: line["what"]):
        print_table(what, short, [[line[name] for name in short] for line in group])
    print(f"Tables: {folder}/benchmark.md")
