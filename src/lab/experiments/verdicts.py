"""The table of reproduce.py: what its runs measured beside what was published, verdicts, findings; RESULTS.md."""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev, stdev
from typing import Any

from lab.display.figures import published, rungs
from lab.display.markdown import replace_section, table
from lab.display.terminal import print_table
from lab.evaluation.significance import corrected_t, holm, holm_levels
from lab.experiments.keras_beside import SCORES
from lab.experiments.protocol import Comparison, compare_all, tell
from lab.experiments.rows import NOTHING, Row, data_set
from lab.files import atomic_write, write_csv, write_text


def report(rows: Sequence[Row], content: Mapping[str, Any], folder: Path, results: Path | None) -> None:
    """Print and write the table of `rows`, and what `content`, of conf/table/, finds in them; into `results` too."""
    title, picture = content["title"], folder / f"{content['picture']}.png"
    protocol, by_name = content.get("protocol"), {row.name: row for row in rows}
    is_ladder = any("against" in entry for entry in content["rows"].values())
    compared = _compare(by_name, content) if protocol else []
    by_row = {one.row: one for one in compared if one.what == "accuracy"}
    effects = Effects(content, by_name)
    lines = [_rung_line(row, effects) if is_ladder else _row_line(row, by_row.get(row.name)) for row in rows]
    rules = "\n".join(f"- {rule}" for rule in tell(protocol))
    _print(title, lines)
    if drawn := [row for row in rows if row.by_seed()]:
        (rungs if is_ladder else published)(list(map(_shown, drawn)), title, picture)
    write_csv([row.line(job) for row in rows for job in row.jobs], picture.with_suffix(".csv"))
    others = [one for one in compared if one.what != "accuracy" and one.ours]
    more = [_comparison_line(one, content["rows"][one.row]) for one in others]
    parts = [
        "\n".join(_sum_up(compared, content["rows"])) if compared else "",
        f"### The protocol\n\n{rules}\n\n### The rows" if rules else "",
        _about(rows),
        content["head"],
        _as_markdown(lines),
        f"### Losses, last epochs, Keras\n\n{_as_markdown(more)}" if more else "",
        f"![{title}](docs/{picture.name})" if drawn else "",
        *_find(content, by_name, effects),
    ]
    body = "\n\n".join(part for part in parts if part)
    write_text(body.replace("(docs/", "(") + "\n", folder / "table.md")
    for row in rows:
        if row.error():
            print(f"{row.name}: {row.error()}")
    print(f"Table: {folder}/table.md, {picture.with_suffix('.csv').name}" + (f", {picture.name}" if drawn else ""))
    if results and (not drawn or any(map(Row.is_sampled, rows))):
        print(f"{results} stays as it is: nothing has run, or not on the real data")
    elif results:
        _publish(picture, title, body, results)


def _as_markdown(lines: Sequence[Mapping[str, str]]) -> str:
    return table(list(lines[0]), [list(line.values()) for line in lines])


def _publish(picture: Path, title: str, body: str, results: Path) -> None:
    """Put the section into `results`, RESULTS.md; the picture and the tables of its runs into docs/ beside it."""
    (results.parent / "docs").mkdir(exist_ok=True)
    for path in (picture, picture.with_suffix(".csv"), *picture.parent.glob(SCORES)):
        with atomic_write(results.parent / "docs" / path.name) as beside:
            shutil.copyfile(path, beside)
    replace_section(results, title, body)
    print(f"Results: {results}")


def _print(title: str, lines: Sequence[Mapping[str, str]]) -> None:
    """Print what fits into 80 columns: table.md has the rest."""
    ends = {"published": " ±", "difference": " (", "verdict": ";"}
    shown = [name for name in lines[0] if name not in ("parameters", "seeds", "seconds", "against")]
    print_table(title, shown, [[line[name].partition(ends.get(name, "\n"))[0] for name in shown] for line in lines])


def _compare(rows: Mapping[str, Row], content: Mapping[str, Any]) -> list[Comparison]:
    """All comparisons of the table, also of rows that were not asked for: these have not yet run."""
    protocol, measured = content["protocol"], {}
    for name, entry in content["rows"].items():
        figures = rows[name].figures() if name in rows else NOTHING
        measured[name] = figures | {"set": data_set(entry)}
    return compare_all(measured, content["rows"], protocol)


def _sum_up(compared: Sequence[Comparison], entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Five lines that count the verdicts: what a teacher asks first."""
    words = [one.verdict() for one in compared if one.what == "accuracy"]
    count = {word: words.count(word) for word in ("equivalent", "different", "undecided", "not yet run")}
    others = [one.verdict() for one in compared if one.what != "accuracy"]
    more = ", ".join(f"{others.count(word)} {word}" for word in count)
    equivalent = [entries[one.row] for one in compared if one.what == "accuracy" and one.verdict() == "equivalent"]
    dead, dependent = (sum(key in entry for entry in equivalent) for key in ("dead", "continues"))
    return [
        f"- **{count['equivalent']} equivalent**, of {len(words)} published accuracies: shown, at 5 % risk each, to be "
        f"within a margin of ours that was written down before; {dead} of them of a network that never learned, "
        f"{dependent} not independent of another row.",
        f"- **{count['different']} different**: by more than chance makes, and not shown to lie within the margin.",
        f"- **{count['undecided']} undecided**: too few runs, or a published figure that is itself one lucky or "
        "unlucky run, to say either.",
        f"- **{count['not yet run']} not yet run** as often as the protocol asks for, and without a verdict; the same "
        "command goes on with them. While there are any, the others are provisional, as all rows tell of the spread.",
        f"- The labs' losses, last epochs and Keras beside us, judged the same way: {more}.",
    ]


def _row_line(row: Row, compared: Comparison | None) -> dict[str, str]:
    """A row's line in the table, beside what was published."""
    figure, difference, verdict = "-", "-", row.state()
    if row.published is not None:
        figure = f"{row.published:.2f}" + (f" ± {pstdev(row.folds):.2f}" if row.folds else "")
    if compared and compared.ours:
        difference, verdict = _interval(compared), _verdict(compared, row.entry)
    return {
        "row": row.name,
        "network": row.network(),
        "parameters": f"{row.parameters():,}" if row.parameters() else "-",
        "published": figure,
        "measured": row.measured(),
        "seeds": str(len(row.by_seed())),
        "difference": difference,
        "verdict": verdict + (f"; {row.entry['note']}" if "note" in row.entry else ""),
        "seconds": f"{row.seconds():,.0f}",
    }


def _interval(one: Comparison) -> str:
    """The difference and its 90 % interval: in points; of a loss in % of the published loss."""
    numbers = (one.value, *one.interval(0.9))
    if one.what == "loss":
        value, low, high = (f"{100 * math.expm1(number):+z.0f}" for number in numbers)
        return f"{value} % ({low} to {high})"
    value, low, high = (f"{number:+z.2f}" for number in numbers)
    return f"{value} ({low} to {high})"


def _verdict(one: Comparison, entry: Mapping[str, Any]) -> str:
    """The verdict; where it is undecided, with how many seeds would decide it; and the row that it depends on."""
    told = one.verdict()
    if told == "undecided" and math.isnan(one.freedom):
        told += "; nothing is known of its spread"
    elif told == "undecided":
        seeds = one.seeds_to_decide()
        told += f"; {'no number of seeds' if seeds is None else f'{seeds} seeds'} would decide"
    return told + (f"; not independent of {entry['continues']}" if "continues" in entry else "")


def _comparison_line(one: Comparison, entry: Mapping[str, Any]) -> dict[str, str]:
    """The line of a comparison of anything but our test accuracy."""
    theirs = f"{one.published:.4f}" if one.what == "loss" else f"{one.published:.2f}"
    names = {"loss": "test loss", "tail": "validation, last epochs", "Keras": "test accuracy, Keras beside it"}
    return {
        "row": one.row,
        "compared": names[one.what],
        "published": theirs,
        "seeds": str(one.seeds),
        "difference": _interval(one),
        "p, Holm": f"{one.corrected_p:.2g}",
        "verdict": _verdict(one, entry),
    }


def _rung_line(row: Row, effects: "Effects") -> dict[str, str]:
    """A row's line in a ladder, beside the rung, another row, that it stands on."""
    return {
        "network": row.name,
        "parameters": f"{row.parameters():,}" if row.parameters() else "-",
        "accuracy %": row.measured(),
        "seeds": str(len(row.by_seed())),
        "against": row.against or "-",
        "what it buys, points": effects.tell(row.name, row.against) if row.against else "-",
        "seconds": f"{row.seconds():,.0f}",
    }


class Effects:
    """All differences between rows that a table speaks of, by seed and fold; Holm's correction counts those not run."""

    def __init__(self, content: Mapping[str, Any], rows: Mapping[str, Row]) -> None:
        asked = [(name, entry["against"], "") for name, entry in content["rows"].items() if "against" in entry]
        for text in content.get("findings", ()):
            asked += re.findall(r"\{(\S+) minus ([^\s}]+)(?: (loss))?\}", text)
        self.known = {each: _paired(rows.get(each[0]), rows.get(each[1]), each[2]) for each in dict.fromkeys(asked)}
        if "protocol" in content:  # what a row's first seeds show is not what was asked for
            self.known = {each: known if _are_told(rows, *each[:2]) else ([], 0) for each, known in self.known.items()}
        p_values = [corrected_t(*known).p if len(known[0]) > 1 else 1.0 for known in self.known.values()]
        self.corrected = dict(zip(self.known, zip(holm(p_values), holm_levels(p_values), strict=True), strict=True))

    def tell(self, one: str, other: str, what: str = "") -> str:
        """The mean difference in accuracy, or in loss, with its interval, and whether it is more than chance makes."""
        differences, held_out = self.known[one, other, what]
        digits = 4 if what else 2
        if len(differences) < 2:
            return f"{differences[0]:+z.{digits}f} (one pair)" if differences else "-"
        p, level = self.corrected[one, other, what]
        estimate, word = corrected_t(differences, held_out, level), "real" if p < 0.05 else "undecided"
        value, low, high = (f"{number:+z.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
        return f"{value} ({low} to {high}, p = {p:.2g}: {word})"


def _are_told(rows: Mapping[str, Row], *names: str) -> bool:
    return all(name in rows and rows[name].is_told() for name in names)


def _paired(one: Row | None, other: Row | None, what: str) -> tuple[list[float], float]:
    """The differences by seed and fold, and how many images were held out for each that was trained on."""
    ours, theirs = (row.scores(what or "accuracy") if row else {} for row in (one, other))
    folds = len({fold for _, fold in ours})
    return [ours[key] - theirs[key] for key in ours if key in theirs], 1 / (folds - 1) if folds > 1 else 0


def _find(content: Mapping[str, Any], rows: Mapping[str, Row], effects: Effects) -> list[str]:
    """The findings of the table with their figures; those whose rows have not run whole are only counted."""
    findings = content.get("findings", ())
    told = [f"- {finding}" for finding in (_fill(text, rows, effects) for text in findings) if finding]
    if left_out := len(findings) - len(told):
        told.append(f"- Left out, as a row of theirs has not yet run: {left_out} of {len(findings)} findings.")
    return told


def _fill(text: str, rows: Mapping[str, Row], effects: Effects) -> str | None:
    """`text` with {E1}, {E1 range}, {A2 minus A1 loss}, {D10 medical} filled; None where a row has not run whole."""
    asked = [words.split() for words in re.findall(r"\{([^}]+)\}", text)]
    names = {word for words in asked for word in words if word not in ("range", "minus", "medical", "loss")}
    if not _are_told(rows, *names):
        return None
    return re.sub(r"\{([^}]+)\}", lambda match: _tell(rows, effects, *match[1].split()), text)


def _tell(rows: Mapping[str, Row], effects: Effects, name: str, what: str = "mean", *other: str) -> str:
    """What stands for {NAME WHAT OTHER} in a finding."""
    row, seeds = rows[name], rows[name].by_seed()
    if what == "minus":
        return effects.tell(name, *other) + ("" if "loss" in other else " points")
    if what == "range":
        return f"{min(seeds):.2f} to {max(seeds):.2f} %" if len(seeds) > 1 else f"{seeds[0]:.2f} % (one run)"
    if what == "medical":
        return _medical(row)
    return f"{row.measured()} %"


def _medical(row: Row) -> str:
    """AUC and balanced accuracy of two classes, the threshold chosen on the validation part."""
    areas, balances = ([line[key] for line in row.finished()] for key in ("auc", "balanced_accuracy"))
    if len(areas) == 1:
        return f"AUC {areas[0]:.4f}, balanced accuracy {balances[0]:.2%} with one seed"
    return (
        f"AUC {mean(areas):.4f} ± {stdev(areas):.4f}, balanced accuracy "
        f"{mean(balances):.2%} ± {stdev(balances):.2%} over {len(areas)} seeds"
    )


def _shown(row: Row) -> dict[str, Any]:
    """What the figure shows of a row."""
    has_network = row.entry["run"].startswith("model=") and not row.name.startswith(row.network())
    name = f"{row.name} {row.network()}" if has_network else row.name  # a rung has its network's, or its option's
    known = {"name": name, "scores": row.by_seed(), "published": row.published}
    return known | {"parameters": row.parameters(), "seconds": row.seconds()}


def _about(rows: Sequence[Row]) -> str:
    """On which machines and versions the runs were measured."""
    where = dict.fromkeys(line["machine"] for row in rows for line in row.finished())
    if not where:
        return "Nothing was run."
    sampled = any(map(Row.is_sampled, rows))
    warning = " **Some of it on a sample of the data: no measure of any network.**" if sampled else ""
    return f"Seeds from 1 on, one thread a run, {'; or '.join(where)}.{warning}"
