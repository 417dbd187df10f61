"""Whether a search has found anything: its best and the recipe as it was, trained again and compared in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.config.overrides import command_line
from lab.display.figures import ranking
from lab.display.terminal import make_bar, print_table
from lab.evaluation.significance import CONFIDENCE, Estimate, corrected_t, holm, holm_levels
from lab.experiments.jobs import Job, identify, is_of_these_images, launch, make_launcher
from lab.experiments.knobs import name_values
from lab.experiments.ranking import short
from lab.experiments.trials import Plan, Trial, ranked
from lab.files import write_csv, write_json

BEST = 3  # that are trained again
RECIPE = "the recipe"


@dataclass
class Contender:
    """What is trained again: a trial's values or, without any, the recipe; a job for each seed or fold."""

    name: str
    overrides: list[str]
    jobs: list[Job]
    searched: float | None = None  # its score in the search
    lead: Estimate | None = None  # over the recipe
    p: float = 1.0  # of that, corrected

    def scores(self, metric: str, part: str = "validation") -> dict[str, float]:
        """In % by seed or fold."""
        results = {again: job.result() for job in self.jobs for again in job.values.values()}
        return {again: result[part]["last"][metric] * 100 for again, result in results.items() if result}

    def mean(self, metric: str, part: str = "validation") -> float:
        return mean(self.scores(metric, part).values())


def confirm(
    trials: Sequence[Trial], plan: Plan, seeds: int, config: DictConfig, context: HydraContext, folder: Path
) -> int:
    """Train the best three and the recipe on the same fresh `seeds`, or on the folds that the search left alone.

    Print the verdict, leave confirmed.csv, verdict.json and a picture. The number of jobs that failed.
    """
    best = ranked(trials, plan)[:BEST]
    if not best:
        print("No verdict: no trial ran to its end.")
        return 0
    again, ratio = _again(seeds, config)
    settings = [Contender(RECIPE, [], _list_jobs("recipe", plan.fixed, again, folder))]
    for trial, score in best:
        values = trial.told()["values"]
        overrides = [f"{key}={value}" for key, value in values.items()]
        jobs = _list_jobs(trial.folder.name, [*plan.fixed, *overrides], again, folder)
        settings.append(Contender(name_values(values), overrides, jobs, score * 100))
    identify([job for setting in settings for job in setting.jobs], config, context, folder)
    own = {job.digest for job in settings[0].jobs}
    settings = [settings[0], *(one for one in settings[1:] if one.jobs[0].digest not in own)]
    jobs = [job for setting in settings for job in setting.jobs]
    todo = [job for job in jobs if not _has_finished(job)]
    (kind,) = jobs[0].values
    print(f"Is it chance? The best {len(settings) - 1} and the recipe again, {len(again)} fresh {kind}s each:")
    print(f"{len(jobs)} jobs, {len(todo)} to run")
    with make_bar(sum(job.work for job in todo), " epochs") as bar:
        launch(todo, make_launcher(config, context), True, bar)
    metric = plan.metric.removeprefix("val_")
    _compare(settings, metric, ratio)
    _show(settings, metric, kind, len(trials), plan.fixed, folder)
    return sum(job.result() is None for job in jobs)


def _has_finished(job: Job) -> bool:
    result = job.result()
    return result is not None and result["digest"] == job.digest and is_of_these_images(job)


def _again(seeds: int, config: DictConfig) -> tuple[list[str], float]:
    """The override of each repetition, and what of the data is held out for each image that is trained on."""
    if (config.data.folds or 0) > 2:
        folds = [fold for fold in range(config.data.folds) if fold != config.data.fold]
        return [f"data.fold={fold}" for fold in folds], 1 / (config.data.folds - 1)
    return [f"seed={(config.seed + number) % 2**32}" for number in range(1, seeds + 1)], 0.0


def _list_jobs(name: str, overrides: Sequence[str], again: Sequence[str], folder: Path) -> list[Job]:
    """One for each override in `again`, which takes the place of the search's own."""
    jobs = []
    for word in again:
        key, _, value = word.partition("=")
        kept = [override for override in overrides if not override.startswith(f"{key}=")]
        jobs.append(Job([*kept, word], {short(key): value}, folder / f"confirm_{name}_{short(key)}{value}"))
    return jobs


def _compare(settings: Sequence[Contender], metric: str, ratio: float) -> None:
    """Each with the recipe, in pairs of the same seed or fold; p and intervals are Holm's."""
    recipe, pairs = settings[0].scores(metric), {}
    for number, setting in enumerate(settings[1:], 1):
        scores = setting.scores(metric)
        differences = [scores[again] - recipe[again] for again in scores if again in recipe]
        if len(differences) > 1:
            pairs[number] = differences
    p_values = [corrected_t(differences, ratio).p for differences in pairs.values()]
    for (number, differences), p, level in zip(pairs.items(), holm(p_values), holm_levels(p_values), strict=True):
        settings[number].lead, settings[number].p = corrected_t(differences, ratio, level), p


def _show(
    settings: Sequence[Contender], metric: str, kind: str, trials: int, fixed: Sequence[str], folder: Path
) -> None:
    """Table, picture, files, sentences."""
    rows = [
        {"setting": setting.name, kind: again, metric: score / 100}
        for setting in settings
        for again, score in setting.scores(metric).items()
    ]
    write_csv(rows, folder / "confirmed.csv")
    done = [setting for setting in settings if setting.scores(metric)]
    lines = [_line(setting, metric) for setting in done]
    score = f"validation\n{metric.replace('_', ' ')} %"
    columns = ["setting", f"the search's,\nmaximum of {trials}", f"confirmed\n{score}", "against the recipe"]
    print_table("confirmed", columns, lines, spare=[columns[1]])
    sentences, chosen = _judge(done, metric, kind, trials)
    told = {"sentence": sentences[0], "chosen": chosen and chosen.name, "settings": [_entry(s, metric) for s in done]}
    write_json(told, folder / "verdict.json")
    if done:
        shown = f"{score.replace(chr(10), ' ').replace(' %', ' (%)')}, a {kind} each"
        title = f"the best of {trials} trials and the recipe, trained again"
        ranking(
            {setting.name: list(setting.scores(metric).values()) for setting in done},
            shown,
            title,
            folder / "confirmed.png",
        )
    print(*sentences, sep="\n")
    if chosen:
        print(f"Train it again: {command_line([*fixed, *chosen.overrides])}")
    print(f"Verdict: {folder}/verdict.json, confirmed.csv, confirmed.png")


def _line(setting: Contender, metric: str) -> list[str]:
    scores = list(setting.scores(metric).values())
    spread = f" ± {stdev(scores):.2f}" if len(scores) > 1 else ""
    against = (
        f"{setting.lead.value:+.2f} ({setting.lead.low:+.2f} to {setting.lead.high:+.2f})" if setting.lead else "-"
    )
    searched = "-" if setting.searched is None else f"{setting.searched:.2f}"
    return [setting.name, searched, f"{mean(scores):.2f}{spread}", against]


def _entry(setting: Contender, metric: str) -> dict[str, object]:
    """In verdict.json, in points."""
    known = {"name": setting.name, "searched": setting.searched, "confirmed": setting.mean(metric)}
    if setting.lead:
        lead = setting.lead
        known |= {"lead": lead.value, "low": lead.low, "high": lead.high, "corrected_p": setting.p}
    return known


def _judge(settings: Sequence[Contender], metric: str, kind: str, trials: int) -> tuple[list[str], Contender | None]:
    """The verdict, and what to go on with: what beats the recipe, else the recipe."""
    recipe, *others = settings or [None]
    if recipe is None or recipe.name != RECIPE:
        return ["No verdict: the recipe could not be trained again."], None
    compared = [setting for setting in others if setting.lead]
    better = [setting for setting in compared if setting.p < 1 - CONFIDENCE and setting.lead.value > 0]
    chosen = max(better, key=lambda setting: setting.mean(metric)) if better else recipe
    if better:
        sentences = [f"{chosen.name} beats the recipe by {_told(chosen, len(compared))}."]
        confirmed = f"{chosen.mean(metric):.2f} % on {len(chosen.jobs)} fresh {kind}s"
        sentences.append(
            f"Its figure: {confirmed}; the search's own, {chosen.searched:.2f} %, is of {trials} the luckiest's."
        )
    elif compared:
        best = compared[0]
        lead = best.searched - recipe.mean(metric)
        sentences = [
            f"The search found nothing better than the recipe: its lead of {lead:.2f} points was not confirmed. "
            f"{best.name}, on fresh {kind}s: {_told(best, len(compared))}."
        ]
    else:
        sentences = ["The search found nothing better than the recipe: the recipe is its best."]
    test = chosen.mean(metric, "test")
    return [*sentences, f"On the test part {'it' if better else 'the recipe'} has {test:.2f} %."], chosen


def _told(setting: Contender, pairs: int) -> str:
    lead = setting.lead
    corrected = f", corrected for {pairs} comparisons" if pairs > 1 else ""
    p = "p < 0.0001" if setting.p < 1e-4 else f"p = {setting.p:.2g}"
    return f"{lead.value:.2f} points, 95 % interval {lead.low:.2f} to {lead.high:.2f} ({p}{corrected})"
