"""The ranking of a sweep's jobs: a table, the winner and whether it is chance, where to look next, a picture."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import ttest_ind

from lab.config.overrides import command_line
from lab.datasets.pitfalls import largest_class
from lab.display.figures import heat_map, ranking, response, spread
from lab.display.labels import label, name_values
from lab.display.language import localise, number, say, translate
from lab.display.terminal import print_notes, print_table, warn
from lab.experiments.jobs import Job, is_of_sample
from lab.experiments.knobs import DRAWS
from lab.experiments.pairs import estimate_lead
from lab.files import write_csv

HEADINGS = {  # of the last epoch's scores
    "val_accuracy": "validation\naccuracy %",
    "val_balanced_accuracy": "validation balanced\naccuracy %",
    "val_macro_f1": "validation\nmacro F1 %",
    "val_loss": "validation\nloss",
    "test_accuracy": "test\naccuracy %",
    "test_balanced_accuracy": "test balanced\naccuracy %",
    "test_macro_f1": "test\nmacro F1 %",
    "test_loss": "test\nloss",
    "seconds": "seconds",
}


@dataclass
class Setting:
    """The finished jobs with the same values but for their DRAWS, seeds and folds, and the scores of each."""

    values: dict[str, str]
    jobs: list[Job]
    scores: list[dict[str, float]]
    failed: int = 0  # jobs

    def mean(self, name: str) -> float:
        return mean(scores[name] for scores in self.scores)

    def spread(self, name: str) -> float:
        """The sample's standard deviation over the jobs."""
        return stdev(scores[name] for scores in self.scores) if len(self.scores) > 1 else math.nan

    def held_out(self) -> float:
        """Images held out for each that was trained on, where its jobs hold out others each; else 0."""
        if not any(key in DRAWS and key != "seed" for key in self.jobs[0].values):
            return 0.0
        images = self.jobs[0].result()["data"]["images"]
        return images["validation"] / images["train"]

    def name(self) -> str:
        """As figures call it: small_pool, learning rate 0.01"""
        told = (
            value if key in ("model", "data") else f"{label(key)} {_tell(value)}" for key, value in self.values.items()
        )
        return ", ".join(told) or say("this recipe")

    def __str__(self) -> str:
        return name_values(self.values) or say("this recipe")


def scores_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The scores of HEADINGS that a result.json has: without a validation part it has fewer."""
    parts = {"val": result["validation"].get("last"), "test": result["test"]["last"]}
    named = {f"{part}_{name}": value for part, row in parts.items() if row for name, value in row.items()}
    return {name: value for name, value in (named | {"seconds": result["seconds"]}).items() if name in HEADINGS}


def rank(jobs: Sequence[Job], swept: Sequence[str], folder: Path, shows_test: bool = False) -> int:
    """Print the table and what follows from it, leave sweep.csv and sweep.png. Give the number of jobs that failed.

    The validation part chooses the winner, and the winner alone is told its test score. All are where the user asks
    (`shows_test`), without a validation part, or where only DRAWS differ.
    """
    results, rows = [(job, job.result()) for job in jobs], []
    finished = [(job, result) for job, result in results if result]
    for job, result in results:
        told = scores_of(result) if result else {"error": job.error() or "has left no result"}
        rows.append(job.values | told | {"folder": job.folder.name})
    write_csv(rows, folder / "sweep.csv")
    metric = f"val_{finished[0][1].get('monitor', 'accuracy')}" if finished else ""
    if settings := group_by_setting(results, metric):
        data, title = finished[0][1]["data"], title_of(finished[0][1], swept)
        shows_test = shows_test or metric not in common(settings) or set(swept) <= set(DRAWS)
        columns, lines = tabulate(settings, metric, shows_test)
        spare = [say("folder"), *(translate(HEADINGS[name]) for name in ("test_loss", "seconds", "val_loss"))]
        print_table(title, columns, lines, spare=spare)
        counts = data.get("class_images", {}).get("validation")  # older versions did not say
        if said := counts and largest_class(counts, data["classes"]):
            print_notes([f"{said} on the validation part"])
        draw(settings, swept, title, metric, folder / "sweep.png")
        warn_of_samples([result for _, result in finished])
    for row in rows:
        if "error" in row:
            print(f"failed: {row['folder']}: {row['error']}")
    if settings:
        print(*conclusion(settings, metric), sep="\n")
        if metric in common(settings):
            best = settings[0].jobs[0]
            model = f"model={best.result()['model']}"  # a preset may have chosen it
            print(f"Train it again: {command_line(best.overrides, model)}")
    print(f"Table: {folder}/sweep.csv" + (f", picture: {folder}/sweep.png" if finished else ""))
    print(f"All curves: tensorboard --logdir {folder}")
    return len(jobs) - len(finished)


def warn_of_samples(results: Sequence[Mapping[str, Any]]) -> None:
    """Of finished jobs."""
    if samples := sum(map(is_of_sample, results)):
        told = f"{samples} of {len(results)} jobs are NOT of the MNIST data set, but of a sample of it"
        warn(f"{told}: with the real files, rerun=true trains them anew.")


def title_of(result: Mapping[str, Any], swept: Sequence[str]) -> str:
    """deep on mnist, without what is `swept`; from the result.json of any job."""
    fixed = [result[key] if key == "model" else result[key]["name"] for key in ("model", "data") if key not in swept]
    return say("{model} on {data}", model=fixed[0], data=fixed[1]) if len(fixed) == 2 else (fixed or [say("sweep")])[0]


def group_by_setting(results: Sequence[tuple[Job, Mapping[str, Any] | None]], metric: str) -> list[Setting]:
    """The settings of which jobs have finished, whatever their DRAWS; the best by `metric` first, then the least loss.

    Those of which a job has failed come last: the mean of what is left is of the lucky ones. Without a validation part
    they keep the order of the command line.
    """
    settings: dict[str, Setting] = {}
    for job, result in results:
        values = {key: value for key, value in job.values.items() if key not in DRAWS}
        setting = settings.setdefault(repr(values), Setting(values, [], []))
        if result is None:
            setting.failed += 1
        else:
            setting.jobs.append(job)
            setting.scores.append(scores_of(result))
    found = [setting for setting in settings.values() if setting.jobs]
    if metric in common(found):
        found.sort(key=lambda setting: (setting.failed > 0, -setting.mean(metric), setting.mean("val_loss")))
    return found


def common(settings: Sequence[Setting]) -> list[str]:
    """The names of the scores that every job has."""
    return [name for name in HEADINGS if all(name in scores for one in settings for scores in one.scores)]


def tabulate(settings: Sequence[Setting], metric: str, shows_test: bool) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each setting: with the number of its runs, of a single one its folder."""
    are_several = any(len(setting.jobs) > 1 for setting in settings)
    told = {metric, "val_accuracy", "val_loss", "seconds"}
    told |= {"test_accuracy", "test_loss", metric.replace("val_", "test_")} if shows_test else set()
    names = [name for name in common(settings) if name in told]
    rows = []
    for setting in settings:
        cells = [*map(_tell, setting.values.values()), *([str(len(setting.jobs))] if are_several else [])]
        for name in names:
            value, spread = setting.mean(name), setting.spread(name)
            if name.endswith(("accuracy", "f1")):
                deviation = "" if math.isnan(spread) else f" ± {number(spread * 100, '.2f')}"
                cells.append(number(value * 100, ".2f") + deviation)
            else:
                cells.append(number(value, ".0f" if name == "seconds" else ".4f"))
        rows.append(cells if are_several else [*cells, setting.jobs[0].folder.name])
    headings = [translate(HEADINGS[name]) for name in names]
    headings = [say("runs"), *headings] if are_several else [*headings, say("folder")]
    return [*map(label, settings[0].values), *headings], rows


def conclusion(settings: Sequence[Setting], metric: str) -> list[str]:
    """Sentences: the winner, whether its lead is chance, which of its values lie at the edge of the grid."""
    if metric not in common(settings):
        return [say("No winner: there is no validation part to choose by, and test images are not for choosing.")]
    best = settings[0]
    test, name = best.mean(metric.replace("val_", "test_")), translate(metric.removeprefix("val_").replace("_", " "))
    told = {"name": name, "best": str(best), "score": best.mean(metric), "test": test}
    lines = [say("Best by validation {name}: {best}, {score:.2%}; on the test part {test:.2%}.", **told)]
    if better := [setting for setting in settings if setting.failed and setting.mean(metric) >= best.mean(metric)]:
        lucky = max(better, key=lambda setting: setting.mean(metric))
        told = {"setting": str(lucky), "failed": lucky.failed, "runs": lucky.failed + len(lucky.jobs)}
        lines.append(say("Of {setting} {failed} of {runs} runs failed: its mean is of the others.", **told))
    if len(settings) > 1:
        lines += _doubt(best, settings[1], metric)
    for key, value in best.values.items():
        beyond = beyond_the_edge([setting.values[key] for setting in settings], value)
        if beyond is not None:
            told = {"key": key, "value": value, "beyond": beyond}
            lines.append(say("{key}={value} lies at the edge of your grid: extend to {beyond}.", **told))
    return lines


def _doubt(best: Setting, second: Setting, metric: str) -> list[str]:
    """A sentence where the gap to the second may be chance, that of the runs or that of the images."""
    gap, is_single = best.mean(metric) - second.mean(metric), len(best.jobs) == len(second.jobs) == 1
    pairs = _pair(best, second)
    lead = estimate_lead(pairs, metric.removeprefix("val_"), best.held_out()) if is_single or len(pairs) > 1 else None
    if lead:
        estimate, images = lead
        gap, within = estimate.value, estimate.value - estimate.low
        told = {"runs": len(pairs), "images": images}
        if is_single:
            source = say("{images:,} images, paired", **told)
        elif images:
            source = say("{runs} runs and {images:,} images, paired", **told)
        else:
            source = say("{runs} runs, paired", **told)
    elif min(len(best.jobs), len(second.jobs)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy's, of scores that are all alike
            welch = ttest_ind(*([scores[metric] for scores in one.scores] for one in (best, second)), equal_var=False)
        within = gap - float(welch.confidence_interval().low)
        source = say("the runs")
    elif metric != "val_accuracy":  # no plain share of the images
        return [say("Single runs do not tell whether its lead is chance: {advice}.", advice=say("add seed=1,2,3"))]
    else:
        images = best.jobs[0].result()["validation"]["last"]["images"]
        shares = [one.mean("val_accuracy") for one in (best, second)]
        within = 1.96 * math.sqrt(sum(share * (1 - share) for share in shares) / images)
        source = say("{images:,} images", images=images)
    if gap > within:
        return []
    advice = say("add seed=1,2,3") if is_single else say("undecided: more seeds would tell")
    told = {"second": str(second), "gap": gap * 100, "source": source, "within": within * 100, "advice": advice}
    return [
        say(
            "{second} is {gap:.2f} points behind, no more than chance makes of {source} (± {within:.2f}): {advice}.",
            **told,
        )
    ]


def _pair(best: Setting, second: Setting) -> list[tuple[Job, Job]]:
    """The jobs of both with the same seed, fold and split."""
    ours, theirs = ({tuple(map(job.values.get, DRAWS)): job for job in one.jobs} for one in (best, second))
    return [(ours[draw], theirs[draw]) for draw in ours if draw in theirs]


def beyond_the_edge(values: Sequence[str], best: str) -> str | None:
    """The value to try next where `best` is the least or the greatest of the grid `values`; None where it is not.

    It lies as far beyond as the neighbour lies within: by ratio on a wide grid, else by difference.
    """
    grid = _numbers(values)
    if grid is None or len(set(grid)) < 2:
        return None
    whole = all(number == int(number) for number in grid)
    grid, edge = sorted(set(grid)), float(best)
    if edge not in (grid[0], grid[-1]) or edge == 0:
        return None
    neighbour = grid[1] if edge == grid[0] else grid[-2]
    if is_logarithmic(grid):
        beyond, digits = edge * edge / neighbour, 1
    else:
        beyond, digits = 2 * edge - neighbour, 2
        beyond = beyond if beyond > 0 or min(grid) < 0 else edge / 2
    if whole:
        return None if round(beyond) in (edge, 0) else str(round(beyond))
    # a rate of dropout, a fraction: nothing from 1 on
    return None if grid[-1] < 1 <= beyond and not is_logarithmic(grid) else f"{beyond:.{digits}g}"


def is_logarithmic(grid: Sequence[float]) -> bool:
    """Whether `grid` wants a logarithmic axis: it is positive and spans a factor of 8 or more."""
    return min(grid) > 0 and max(grid) / min(grid) >= 8


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def _tell(value: str) -> str:
    """A value as a page shows it: 0,01 in French."""
    return localise(value) if _numbers([value]) else value


def draw(settings: Sequence[Setting], swept: Sequence[str], title: str, metric: str, path: Path) -> None:
    """Draw the accuracy: against one number swept, over DRAWS alone, as a heat map of two keys, else as a ranking."""
    metric = metric if metric in common(settings) else "test_accuracy"
    shown = translate(f"{metric.replace('val_', 'validation ').replace('_', ' ')} (%)")
    keys = [key for key in swept if key not in DRAWS] or list(swept)[:1]
    title = say("{title}, by {keys}", title=title, keys=say(" and ").join(map(label, keys)))
    numbers = [_numbers([job.values[key] for setting in settings for job in setting.jobs]) for key in keys]
    if len(keys) == 1 and numbers[0]:
        scores: dict[str, list[float]] = {}
        for setting in settings:
            for job, of_job in zip(setting.jobs, setting.scores, strict=True):
                scores.setdefault(job.values[keys[0]], []).append(of_job[metric] * 100)
        scores = {value: scores[value] for value in sorted(scores, key=float)}
        if keys[0] in DRAWS:
            spread(scores, label(keys[0]), shown, title, path)
        else:
            log = is_logarithmic(numbers[0])
            response({float(value): of for value, of in scores.items()}, label(keys[0]), log, shown, title, path)
    elif len(keys) == 2:
        values = [list(dict.fromkeys(setting.values[key] for setting in settings)) for key in keys]
        rows, columns = (sorted(of, key=float if axis else None) for of, axis in zip(values, numbers, strict=True))
        means = {tuple(setting.values[key] for key in keys): setting.mean(metric) * 100 for setting in settings}
        table = [[means.get((row, column), math.nan) for column in columns] for row in rows]
        told = [(label(key), list(map(_tell, of))) for key, of in zip(keys, (rows, columns), strict=True)]
        best = rows.index(settings[0].values[keys[0]]), columns.index(settings[0].values[keys[1]])
        heat_map(table, *told, shown, title, path, best if metric.startswith("val_") else None)
    else:
        points = {setting.name(): [scores[metric] * 100 for scores in setting.scores] for setting in settings}
        ranking(points, shown, title, path)
