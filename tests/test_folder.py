"""Pictures in folders: found, decoded as on the device, kept, and no group on two sides of a split."""

import os
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import PROJECT, read_csv, read_result, squares
from hydra import compose, initialize_config_dir
from PIL import Image

from lab.config.schema import CONF
from lab.datasets import folder, pictures
from lab.datasets.dataset import make_folds, split
from lab.errors import UserError

sys.path.insert(0, str(PROJECT / "src"))
import predict

SHORT = ("data=folder", "model=small_dense", "model.epochs=1", "hydra.run.dir=run")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a test puts its pictures; they are kept decoded beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "pictures"


def write(path, seed=None, size=(40, 30), mode="RGB", **options):
    """A picture of noise that `seed` tells from others, else its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(abs(hash(str(path))) if seed is None else seed)
    pixels = random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(path, **options)
    return path


def write_classes(place, count=10, classes=("cat", "dog"), part=""):
    for name in classes:
        for number in range(count):
            write(place / part / name / f"{number:02}.png", size=(8, 8))


def write_odd(place, count):
    """Of many sizes, modes, formats and orientations."""
    random = np.random.default_rng(0)
    kinds = [("png", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "I;16")]
    kinds += [("jpg", mode) for mode in ("RGB", "L", "CMYK")]
    kinds += [("gif", "P"), ("bmp", "RGB"), ("webp", "RGBA"), ("tif", "F"), ("tif", "RGB"), ("ppm", "RGB")]
    for number in range(count):
        suffix, mode = kinds[number % len(kinds)]
        width, height = random.integers(1, 200, 2) if number % 9 else random.integers(1, 4, 2)
        picture = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
        picture = picture.resize((width * 3, height * 3)) if suffix == "jpg" else picture
        if mode == "I;16":
            picture = Image.fromarray(random.integers(0, 70000, (height, width)).astype(np.uint16))
        elif mode != "RGBA":
            picture = picture.convert("L").convert(mode) if mode in ("F", "LA", "P") else picture.convert(mode)
        exif = Image.Exif()
        exif[274] = int(random.integers(1, 9))
        options = {"exif": exif} if suffix in ("jpg", "png", "webp") else {}
        if mode == "P" and suffix == "png":
            options["transparency"] = 3
        path = place / ("even", "odd")[number % 2] / f"{number:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)


FITS = [(), ("data.fit=pad", "data.size=48x20"), ("data.fit=stretch", "data.colour=grey")]


@pytest.mark.parametrize("options", [FITS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FITS[1:])])
def test_the_device_makes_the_same_bytes_of_300_odd_pictures(train_here, here, place, tmp_path, options):
    write_odd(place, 300)
    kept = f"data.cache={tmp_path}/kept"
    train_here(*SHORT, *options, f"data.root={place}", kept)
    here("export", "run")
    metadata = predict.read_metadata(str(tmp_path / "run" / "model.ts"))
    assert metadata["classes"] == ["even", "odd"] == read_result(tmp_path / "run")["data"]["classes"]
    (images,) = (np.load(path) for path in (tmp_path / "kept").glob("*.npy"))
    files = sorted(place.glob("*/*"))
    assert len(images) == len(files) == 300
    for pixels, path in zip(images, files, strict=True):
        picture = predict.open_picture(str(path), metadata["input"])
        assert predict.fit(picture, metadata["input"], False)[0].tobytes() == pixels.tobytes(), path


def test_large_jpegs_are_unpacked_small_and_look_the_same(place):
    rows, columns = np.mgrid[0:1200, 0:1600]
    Image.fromarray((np.sin(rows / 90) * np.cos(columns / 70) * 127 + 128).astype(np.uint8)).save(
        place.with_suffix(".jpg")
    )
    size = {"channels": 3, "height": 64, "width": 64, "colour": "RGB", "picture": "photo"}
    made = []
    for each in (size, size | {"fit": "crop"}):
        picture = predict.open_picture(str(place.with_suffix(".jpg")), each)
        made.append((picture.size, np.asarray(predict.fit(picture, each, False)[0], int)))
    assert made[0][0] == (1600, 1200), "models of older versions answer as they did"
    assert made[1][0] == (200, 150) and np.abs(made[0][1] - made[1][1]).max() <= 3


def test_a_picture_is_padded_or_stretched(tmp_path):
    size = {"channels": 3, "height": 20, "width": 30, "colour": "RGB", "picture": "photo"}
    white = Image.new("RGB", (100, 100), "white")
    padded, done = predict.fit(white, size | {"fit": "pad"}, False)
    assert padded.size == (30, 20) and done[-1] == "put on black, 30x20"
    assert (np.asarray(padded)[:, 5:25] == 255).all() and not np.asarray(padded)[:, [0, 4, 25, 29]].any()
    assert (np.asarray(predict.fit(white, size | {"fit": "stretch"}, False)[0]) == 255).all()


def test_parts_of_their_own_are_kept_and_missing_ones_split_off(place, capsys):
    for part, count in (("Train", 40), ("val", 6), ("testing", 2)):
        write_classes(place, count, part=part)
    (place / "__MACOSX").mkdir()
    (place / "Train" / "cat" / "Thumbs.db").write_bytes(b"no picture")
    write(place / "Train" / "cat" / ".hidden.png")
    arrays = folder(place, size=8)
    assert arrays.own_parts == {"train": 80, "validation": 12} and arrays.classes == ["cat", "dog"]
    assert f"Note: {place / 'testing'} is left out" in capsys.readouterr().out
    assert arrays.files[0] == "Train/cat/00.png" and arrays.files[-1] == "val/dog/05.png"
    parts = split(arrays, None, None, 1, True)
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [68, 12, 12]
    assert set(parts["validation"]) == set(range(80, 92))


def test_a_table_names_files_labels_parts_and_groups(place):
    write_classes(place, 4)
    rows = ["file,label,part,group", "dog/01.png,10,,a", "dog/00.png,9,test,", "cat/01.png,9,,a", "cat/00.png,9,train,"]
    (place / "labels.csv").write_text("\n".join(rows), "utf-8-sig")
    arrays = folder(place, table="labels.csv", size=8)
    assert arrays.files == ["dog/01.png", "cat/01.png", "cat/00.png", "dog/00.png"]
    assert arrays.classes == ["9", "10"] and arrays.labels.tolist() == [1, 0, 0, 0]
    assert arrays.own_parts == {"train": 3, "test": 1}
    assert arrays.groups[0] == arrays.groups[1] and len(set(arrays.groups.tolist())) == 3
    for rows, message in (
        ("file,class\na.png,1", "must name the columns file,label"),
        ("file,label\n../a.png,1", "line 2: ../a.png: must be a path in"),
        ("file,label\na.png,1\na.png,2", "line 3: a.png: is listed twice"),
        ("file,label,part\na.png,1,exam", "of parts one of train"),
        ("file,label\n\xff", "not a table in UTF-8"),
        ("file,label\na\0.png,1", r"line 2: a\\x00.png: has characters"),
        ('file,label\ncat/00.png,"a\nb"\ncat/01.png,c', r"class a\\nb has characters"),
    ):
        (place / "labels.csv").write_bytes(rows.encode("latin-1"))
        with pytest.raises(UserError, match=message):
            folder(place, table="labels.csv", size=8)


def test_tables_of_one_folder_are_kept_beside_each_other(place, capsys):
    write_classes(place, 4)
    for name, picture in (("one", 0), ("other", 1)):
        (place / f"{name}.csv").write_text(f"file,label\ncat/0{picture}.png,cat\ndog/0{picture}.png,dog\n")
        folder(place, table=f"{name}.csv", size=8)
    capsys.readouterr()
    folder(place, table="one.csv", size=8)
    assert capsys.readouterr().out == ""


def test_what_is_no_data_set_is_refused_in_a_line(place):
    def told(**options):
        with pytest.raises(UserError) as refused:
            folder(place, size=8, **options)
        return str(refused.value)

    assert "there is no such folder" in told()
    place.mkdir()
    assert "no pictures: each class is a folder in it" in told()
    write_classes(place, 3, ["cat"])
    assert "one class only, cat" in told()
    (place / "dog").mkdir()
    (place / "dog" / "a.heic").touch()
    assert "dog: a class without pictures, there are only .heic" in told()
    shutil.copy(place / "cat" / "00.png", place / "dog" / "b.png")
    twins = "cat/00.png (the same file as b.png of class dog); dog/b.png (the same file as 00.png of class cat)"
    assert twins in told()
    shutil.copy(place / "cat" / "00.png", place / "cat" / "twin.png")
    write(place / "dog" / "c.png")
    arrays = folder(place, size=8, skip_broken=True)
    assert len(arrays.labels) == 3
    with pytest.raises(UserError, match=r"data\.stratify=false draws from all"):
        split(arrays, 0.34, 0.34, 1, True)
    assert "data.group=[: not a regular expression" in told(group="[", skip_broken=True)
    assert "a group that is repeated may search for ever" in told(group="(a+)+$", skip_broken=True)
    assert "is in no file's name, as in 01.png" in told(group="person", skip_broken=True)
    write_classes(place, 3, part="train")
    assert "cat: pictures beside train" in told()


def test_keys_of_pictures_are_checked(refused, tmp_path):
    assert "data.root is missing" in refused(*SHORT, "data.root=null")
    assert "data.size=0" in refused(*SHORT, "data.root=here", "data.size=0")
    assert "data.size=64: is for data=folder" in refused("data=cifar4", "data.size=64")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["data=folder", "model=pretrained", "model.net.name=resnet18", "model.name=n"])
    assert config.data.size == 224
    nowhere = ("data=folder", "data.root=.", "model=pretrained", "model.net.name=resnet18", "model.net.size=null")
    write_classes(tmp_path, 1)
    assert "data.size=None: must be 64 or 96x128" in refused(*nowhere)


def test_broken_files_are_named_or_left_out_and_listed(refused, train_here, place, tmp_path):
    write_classes(place, 50)
    for number in range(12):
        (place / "cat" / f"x{number:02}.jpg").write_bytes(b"no picture")
    (place / "dog" / "07.png").write_bytes((place / "dog" / "07.png").read_bytes()[:90])
    told = refused(*SHORT, f"data.root={place}")
    assert "13 of 112 pictures are broken: cat/x00.jpg (not a picture" in told and "x09.jpg" in told
    assert "x10.jpg" not in told and "data.skip_broken=true" in told
    train_here(*SHORT, f"data.root={place}", "data.skip_broken=true")
    data = read_result(tmp_path / "run")["data"]
    assert data["skipped"] == [*(f"cat/x{number:02}.jpg" for number in range(12)), "dog/07.png"]
    assert sum(data["images"].values()) == 99
    arrays = folder(place, size=64, skip_broken=True)
    wanted = predict.open_picture(str(place / arrays.files[-1])).resize((64, 64), Image.BILINEAR)
    assert arrays.images[-1].tobytes() == wanted.tobytes()


def test_groups_and_equal_pictures_stay_on_one_side(place):
    for number in range(300):
        write(place / ("cat", "dog")[number % 2] / f"person{number // 6}_{number}.png", number, size=(8, 8))
    shutil.copy(place / "cat" / "person0_0.png", place / "cat" / "person49_x.png")
    for number in range(100):
        write(place / "cat" / f"alone_{number}.png", 1000 + number, size=(8, 8))
    arrays = folder(place, size=8, group=r"(person\d+)")
    where = dict(zip(arrays.files, arrays.groups, strict=True))
    assert where["cat/person0_0.png"] == where["dog/person49_295.png"] and len(set(where.values())) == 149
    for stratify in (True, False):
        parts = split(arrays, 0.15, 0.15, 1, stratify)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(401))
        sides = [set(arrays.groups[part]) for part in parts.values()]
        assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
        assert [abs(len(parts[part]) - 60) <= 6 for part in ("validation", "test")] == [True, True]
        folds = make_folds(parts, arrays.labels, 4, 1, stratify, arrays.groups)
        for fold in folds:
            assert not set(arrays.groups[fold["train"]]) & set(arrays.groups[fold["validation"]])
        held = np.sort(np.concatenate([fold["validation"] for fold in folds]))
        np.testing.assert_array_equal(held, np.sort(np.concatenate([parts["train"], parts["validation"]])))


def test_a_part_that_few_groups_leave_empty_or_large_is_told(place, capsys):
    for number in range(60):
        write(place / ("cat", "dog")[number % 2] / f"person{number // 30}_{number}.png", number, size=(8, 8))
    arrays = folder(place, size=8, group=r"(person\d+)")
    with pytest.raises(UserError, match=r"data\.validation=0\.15 gives no image"):
        split(arrays, 0.15, 0.15, 1, True)
    split(arrays, 0, 0.15, 1, True)
    assert "data.test=0.15 gives 50% of the images" in capsys.readouterr().out


def test_a_pattern_that_would_search_for_long_is_refused(place):
    write_classes(place, 2)
    with pytest.raises(UserError, match="searches too long"):
        folder(place, size=8, group=r"\w*\w*\w*\w*\w*!")


def test_pictures_train_to_the_same_bits_as_their_arrays(train_here, place, tmp_path, data_root):
    images, labels = squares(400, 4, 32, 3)
    order = np.argsort(labels, kind="stable")
    np.save(tmp_path / "CIFAR4_X.npy", images[order])
    np.save(tmp_path / "CIFAR4_Y.npy", labels[order])
    for number, image in enumerate(order):
        path = place / ("bird", "cat", "frog", "horse")[labels[image]] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[image]).save(path)
    common = ("model=small_pool", "model.epochs=1", "data.stratify=false")
    train_here(*common, "data=cifar4", f"data.root={tmp_path}", "hydra.run.dir=arrays")
    train_here(*common, "data=folder", f"data.root={place}", "data.size=32", "hydra.run.dir=files")
    states = [torch.load(tmp_path / run / "last.ckpt", weights_only=True)["state_dict"] for run in ("arrays", "files")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pictures_are_decoded_once_and_anew_when_they_change(place, capsys, monkeypatch):
    write_classes(place, 40)
    monkeypatch.chdir(place.parent)
    (place.parent / "random.py").write_text("open('ran', 'w')")  # in the current directory: it is not imported
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(pictures, "FEW_BYTES", 0)  # by other processes
    first = folder(place, size=16)
    assert "80 pictures decoded" in capsys.readouterr().out and not (place.parent / "ran").exists()
    kept = place.parent / "cache" / "lab"
    assert sorted(path.suffix for path in kept.iterdir() if not path.name.startswith(".")) == [".json", ".npy"]
    monkeypatch.setattr(pictures, "FEW_BYTES", 10**9)  # by this one
    second = folder(place, size=16)
    assert capsys.readouterr().out == "" and isinstance(second.images, np.memmap)
    for left_over in (f".{'0' * 16}-{'1' * 16}-{'2' * 16}.npy", f".{'0' * 16}-{'1' * 16}-{'2' * 16}.json"):
        (kept / left_over).write_bytes(b"half written")  # by a killed process
    write(place / "cat" / "00.png", seed=1, size=(9, 9))
    third = folder(place, size=16)
    assert "80 pictures decoded" in capsys.readouterr().out
    np.testing.assert_array_equal(third.images[1:], first.images[1:])
    assert (third.images[0] != first.images[0]).any()
    assert len([path for path in kept.iterdir() if path.name != ".lock"]) == 2, "what it was before has gone"
    (written,) = kept.glob("*.npy")
    content = written.read_bytes()
    written.unlink()  # it is still mapped
    written.write_bytes(content[:-100])
    np.testing.assert_array_equal(folder(place, size=16).images, third.images)


def test_a_cache_that_cannot_be_written_is_one_line(refused, place, tmp_path):
    write_classes(place, 3)
    (tmp_path / "file").touch()
    told = refused(*SHORT, f"data.root={place}", f"data.cache={tmp_path}/file")
    assert "data.cache=FOLDER names another place" in told


def test_evaluation_finds_them_where_they_are_kept_and_lists_any_name_as_text(here, train_here, place, tmp_path):
    write_classes(place, 20, ("=cat", "dog"))
    odd = os.fsencode(place / "dog") + b"/\xff$.png"
    (place / "dog" / "00.png").rename(os.fsdecode(odd))
    train_here(*SHORT, f"data.root={place}", "data.cache=kept", "data.validation=0")
    told = here("evaluate", "run", "--part", "train").out + here("evaluate", "run").out
    assert "decoded" not in told and not (tmp_path / "cache" / "lab").exists()
    rows = read_csv(tmp_path / "run" / "predictions.csv") + read_csv(tmp_path / "run" / "predictions_train.csv")
    assert {row["class"] for row in rows} == {"'=cat", "dog"} and len(rows) == 40
    assert {row["file"] for row in rows} >= {"'=cat/00.png", r"dog/\udcff$.png"}
    shutil.rmtree(tmp_path / "kept")  # a folder may be a stranger's: nothing is written where it says
    assert "decoded" in here("evaluate", "run").out and not (tmp_path / "kept").exists()
    place.rename(tmp_path / "moved")
    with pytest.raises(SystemExit, match=f"{place}: there is no such folder"):
        here("evaluate", "run")


def test_check_data_names_files_and_finds_groups_that_are_divided(here, place, tmp_path):
    for part, number in (("train", 1), ("train", 2), ("test", 2), ("test", 3)):
        for name in ("cat", "dog"):
            for picture in range(6):
                write(place / part / name / f"{name}{number}_{picture}.png", size=(8, 8))
    shutil.copy(place / "train" / "cat" / "cat1_0.png", place / "test" / "cat" / "copy.png")
    root = ("data=folder", f"data.root={place}", "data.size=8", r"data.group='([a-z]+\d)'")
    told = " ".join(here("check_data", *root, "hydra.run.dir=out").out.split())
    assert "The same: train/cat/cat1_0.png and test/cat/copy.png (cat, train; cat, test)" in told
    assert "Groups that lie in several parts: 3" in told and "test: test/dog/dog2_0.png" in told
    pairs = read_csv(tmp_path / "out" / "pairs.csv")
    assert [(row["first_file"], row["second_file"]) for row in pairs] == [("train/cat/cat1_0.png", "test/cat/copy.png")]
