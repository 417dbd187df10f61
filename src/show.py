"""What the data looks like, or what a run sees: python src/show.py data=mnist, python src/show.py RUN"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from lab.arguments import Parser, run_parser
from lab.command import run_command
from lab.config import run_folder


def show_data(config: DictConfig) -> None:
    """Show a data set, or what a run sees (show.py RUN [--image N] [--root FOLDER])"""
    from lab.pictures import convolve_and_pool, to_tensorboard  # torch takes seconds
    from lab.plots import counts, gallery
    from lab.run import count_classes, load_data, split_data
    from lab.terminal import print_data

    folder, name = run_folder(), config.data.name
    dataset, classes = load_data(config.data)
    parts = split_data(dataset, config.data)
    height, width, channels = dataset.images.shape[1:]
    by_part = count_classes(dataset, parts, classes)
    print_data(f"{name}: {len(dataset.labels):,} images of {channels}x{height}x{width}", by_part, classes)
    print(f"Pixels: {dataset.images.dtype}, from {dataset.images.min()} to {dataset.images.max()}")
    captions = [f"{classes[label]} (no. {number})" for number, label in enumerate(dataset.labels[:9])]
    steps = convolve_and_pool(dataset.images[0])
    gallery(dataset.images[:9], captions, f"{name}: the first nine images", folder / "images.png", columns=3)
    counts(by_part, classes, f"{name}: images a class", folder / "classes.png")
    gallery(
        list(steps.values()), list(steps), f"{name}: what a layer does to image no. 0", folder / "steps.png", columns=4
    )
    to_tensorboard(folder, ["images", "classes", "steps"])
    print(f"Figures: images.png, classes.png, steps.png in {folder}")


def show_run(folder: Path, image: int, root: Path | None) -> None:
    """The filters of a run's first layer, and what each layer makes of one image, into the run's folder."""
    from lab import UserError
    from lab.folder import read_result
    from lab.pictures import feature_maps, filters, to_tensorboard
    from lab.plots import gallery, maps
    from lab.run import load

    run = load(folder, root=root)
    if not 0 <= image < len(run.dataset.labels):
        raise UserError(f"--image {image}: must be from 0 to {len(run.dataset.labels) - 1}")
    result, figures = read_result(folder), ["feature_maps"]
    score = result.get("test", result.get("held_out"))["last"]["accuracy"]
    title = f"{result['model']} on {result['data']['name']} (accuracy {score:.2%})"
    pixels, label = run.dataset.images[image], run.classes[run.dataset.labels[image]]
    panels = {f"image no. {image}, class {label}": pixels} | feature_maps(run, pixels)
    maps(panels, f"{title}: what its layers make of an image", folder / "feature_maps.png")
    if first := filters(run):
        name, weights = first
        captions = [str(number) for number in range(min(len(weights), 64))]
        gallery(weights[:64], captions, f"{title}: weights of {name}", folder / "filters.png", columns=8)
        figures.append("filters")
    else:
        print("No layer reads the pixels themselves: there are no filters to show.")
    to_tensorboard(folder, figures)
    print(f"Figures: {', '.join(f'{figure}.png' for figure in figures)} in {folder}")


def main() -> None:
    words = sys.argv[1:]
    if all("=" in word or word.startswith("-") for word in words) and not any(Path(word).exists() for word in words):
        run_command(show_data, "show")
        return
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or one fold's")
    parser.add_argument("--image", type=int, default=0, help="number of the image in the data set")
    parser.add_argument("--root", type=Path, help="where the data lies; else where it lay, else $LAB_DATA")
    run_parser(parser, show_run)


if __name__ == "__main__":
    main()
