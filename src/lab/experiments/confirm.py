"""Whether a search has found anything: its best and the recipe as it was, trained again and compared in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.config.overrides import command_line
from lab.display.figures import ranking
from lab.display.labels import name_values, short
from lab.display.terminal import print_table
from lab.evaluation.significance import CONFIDENCE, Estimate, holm, holm_levels
from lab.experiments.jobs import Job, identify, is_current, launch, make_launcher
from lab.experiments.pairs import estimate_lead
from lab.experiments.trials import Plan, Trial, ranked
from lab.files import write_csv, write_json

BEST = 3  # trials that are trained again
RECIPE = "the recipe"
VERDICT = ("verdict.json", "confirmed.csv", "confirmed.png")


@dataclass
class Contender:
    """What is trained again, the recipe or a trial's values: a job for each seed or fold."""

    name: str
    overrides: list[str]  # empty for the recipe
    jobs: list[Job]
    searched: float | None = None  # its score in the search, in %
    lead: Estimate | None = None  # over the recipe, a fraction; its interval is corrected as `p` is
    p: float = 1.0  # of the lead, by Holm for all contenders

    def scores(self, metric: str, part: str = "validation") -> dict[str, float]:
        """In %, by seed or fold."""
        return {again: job.result()[part]["last"][metric] * 100 for again, job in self.finished().items()}

    def finished(self) -> dict[str, Job]:
        """By seed or fold."""
        return {again: job for job in self.jobs for again in job.values.values() if job.result()}

    def mean(self, metric: str, part: str = "validation") -> float:
        return mean(self.scores(metric, part).values())


def confirm(
    trials: Sequence[Trial], plan: Plan, seeds: int, config: DictConfig, context: HydraContext, folder: Path
) -> int:
    """Train the best trials and the recipe with the same fresh `seeds`, or on the folds that the search did not use.

    Print the verdict, leave confirmed.csv, verdict.json and a picture. Give the number of jobs that failed.
    """
    best = ranked(trials, plan)[:BEST]
    if not best:
        print("No verdict: no trial ran to its end.")
        return 0
    again, ratio = _list_repetitions(seeds, config)
    recipe = Contender(RECIPE, [], _list_jobs("recipe", plan.fixed, again, folder))
    others = []
    for trial, score in best:
        values = trial.proposal()
        overrides = [f"{key}={value}" for key, value in values.items()]
        jobs = _list_jobs(trial.folder.name, [*plan.fixed, *overrides], again, folder)
        others.append(Contender(name_values(values), overrides, jobs, score * 100))
    identify([job for one in (recipe, *others) for job in one.jobs], config, context, folder)
    known = {job.digest for job in recipe.jobs}  # a trial may have the recipe's own values
    contenders = [recipe, *(one for one in others if one.jobs[0].digest not in known)]
    jobs = [job for one in contenders for job in one.jobs]
    todo = [job for job in jobs if not is_current(job)]
    (kind,) = jobs[0].values
    print(f"Is it chance? The best {len(contenders) - 1} and the recipe again, {len(again)} fresh {kind}s each:")
    print(f"{len(jobs)} jobs, {len(todo)} to run")
    launch(todo, make_launcher(config, context), rerun=True)
    metric = plan.metric.removeprefix("val_")
    _compare(contenders, metric, ratio)
    _show(contenders, metric, kind, len(trials), plan.fixed, folder)
    return sum(job.result() is None for job in jobs)


def _list_repetitions(seeds: int, config: DictConfig) -> tuple[list[str], float]:
    """The override of each repetition, a seed or a fold; and how many images are held out for each trained on."""
    if (config.data.folds or 0) > 2:
        folds = [fold for fold in range(config.data.folds) if fold != config.data.fold]
        return [f"data.fold={fold}" for fold in folds], 1 / (config.data.folds - 1)
    return [f"seed={(config.seed + number) % 2**32}" for number in range(1, seeds + 1)], 0.0


def _list_jobs(name: str, overrides: Sequence[str], again: Sequence[str], folder: Path) -> list[Job]:
    """A job for each override in `again`, which replaces the search's own of that key."""
    jobs = []
    for word in again:
        key, _, value = word.partition("=")
        kept = [override for override in overrides if not override.startswith(f"{key}=")]
        jobs.append(Job([*kept, word], {short(key): value}, folder / f"confirm_{name}_{short(key)}{value}"))
    return jobs


def _compare(contenders: Sequence[Contender], metric: str, ratio: float) -> None:
    """Set each one's lead over the recipe, in pairs of the same seed or fold; p and intervals are Holm's."""
    recipe, compared = contenders[0].finished(), {}
    for number, one in enumerate(contenders[1:], 1):
        pairs = [(job, recipe[again]) for again, job in one.finished().items() if again in recipe]
        if len(pairs) > 1:
            compared[number] = pairs
    p_values = [estimate_lead(pairs, metric, ratio)[0].p for pairs in compared.values()]
    for (number, pairs), p, level in zip(compared.items(), holm(p_values), holm_levels(p_values), strict=True):
        contenders[number].lead, contenders[number].p = estimate_lead(pairs, metric, ratio, level)[0], p


def _show(
    contenders: Sequence[Contender], metric: str, kind: str, trials: int, fixed: Sequence[str], folder: Path
) -> None:
    """Print the table and the verdict, write the files and the picture."""
    rows = [
        {"setting": one.name, kind: again, metric: score / 100}
        for one in contenders
        for again, score in one.scores(metric).items()
    ]
    write_csv(rows, folder / "confirmed.csv")
    done = [one for one in contenders if one.scores(metric)]
    score = f"validation\n{metric.replace('_', ' ')} %"
    columns = ["setting", f"the search's,\nmaximum of {trials}", f"confirmed\n{score}", "against the recipe"]
    print_table("confirmed", columns, [_line(one, metric) for one in done], spare=[columns[1]])
    sentences, chosen = _judge(contenders, metric, kind, trials)
    told = {
        "sentence": sentences[0],
        "chosen": chosen and chosen.name,
        "settings": [_entry(one, metric) for one in done],
    }
    write_json(told, folder / "verdict.json")
    if done:
        points = {one.name: list(one.scores(metric).values()) for one in done}
        title = f"the best of {trials} trials and the recipe, trained again"
        xlabel = f"validation {metric.replace('_', ' ')} (%), a {kind} each"
        ranking(points, xlabel, title, folder / "confirmed.png")
    print(*sentences, sep="\n")
    if chosen:
        print(f"Train it again: {command_line([*fixed, *chosen.overrides])}")
    print(f"Verdict: {folder}/{', '.join(VERDICT)}")


def _line(one: Contender, metric: str) -> list[str]:
    """Its row in the table."""
    scores, lead = list(one.scores(metric).values()), one.lead
    spread = f" ± {stdev(scores):.2f}" if len(scores) > 1 else ""
    against = "{:+.2f} ({:+.2f} to {:+.2f})".format(*lead.points()) if lead else "-"
    searched = "-" if one.searched is None else f"{one.searched:.2f}"
    return [one.name, searched, f"{mean(scores):.2f}{spread}", against]


def _entry(one: Contender, metric: str) -> dict[str, object]:
    """What verdict.json has of it, in % and points."""
    known = {"name": one.name, "searched": one.searched, "confirmed": one.mean(metric)}
    if lead := one.lead:
        known |= dict(zip(("lead", "low", "high"), lead.points(), strict=True)) | {"corrected_p": one.p}
    return known


def _judge(contenders: Sequence[Contender], metric: str, kind: str, trials: int) -> tuple[list[str], Contender | None]:
    """The verdict in sentences, and what to go on with: the best that beats the recipe, else the recipe."""
    recipe, *others = contenders
    compared = [one for one in others if one.lead]
    if not recipe.scores(metric) or (others and not compared):
        return ["No verdict: too few of these jobs have finished to compare any with the recipe."], None
    better = [one for one in compared if one.p < 1 - CONFIDENCE and one.lead.value > 0]
    chosen = max(better, key=lambda one: one.mean(metric)) if better else recipe
    if better:
        sentences = [f"{chosen.name} beats the recipe by {_tell_lead(chosen, len(compared))}."]
        confirmed = f"{chosen.mean(metric):.2f} % on {len(chosen.scores(metric))} fresh {kind}s"
        confirmed += ", the validation images are those that it was chosen by" if kind == "seed" else ""
        sentences.append(
            f"Its figure: {confirmed}; the search's own, {chosen.searched:.2f} %, is of {trials} the luckiest's."
        )
    elif compared:
        best = compared[0]
        lead = best.searched - recipe.mean(metric)
        # on other folds it would be of other images
        told = f": its lead of {lead:.2f} points was not confirmed" if lead > 0 and kind == "seed" else ""
        sentences = [
            f"The search found nothing better than the recipe{told}. "
            f"{best.name}, on fresh {kind}s: {_tell_lead(best, len(compared))}."
        ]
    else:
        sentences = ["The search found nothing better than the recipe: the recipe is its best."]
    test = chosen.mean(metric, "test")
    return [*sentences, f"On the test part {'it' if better else 'the recipe'} has {test:.2f} %."], chosen


def _tell_lead(one: Contender, pairs: int) -> str:
    """Its lead over the recipe in words."""
    corrected = f", corrected for {pairs} comparisons" if pairs > 1 else ""
    p = "p < 0.0001" if one.p < 1e-4 else f"p = {one.p:.2g}"
    return "{:.2f} points, 95 % interval {:.2f} to {:.2f} ({}{})".format(*one.lead.points(), p, corrected)
