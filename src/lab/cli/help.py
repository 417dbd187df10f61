"""The text of --help: recipes and data sets with the first line of their files, and the keys of config/schema.py."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from lab.config.schema import CONF, OF_SWEEPS, SCHEMAS, CrossValidate, Train

# keys and choices that config.checks refuses of folds
NOT_FOR_FOLDS = (*OF_SWEEPS, "threads", "tune", "early_stopping", "resume", "plateau", "ddp")

EXAMPLES = """
Examples
  python src/train.py model=deep data=mnist
  python src/train.py model=cnn data=cifar4 model.epochs=20
  python src/train.py -m model=baseline model.optimizer.lr=0.1,0.01,0.001
  python src/train.py +sweep=learning_rate model=baseline
  python src/train.py -m 'model=glob(small_*)' model.epochs=1
  python src/cross_validate.py model=baseline data=mnist
  python src/show.py data=cifar4"""


def help_text(title: str, command: str) -> str:
    """What `command`, which `title` describes, prints for --help."""
    schema, usage, groups, examples = SCHEMAS[command], "[KEY=VALUE ...]", [], ""
    keys = [*_keys(schema)]
    if command in ("show", "check_data"):  # they train nothing
        usage, groups, keys = f"[data=NAME] {usage}", ["data"], [key for key in keys if key[0].startswith("data.")]
    elif issubclass(schema, Train):
        usage, groups = f"[model=NAME] [data=NAME] {usage}", ["model", "data", "schedule", "sweep", "trainer"]
        keys.append(("model.optimizer.lr=0.001", "the learning rate, and any other option of the optimizer"))
        option = "an option of Lightning's Trainer, e.g. trainer.limit_train_batches=10"
        keys.append(("trainer.KEY=VALUE", option))
        examples = EXAMPLES
    hidden = NOT_FOR_FOLDS if schema is CrossValidate else ()
    keys = [key for key in keys if key[0].partition("=")[0] not in hidden]
    keys += [("hydra.run.dir=FOLDER", "the run folder"), ("--cfg job", "print the whole config and stop")]
    lines = [f"{title}: python src/{command}.py {usage}"]
    for group in groups:
        choices = (line for line in _choices(group) if line.split()[0] not in hidden)
        lines += [f"\n{'+' * (group == 'sweep')}{group}=", *choices]
    lines += ["\nOptions", *(f"  {typed:32} {text}" for typed, text in keys)]
    return "\n".join([*lines, *([examples] if examples else [])])


def _choices(group: str) -> Iterator[str]:
    """A line for each file of conf/`group`/."""
    for path in sorted((CONF / group).glob("*.yaml")):
        title = next(line for line in path.read_text().splitlines() if not line.startswith("# @"))
        yield f"  {path.stem:18}{title.removeprefix('# ')}"


def _keys(schema: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """An example and the help of each key that has help."""
    for key in fields(schema):
        if is_dataclass(key.type):
            yield from _keys(key.type, f"{prefix}{key.name}.")
        elif key.metadata.get("help"):
            yield f"{prefix}{key.name}={key.metadata['example']}", key.metadata["help"]
