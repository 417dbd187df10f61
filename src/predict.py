#!/usr/bin/env python3
"""Class probabilities of pictures, from an exported model alone.

This file and the model are all that a device needs, beside Python 3.6 or newer, Pillow 8 or newer and one runtime:
onnxruntime 1.6 or newer for model.onnx, torch 1.7 or newer for model.ts, TensorRT 8.2 to 10 for model.engine.
"""

import argparse
import base64
import contextlib
import csv
import ctypes
import functools
import glob
import hashlib
import io
import json
import math
import mmap
import os
import platform
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
import zlib
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

FORMAT = 1  # the newest that this file reads
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # no format that runs programs
MOST_PIXELS = 50 * 1000 * 1000  # a larger picture is refused before it is unpacked
MOST_SERVED_PIXELS = 16 * 1000 * 1000
MOST_SIDE = 65535  # pixels, a JPEG's own limit
MOST_READS = 20 * 1000  # that Pillow may need for a picture, and one more a KB: comments, chunks, tags
MOST_SCANS = 32  # of a JPEG, each of which is all its pixels anew; progressive ones have about 10
SLOWNESS = 100  # of a pixel that Python unpacks, beside one that C does
LARGE = 1000 * 1000  # pixels; two such pictures at a time are unpacked, smaller ones pass by
MOST_BYTES = 20 * 1000 * 1000  # of a body
MOST_HEADERS = 64 * 1024  # bytes
MOST_FIELDS = 100  # of a form
MOST_WAITING_BYTES = 256 * 1000 * 1000  # of all requests that are not whole yet
MOST_CONNECTIONS = 128
PATIENCE = 30  # seconds, for all of a request
# most pixels of a side: of a digit's picture, and of those in which its ink, the pieces of that, the paper are found
DIGIT_SIDE, INK_SIDE, BLOB_SIDE, PAPER_SIDE = 1024, 256, 96, 64
DOUBTFUL = "doubtful: "
NO_DIGIT, DIGITS = "no digit stands out", "more than one digit"
FAINTEST = 40  # grey levels between paper and ink: less is none
WIDEST = 20  # pixels of PAPER_SIDE: a stroke's width
SHORTEST = 0.12  # of the picture's longer side: a digit's height or width
DUST = 0.06  # of the heaviest piece of ink: less is none
MOST_PIECES = 3  # times the heaviest one: noise has more
UNEVEN = 40  # grey levels between the edge's light and dark: a shadow or a table
TOLERANCE = 1e-4  # of a golden probability, between processors and versions
CALLS = 8  # after which a runtime has optimised all that it will
KINDS = "model.onnx or model.ts"
OPTIMISED = "optimised for this processor"
# CUDA's runtime: as a developer's package names it; of JetPack 4, 5, 6 and 7; where it lies if nothing says so
LIBRARIES = ["libcudart.so"] + ["libcudart.so.%s" % number for number in ("10.2", "11.0", "12", "13")]
LIBRARIES += ["/usr/local/cuda/lib64/libcudart.so"]
# what stands in an ONNX file's messages, by their numbers in onnx.proto: which ones are read,
MESSAGES = {("model", 7): "graph", ("graph", 1): "node", ("graph", 5): "tensor", ("node", 5): "attribute"}
MESSAGES.update({("attribute", 5): "tensor", ("attribute", 10): "tensor"})
# which ones a network does not need,
UNSAFE = {
    ("model", 20): "a part for training",
    ("model", 25): "functions",
    ("graph", 15): "sparse weights",
    ("attribute", 6): "graphs in its graph",
    ("attribute", 11): "graphs in its graph",
    ("attribute", 22): "sparse weights",
    ("attribute", 23): "sparse weights",
    ("tensor", 13): "weights in other files",
    ("tensor", 14): "weights in other files",
}
# and the operators that compute with what the file holds; how much comes out of them, see check_growth
OPERATORS = """
    Abs Add And ArgMax Atan AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish
    Identity InstanceNormalization LRN LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max
    MaxPool Min Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Reciprocal ReduceL2 ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round ScatterElements ScatterND Selu Shape
    Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where
""".split()
# which of their inputs say how much they make, and which attributes of any operator do;
SIZES = {"Pad": slice(1, 2), "Resize": slice(1, 4), "Expand": slice(1, 2), "Tile": slice(1, 2)}
SIZES["ConstantOfShape"] = slice(0, 1)
SIZE_ATTRIBUTES = ("pads", "strides", "dilations", "output_padding", "output_shape")
# what such sizes may be computed by: of the first input alone (rounded, in place, as many); of each number of all
ROUNDING = "Cast Ceil Floor".split()
IN_PLACE = ROUNDING + ["Identity"]
AS_MANY = IN_PLACE + "Reshape Slice Squeeze Transpose Unsqueeze".split()
BY_EACH = "Add Div Equal Max Min Mul Sub Where".split()
INFINITE = float("inf")
UNKNOWN = INFINITE, None, ()
MOST_NUMBERS = 64  # that tell sizes
MOST_GROWTH = 2**22  # times as much as goes in
MOST_ONNX_BYTES = 2**31 - 1  # what ONNX itself allows
MOST_ONNX_PARTS = 300 * 1000
# of the metadata: where it is, and what
NEEDED = {
    "model": str,
    "data": str,
    "classes": list,
    "input.channels": int,
    "input.height": int,
    "input.width": int,
    "input.colour": str,
    "input.picture": str,
    "golden.images": str,
    "golden.probabilities": list,
    "metrics.part": str,
    "metrics.accuracy": float,
    "metrics.images": int,
    "parameters.total": int,
    "versions.torch": str,
}
ORIENTATION = 274  # EXIF's number of it
NO_WARNING = ("ignore", None, Warning, re.compile("PIL"), 0)  # of damage, and of sizes: our own limit is lower


class UserError(Exception):
    """A line for the user."""


class BusyError(UserError):
    """What another time may be done."""


def shown(text):
    """As the terminal may show it: a name may hold characters that move its cursor, or worse."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in str(text))


def main(words=None):
    given = parse(words)
    try:
        if os.path.isdir(given.model):
            given.model = exported(given.model)
        return given.run(given)
    except UserError as problem:
        print("error: %s" % shown(problem), file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print("error: %s" % shown(error), file=sys.stderr)
    return 1


def exported(run):
    """The model.ts of a run's folder, made by export.py where there is none.

    One that is older than the run's weights is used, and that said: what options it was exported with nobody knows.
    """
    model, weights = os.path.join(run, "model.ts"), os.path.join(run, "last.ckpt")
    if os.path.exists(model):
        if os.path.exists(weights) and os.path.getmtime(weights) > os.path.getmtime(model):
            print("%s: older than last.ckpt beside it: export.py makes a new one" % shown(model), file=sys.stderr)
        return model
    export = os.path.join(os.path.dirname(os.path.abspath(__file__)), "export.py")
    if not os.path.exists(export):
        raise UserError("%s: a folder: give the model.ts in it, which export.py writes" % run)
    print("%s: exporting it first" % shown(model), file=sys.stderr)
    process = subprocess.run([sys.executable, export, run], stdout=sys.stderr)
    if process.returncode:
        raise UserError("%s: not exported, so there is nothing to ask" % run)
    return model


# ---- what the file says of itself: without torch or another runtime


def read_metadata(path):
    """The dict that export.py put into the file; read first, for a runtime may abort at a file that it refuses."""
    try:
        metadata = json.loads(runtime_of(path).read_metadata(path).decode("utf-8"))
        if metadata["format"] > FORMAT:
            raise UserError(
                "%s: has format %s, this predict.py reads %d: copy the predict.py of the project that exported it"
                % (path, metadata["format"], FORMAT)
            )
        check_metadata(metadata)
    except UserError:
        raise
    # RuntimeError: encrypted, or packed oddly
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, TruncatedError) as error:
        raise UserError("%s: cannot be read (%s): give the %s that export.py wrote" % (path, error, KINDS))
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UserError("%s: its metadata is damaged (%r)" % (path, error))
    return metadata


def check_metadata(metadata):
    """That all is there, and that the sizes in it are those of the golden sample: they decide over memory."""
    for path, kind in NEEDED.items():
        value = metadata
        for key in path.split("."):
            value = value[key]
        if not isinstance(value, kind):
            raise TypeError("%s is %.40r" % (path, value))
    size, golden, classes = metadata["input"], metadata["golden"], metadata["classes"]
    shape = size["channels"], size["height"], size["width"]
    if size["colour"] != {1: "grey", 3: "RGB"}.get(shape[0], "raw"):
        raise ValueError("input.colour")
    sample = len(base64.b64decode(golden["images"]))
    if min(shape) < 1 or sample != len(golden["probabilities"]) * shape[0] * shape[1] * shape[2] or not sample:
        raise ValueError("input and golden sample disagree")
    if not all(isinstance(name, str) for name in classes):
        raise TypeError("classes")
    for row in golden["probabilities"]:
        if len(row) != len(classes) or not all(0 <= probability <= 1.001 for probability in row):
            raise ValueError("golden.probabilities")
    for key, kind in (("tolerance", (int, float)), ("precision", str)):
        if key in metadata and not isinstance(metadata[key], kind):
            raise TypeError(key)
    if "abstention" in metadata:
        how = metadata["abstention"]
        numbers = [how["coverage"], how["temperature"]] + how["least"] + how["most_strange"]
        if not all(isinstance(each, (int, float)) for each in numbers) or not 0 < how["coverage"] < 1:
            raise ValueError("abstention")
        if not 0.001 < how["temperature"] < 1000:
            raise ValueError("abstention")
        if len(how["least"]) != len(classes) or not how["most_strange"]:
            raise ValueError("abstention and classes disagree")


def info(given):
    metadata = read_metadata(given.model)
    if given.json:
        metadata["golden"] = "%d images" % len(metadata["golden"]["probabilities"])
        print(json.dumps(metadata, indent=2))
        return 0
    size, metrics = metadata["input"], metadata["metrics"]
    for name, value in (
        ("model", metadata["model"]),
        ("data", metadata["data"]),
        ("classes", ", ".join(metadata["classes"])),
        ("input", "%(height)dx%(width)d %(colour)s, any picture is fitted as a %(picture)s" % size),
        ("parameters", "{:,}".format(metadata["parameters"]["total"])),
        ("accuracy", "{:.2f} % of {images:,} {part} images".format(100 * metrics["accuracy"], **metrics)),
        ("answers", told_of_abstention(metadata)),
        ("epoch", metrics.get("epoch")),
        ("trained with", "torch %s" % metadata["versions"]["torch"]),
        ("needs", runtime_of(given.model).needs(metadata)),
        ("commit", metadata.get("commit")),
        ("exported", metadata.get("date")),
        ("file", "%s, %.1f MB" % (given.model, os.path.getsize(given.model) / 1e6)),
    ):
        print("%-13s %s" % (name, shown(value)))
    return 0


class TruncatedError(Exception):
    """A message of Protocol Buffers that is none, or not whole."""


def fields(message):
    """(number, value) of each field of a message of Protocol Buffers: an int, or a view of the bytes in it."""
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        if not 8 <= key < 2**32:  # a runtime would take the lower 32 bits for another field
            raise TruncatedError("it is no ONNX file")
        if key & 7 == 0:
            value, place = varint(message, place)
        else:
            size, place = varint(message, place) if key & 7 == 2 else ({1: 8, 5: 4}.get(key & 7, 2**63), place)
            value, place = message[place : place + size], place + size
            if place > len(message):
                raise TruncatedError("it is no ONNX file, or not all of one")
        yield key >> 3, value


def varint(message, place):
    """The number that begins at `place`, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        number |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return number, place
    raise TruncatedError("it is no ONNX file, or not all of one")


def walk(kind, message):
    """(kind, number, value) of each field of an ONNX message, and of the messages in it that MESSAGES names."""
    for number, value in fields(message):
        yield kind, number, value
        if (kind, number) in MESSAGES:
            if isinstance(value, int):
                raise TruncatedError("it is no ONNX file")
            for each in walk(MESSAGES[kind, number], value):
                yield each


def read_onnx(path):
    """The metadata's bytes; UserError where the file has more in it than a network, its own weights and words."""
    if not 0 < os.path.getsize(path) <= MOST_ONNX_BYTES:
        raise UserError("%s: empty or too large: at most %d MB" % (path, MOST_ONNX_BYTES // 10**6))
    found, nodes, tensors = None, [], []
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # weights are passed by, not read
        for count, (kind, number, value) in enumerate(walk("model", content)):
            if count > MOST_ONNX_PARTS:
                raise UserError("%s: it has too many parts" % path)
            if value and (kind, number) in UNSAFE:
                raise UserError("%s: not opened: it has %s" % (path, UNSAFE[kind, number]))
            if (kind, number) == ("node", 4) and word(value) not in OPERATORS:
                raise UserError("%s: not opened: it has the operator %.40s" % (path, word(value)))
            if (kind, number) == ("node", 7) and word(value) not in ("", "ai.onnx"):
                raise UserError("%s: not opened: it has operators that are not ONNX's own" % path)
            if kind == "graph":
                {1: nodes, 5: tensors}.get(number, []).append(value)
            if (kind, number) == ("model", 14):
                words = dict(fields(value))
                if words.get(1) == b"metadata.json":
                    found = word(words[2]).encode("utf-8")
        check_growth(path, nodes, tensors)
    if found is None:
        raise UserError("%s: an ONNX file, but not of export.py: it has no metadata" % path)
    if len(found) > MOST_BYTES:
        raise UserError("%s: its metadata is too large to be ours" % path)
    return found


def check_growth(path, nodes, tensors):
    """UserError where a single operator may make too much of a picture: of gigabytes a small file can tell.

    Of each name the most that what it stands for multiplies sizes by, as its numbers are in the file or computed from
    such; how many numbers it has; and what they are: ("", number) of the file's own, (tensor, place) of a tensor's
    shape, which was bounded before, with None for all places. What is not known is infinite, None and (). ONNX sorts
    nodes: none comes before its inputs.
    """
    known = {word(parts(tensor)[8][-1]): numbers(tensor) for tensor in tensors}
    for node in map(parts, nodes):
        operator, names = word(node[4][-1]), [word(name) for name in node.get(1, ())]
        inputs = [known.get(name, UNKNOWN) for name in names]
        attributes = {word(each[1][-1]): each for each in map(parts, node.get(5, ()))}
        sizes = [each for name, each in list(zip(names, inputs))[SIZES.get(operator, slice(0))] if name]
        growth = [product(map(signed, attributes[name].get(8, ()))) for name in SIZE_ATTRIBUTES if name in attributes]
        growth.append(together(multiplied(most for most, _, _ in sizes), None, [told for _, _, told in sizes])[0])
        if not all(each <= MOST_GROWTH for each in growth):
            raise UserError("%s: not opened: its %s may make too much of a picture" % (path, operator))
        value = numbers(attributes["value"][5][-1]) if "value" in attributes else None
        for made in map(word, node.get(2, ())):
            known[made] = computed(operator, inputs, value, names, made)


def computed(operator, inputs, value, names, made):
    """What check_growth knows of the output `made` of an operator, whose inputs have these names."""
    mosts, counts, told = zip(*inputs) if inputs else ((), (), ())
    if operator == "Constant":
        return value or UNKNOWN
    if operator == "Shape":
        return 1, None, ((names[0], None),)
    if operator == "Concat":
        return together(multiplied(mosts), None if None in counts else sum(counts), told)
    if operator == "ConstantOfShape":
        most, many = value[0] if value else 1, dict(told[0]).get("") if counts[0] == 1 else None
        if many is not None and many <= MOST_NUMBERS:
            return multiplied([most] * many), many, ()
        return (1, None, ()) if most == 1 else UNKNOWN  # zeros
    whole = len(told[0]) == 1 and told[0][0][1] is None
    if operator == "Gather" and counts[1] is not None:  # the same one many times, perhaps
        picked, many = [told[0]] * min(counts[1], MOST_NUMBERS), multiplied([mosts[0]] * min(counts[1], MOST_NUMBERS))
        places = [place for source, place in told[1] if source == "" and isinstance(place, int) and place >= 0]
        if whole and len(places) == counts[1]:
            picked = [[(told[0][0][0], place)] for place in places]
        return together(many, counts[1], picked)
    if operator in AS_MANY:
        kept = [each for each in told[0] if each[0] or operator not in ROUNDING]
        count = counts[0] if counts[0] == 1 or operator in IN_PLACE else None
        return mosts[0], count, ((made, None),) if whole and operator == "Slice" else kept
    if operator in BY_EACH and None not in counts and max(counts) <= MOST_NUMBERS:
        taken = {"Where": inputs[1:], "Equal": [(2, 1, ())]}.get(operator, inputs)
        taken = [each for each in taken for _ in range(max(counts) // (each[1] or 1))]
        return together(multiplied(most for most, _, _ in taken), max(counts), [each for _, _, each in taken])
    return UNKNOWN


def together(most, count, told):
    """Of several values one; unknown where it has a size twice, or sizes of three tensors: much, multiplied."""
    found = {}
    for source, place in (each for some in told for each in some if each[0]):
        places = found.setdefault(source, set())
        if place in places or None in places or (place is None and places) or len(found) > 2:
            return UNKNOWN
        places.add(place)
    return most, count, tuple((source, place) for source, places in found.items() for place in places)


def numbers(tensor):
    """What check_growth knows of a small one, whose count is None where it is a table; unknown of others."""
    found = parts(tensor)
    kind, raw = {1: "<%df", 6: "<%di", 7: "<%dq", 10: "<%de"}.get(found.get(2, [0])[-1]), found.get(9, [0])[-1]
    size = struct.calcsize(kind % 1) if kind else 1
    if not kind or isinstance(raw, int) or len(raw) > 8 * MOST_NUMBERS or len(raw) % size:  # as no exporter does
        return UNKNOWN
    values = struct.unpack(kind % (len(raw) // size), raw)
    is_row = [type(each) for each in found.get(1, ())] in ([], [int])
    return product(values), len(values) if is_row else None, tuple(("", each) for each in values)


def product(sizes):
    """The most that these numbers multiply by, each as a size, as a margin on it, or as a divisor below 1."""
    return multiplied(max(1 + abs(size), 1 / (abs(size) or 1)) if size == size else INFINITE for size in sizes)


def multiplied(factors):
    result = 1.0
    for factor in factors:
        result *= factor
    return result


def parts(message):
    """The values of a message's fields, by their numbers."""
    found = {}
    for number, value in fields(message):
        found.setdefault(number, []).append(value)
    return found


def word(value):
    """The text of a field."""
    if isinstance(value, int):
        raise TruncatedError("it is no ONNX file")
    return bytes(value).decode("utf-8")


def signed(value):
    """Of a varint; infinite of many packed into one, which no exporter writes."""
    if not isinstance(value, int):
        return INFINITE
    return value - 2**64 if value >= 2**63 else value


# ---- the network, by the runtime of its file


class Model:
    """What pictures are put to; each runtime has a class of its own, which says what it reads and how it answers."""

    tolerance = TOLERANCE

    def __init__(self, path, device, metadata):
        self.path, self.device, self.metadata = path, device, metadata
        size = metadata["input"]
        self.shape = size["channels"], size["height"], size["width"]
        if platform.machine() == "aarch64":  # numpy's library would take a Jetson's processor for another, and die
            os.environ.setdefault("OPENBLAS_CORETYPE", "ARMV8")
        try:
            self.open()
        except UserError:
            raise
        except Exception as error:  # each runtime has errors of its own
            raise UserError("%s: %s cannot load it (%s)" % (path, self.words(), first_line(error)))

    def probabilities(self, images):
        """A list of floats, a class each, for each of `images`: bytes, channel by channel and row by row."""
        return self.rows(images, 0)

    def answers(self, images):
        """The same, each with a list of how strange the image is by each measure; None of a file that does not tell."""
        classes, measures = len(self.metadata["classes"]), self.measures()
        rows = self.rows(images, measures)
        if any(each != each for row in rows for each in row[:classes]):
            raise UserError("%s: %s gives no numbers: the network's are too large for it" % (self.path, self.words()))
        return [(row[:classes], row[classes:] if measures else None) for row in rows]

    def measures(self):
        """How many measures of strangeness the file has."""
        return len(self.metadata.get("abstention", {}).get("most_strange", ()))

    def rows(self, images, measures):
        """Of each image its probabilities, and then so many measures."""
        try:
            rows = self.run(b"".join(images), measures > 0)
        except Exception as error:
            raise UserError("%s: %s cannot run it (%s)" % (self.path, self.words(), first_line(error)))
        width = len(self.metadata["classes"]) + measures
        if len(rows) != len(images) or any(len(row) != width for row in rows):
            raise UserError("%s: it answers otherwise than its metadata says" % self.path)
        return rows

    def golden(self):
        """The images of the golden sample, and the probabilities that they must have."""
        content = base64.b64decode(self.metadata["golden"]["images"])
        size = self.shape[0] * self.shape[1] * self.shape[2]
        images = [content[place : place + size] for place in range(0, len(content), size)]
        return images, self.metadata["golden"]["probabilities"]

    def check(self):
        """Whether it gives the golden sample's answers, and the largest difference in a probability.

        One image at a time, all together, again: a runtime optimises after some calls, and for shapes that it has seen.
        """
        images, wanted = self.golden()
        tolerance = max(self.tolerance, self.metadata.get("tolerance", 0))
        one_by_one = [([image], [row]) for image, row in zip(images, wanted)]
        same, largest = True, 0.0
        for part, rows in one_by_one * (1 + CALLS // len(images)) + [(images, wanted)] * CALLS + one_by_one:
            for found, row in zip(self.probabilities(part), rows):
                difference = max(abs(a - b) if a == a else float("inf") for a, b in zip(found, row))
                largest = max(largest, difference)
                same = same and max(row) - row[found.index(max(found))] <= 2 * tolerance  # or two are as likely
        return same and largest <= tolerance, largest

    def precision(self):
        return {"int8": "INT8", "fp16": "FP16"}.get(self.metadata.get("precision"), "float32")

    def optimise(self, images):
        """Run batches like `images` faster, where there is a way; what came of it, in words."""

    def gpu_memory(self):
        """MB, at most; None where the runtime does not tell."""


class TorchModel(Model):
    """TorchScript, which is a program, in torch 1.7 or newer."""

    @staticmethod
    def read_metadata(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/extra/metadata.json")]
            if len(names) != 1:
                raise UserError("%s: a TorchScript file, but not of export.py: it has no metadata" % path)
            if archive.getinfo(names[0]).file_size > MOST_BYTES:
                raise UserError("%s: its metadata is too large to be ours" % path)
            return archive.read(names[0])

    @staticmethod
    def needs(metadata):
        return "torch %s or newer" % metadata.get("min_torch", "1.7")

    def words(self):
        return "torch %s on %s" % (self.torch.__version__, self.device)

    def open(self):
        try:
            warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # which nothing here needs
            import torch
        except Exception as error:  # whatever a wheel for another machine raises
            raise UserError("torch cannot be imported (%s): install the device's own" % first_line(error))
        self.torch, least = torch, self.metadata.get("min_torch", "1.7")
        if version(torch.__version__) < version(least):
            raise UserError("%s needs torch %s or newer, this is %s" % (self.path, least, torch.__version__))
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("--device %s: this torch sees no CUDA device; leave it out to use the CPU" % self.device)
        # an Ampere GPU would round to 10 bits
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if hasattr(torch._C, "_jit_set_texpr_fuser_enabled"):
            torch._C._jit_set_texpr_fuser_enabled(False)  # 1.10's makes wrong answers of arctangents, from call two on
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer torch has a successor, which no device reads
            self.plain = self.network = torch.jit.load(self.path, map_location=torch.device(self.device)).eval()

    def run(self, content, measured):
        torch = self.torch
        if hasattr(torch, "frombuffer"):
            images = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        else:
            images = torch.ByteTensor(torch.ByteStorage.from_buffer(content))
        images = images.reshape((-1,) + self.shape).to(self.device)
        with torch.no_grad():
            answer = torch.cat(self.plain.answer(images), 1) if measured else self.network(images)
            return answer.cpu().tolist()

    def optimise(self, images):
        """Fold and fuse what this processor allows, where that is right and, for such batches, faster."""
        self.network = self.plain
        if self.measures():
            return "not optimised: what tells how strange an image is runs as it is"
        if not hasattr(self.torch.jit, "optimize_for_inference") or self.device != "cpu":
            return "not optimised: this is for torch 1.10 or newer on a CPU"
        before = share_of(measure(self, images, 0.0), 0.5)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.network = self.torch.jit.optimize_for_inference(self.torch.jit.freeze(self.plain))
            right, after = self.check()[0], share_of(measure(self, images, 0.0), 0.5)
        except (RuntimeError, UserError) as error:
            self.network = self.plain
            return "not optimised: %s" % first_line(error)
        if right and after < before:
            return OPTIMISED
        self.network = self.plain
        return "not optimised: %s" % ("it would be slower here" if right else "it would answer otherwise")

    def gpu_memory(self):
        return self.torch.cuda.max_memory_allocated() / 1e6 if self.device.startswith("cuda") else None


class OnnxModel(Model):
    """ONNX, which is no program, in ONNX Runtime 1.6 or newer."""

    @staticmethod
    def read_metadata(path):
        return read_onnx(path)

    @staticmethod
    def needs(metadata):
        return "onnxruntime %s or newer" % metadata.get("min_onnxruntime", "1.6")

    def words(self):
        return "onnxruntime %s on %s" % (self.onnxruntime.__version__, self.device)

    def open(self):
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # an Ampere GPU would round to 10 bits
        try:
            import numpy
            import onnxruntime
        except Exception as error:
            raise UserError("onnxruntime cannot be imported (%s): pip install onnxruntime" % first_line(error))
        self.numpy, self.onnxruntime = numpy, onnxruntime
        if not re.fullmatch("cpu|cuda(:[0-9]{1,3})?", self.device):
            raise UserError("--device %s: onnxruntime knows cpu, cuda, and cuda:1 for the second GPU" % self.device)
        provider = "CPUExecutionProvider" if self.device == "cpu" else "CUDAExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise UserError(
                "--device %s: this onnxruntime sees no CUDA device; leave it out to use the CPU" % self.device
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, too
        self.most = memory_limit() if self.device == "cpu" else None
        which = {"provider_options": [{"device_id": self.device[5:]}]} if self.device[5:] else {}
        with bounded(self.most):
            self.session = onnxruntime.InferenceSession(self.path, options, providers=[provider], **which)
        if provider not in self.session.get_providers():  # it would go on with the CPU
            raise UserError("--device %s: onnxruntime cannot load CUDA; leave it out to use the CPU" % self.device)

    def run(self, content, measured):
        images = self.numpy.frombuffer(content, self.numpy.uint8).reshape((-1,) + self.shape)
        names = ["probabilities", "strangeness"] if measured else ["probabilities"]
        with bounded(self.most):
            found = self.session.run(names, {"images": images.astype(self.numpy.float32)})
        return self.numpy.concatenate(found, 1).tolist()


def memory_limit():
    """Bytes of addresses: what this process has, and what memory is free; None where the system does not tell."""
    places = ("proc/self/status", "VmSize"), ("proc/meminfo", "MemAvailable")
    found = [re.search(r"^%s:\s*([0-9]+) kB" % name, text_of("/", path), re.MULTILINE) for path, name in places]
    return 1024 * sum(int(each.group(1)) for each in found) if all(found) else None


@contextlib.contextmanager
def bounded(most):
    """No more than so many bytes: what many operators make together, a file does not tell before it runs."""
    if most is None:
        yield
        return
    import resource  # Windows has none

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min([most] + [each for each in before if each >= 0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class EngineModel(Model):
    """What TensorRT 8.2 to 10 built of model.onnx, on this very device; an engine is a program."""

    tolerance = 1e-2  # of half precision

    @staticmethod
    def read_metadata(path):
        """An engine has none: of the ONNX file beside it."""
        beside = os.path.splitext(path)[0] + ".onnx"
        if not os.path.exists(path):
            raise UserError("%s: there is no such file" % path)
        if not os.path.exists(beside):
            raise UserError("%s: an engine has no metadata: lay %s, of which it was built, beside it" % (path, beside))
        return read_onnx(beside)

    @staticmethod
    def needs(metadata):
        return "the TensorRT that built it, on the device that did"

    def words(self):
        return "TensorRT %s" % self.tensorrt.__version__

    def precision(self):
        return "as built"  # an engine does not tell

    def open(self):
        if self.device not in ("cpu", "cuda", "cuda:0"):  # cpu is what nobody asked for
            raise UserError("--device %s: an engine runs on the first GPU: leave it out" % self.device)
        try:
            import tensorrt
        except Exception as error:
            raise UserError("tensorrt cannot be imported (%s): it comes with JetPack" % first_line(error))
        self.tensorrt, self.cuda = tensorrt, Cuda()
        self.runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        with open(self.path, "rb") as file:
            self.engine = self.runtime.deserialize_cuda_engine(file.read())
        if self.engine is None:
            raise UserError("%s: this TensorRT did not build it: build it anew on this device" % self.path)
        engine, self.context = self.engine, self.engine.create_execution_context()
        if hasattr(engine, "num_io_tensors"):  # 8.5 and newer
            self.names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
            kind, shape = engine.get_tensor_dtype, engine.get_tensor_shape
        else:
            self.names = [engine.get_binding_name(number) for number in range(engine.num_bindings)]
            kind, shape = engine.get_binding_dtype, engine.get_binding_shape
        wanted = {"images": self.shape, "probabilities": (len(self.metadata["classes"]),)}
        if self.measures():
            wanted["strangeness"] = (self.measures(),)
        shapes = {name: tuple(shape(name)) for name in self.names if kind(name) == tensorrt.float32}
        if any(shapes.get(name, ())[1:] != rest for name, rest in wanted.items()) or len(shapes) < len(self.names):
            told = ", ".join("%s of %s" % each for each in sorted(wanted.items()))
            raise UserError("%s: it does not take and give float32: %s" % (self.path, told))
        self.least = self.most = shapes["images"][0]
        if self.most < 0:  # built for any number between two
            if hasattr(engine, "get_tensor_profile_shape"):
                least, _, most = engine.get_tensor_profile_shape("images", 0)
            else:
                least, _, most = engine.get_profile_shape(0, "images")
            self.least, self.most = least[0], most[0]
        # floats of an image, in each that goes in or comes out
        self.sizes = {name: len(self.golden()[0][0]) if name == "images" else shapes[name][1] for name in self.names}
        self.memory = {name: self.cuda.allocate(4 * self.most * self.sizes[name]) for name in self.names}

    def run(self, content, measured):
        step, rows = self.most * self.sizes["images"], []
        for start in range(0, len(content), step):
            rows += self.run_some(content[start : start + step], measured)
        return rows

    def run_some(self, content, measured):
        """Of as many images as the engine was built for, or fewer."""
        count = len(content) // self.sizes["images"]
        n = max(count, self.least)
        shape = (n,) + self.shape
        if hasattr(self.context, "set_input_shape"):
            taken = self.context.set_input_shape("images", shape)
        else:
            taken = self.context.set_binding_shape(self.engine.get_binding_index("images"), shape)
        self.cuda.put(self.memory["images"], as_floats(content + bytes(n * self.sizes["images"] - len(content))))
        if not taken or not self.context.execute_v2([self.memory[name].value for name in self.names]):
            raise UserError("the engine fails with %d images" % n)
        rows = [[] for _ in range(count)]
        for name in ["probabilities", "strangeness"] if measured else ["probabilities"]:
            width, found = self.sizes[name], self.cuda.get(self.memory[name], n * self.sizes[name])
            for number, row in enumerate(rows):
                row += found[number * width : (number + 1) * width]
        return rows


class Cuda:
    """The two calls of CUDA's runtime that an engine needs: nothing has to be installed for them."""

    def __init__(self):
        for name in LIBRARIES:
            with contextlib.suppress(OSError):
                self.library = ctypes.CDLL(name)
                return
        raise UserError("libcudart.so, CUDA's runtime, is not there: it comes with JetPack")

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise UserError("CUDA's error %d in %s" % (code, name))

    def allocate(self, size):
        memory = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(memory), ctypes.c_size_t(size))
        return memory

    def put(self, memory, content):
        self.call("cudaMemcpy", memory, content, ctypes.c_size_t(len(content)), 1)  # host to device

    def get(self, memory, count):
        """As many floats."""
        found = (ctypes.c_float * count)()
        self.call("cudaMemcpy", found, memory, ctypes.c_size_t(4 * count), 2)  # device to host
        return list(found)


RUNTIMES = {".ts": TorchModel, ".onnx": OnnxModel, ".engine": EngineModel}


def runtime_of(path):
    """The class that a file's name tells."""
    end = os.path.splitext(path)[1].lower()
    if end not in RUNTIMES and not os.path.exists(path):
        raise UserError("%s: there is no such file" % path)
    if end not in RUNTIMES:
        raise UserError("%s: none of %s: give the file that export.py wrote" % (path, ", ".join(sorted(RUNTIMES))))
    return RUNTIMES[end]


def load(path, device, metadata):
    """The Model in the file, on "cpu", "cuda" or another device of its runtime."""
    return runtime_of(path)(path, device, metadata)


def as_floats(content):
    """float32 of bytes, without numpy."""
    image = pillow()[0].frombytes("L", (len(content), 1), content)
    return image.convert("F").tobytes()


def version(text):
    """(1, 10) of 1.10.0a0+git: NVIDIA's wheels are snapshots."""
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in text.split(".")[:2])


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# ---- from any picture to the pixels that the network knows


@functools.lru_cache(maxsize=None)
def pillow():
    """Its Image and ImageOps, where they are and new enough."""
    try:
        import PIL
        from PIL import Image, ImageOps
    except ImportError as error:
        raise UserError("Pillow cannot be imported (%s): pip install Pillow" % error)
    if version(PIL.__version__) < (8, 0):
        raise UserError("this Pillow is too old: pip install -U Pillow, 8.0 or newer")
    return Image, ImageOps


class Pieces:
    """A picture's file, `file` a binary one: it ends where a picture has too many parts for its size."""

    def __init__(self, file):
        self.file, self.seek, self.tell = file, file.seek, file.tell
        self.reads = MOST_READS + file.seek(0, 2) // 1000
        self.scans = self.bytes_of_a_read = float("inf")

    def read(self, *size):
        part = self.file.read(*size)
        self.reads -= 1 + len(part) // self.bytes_of_a_read
        self.scans -= part.count(b"\xff\xda")
        if self.reads < 0 or self.scans < 0:
            raise UserError("it has too many parts: save it anew")
        return part

    def __getattr__(self, name):
        return getattr(self.file, name)


@contextlib.contextmanager
def reading():
    """What goes wrong in it is one line of the picture."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a decoder says of a damaged file
        reason = first_line(error)
        known = "cannot identify" not in reason
        raise UserError("not a picture that Pillow can read" + (" (%s)" % reason if known else ""))


def look(file, most_pixels):
    """A Pillow image of the binary `file`, not yet unpacked, which will not cost too much; else UserError."""
    Image = pillow()[0]  # noqa: N806
    if NO_WARNING not in warnings.filters:
        warnings.filterwarnings("ignore", module="PIL")
    file = Pieces(file)
    with reading():
        file.seek(0)
        if file.read(2) in (b"II", b"MM"):
            file.bytes_of_a_read = 64  # Python makes numbers of a TIFF's tags
        picture = Image.open(file, formats=FORMATS)
        file.bytes_of_a_read = float("inf")
        if picture.format in ("JPEG", "MPO"):  # MPO: of several images
            file.scans = MOST_SCANS
        if any(tile[0] in Image.DECODERS for tile in picture.tile):  # those that are written in Python
            most_pixels //= SLOWNESS
        if picture.width * picture.height > most_pixels or max(picture.size) > MOST_SIDE:
            most = "%d million" % (most_pixels // 10**6) if most_pixels >= 10**6 else str(most_pixels)
            raise UserError("%dx%d pixels are too many: at most %s" % (picture.size + (most,)))
        tags = getattr(picture, "tag_v2", {})
        if 322 in tags and not 256 <= tags[322] * tags[323] <= most_pixels:  # TIFF's width and height of a tile
            raise UserError("tiles of %sx%s pixels: save it without tiles" % (tags[322], tags[323]))
    return picture


def unpack(picture, size):
    """The image that `look` returned: "L" or "RGB", upright, on white where it is transparent.

    A JPEG is unpacked at an eighth, a quarter or half of its sides where they then still are twice those of `size`, an
    "input" of the metadata; whole where that is older than its "fit", or None.
    """
    Image, ImageOps = pillow()  # noqa: N806
    with reading():
        if size and "fit" in size:
            side = 2 * max(size["width"], size["height"])
            picture.draft(None, (side, side))
        picture.load()
        with contextlib.suppress(Exception):  # damaged notes do not spoil the picture
            if picture.format != "TIFF" and picture.getexif().get(ORIENTATION, 1) != 1:  # which Pillow itself turns
                picture = ImageOps.exif_transpose(picture) or picture
        return grey_or_colour(picture, Image)


def open_picture(file, size=None):
    """The image of `file`, a path or a binary file, as `unpack` returns it."""
    if not isinstance(file, str):
        return unpack(look(file, MOST_PIXELS), size)
    if not os.path.isfile(file):
        raise UserError("not a file")  # a pipe would let us wait
    with reading(), open(file, "rb") as opened:
        return open_picture(opened, size)


def grey_or_colour(picture, Image):  # noqa: N803
    if picture.mode.startswith(("I", "F")):  # more than 8 bits a pixel: of the range that holds them all
        picture = picture.convert("F")
        high = picture.getextrema()[1]
        top = float(next((top for top in (1, 255, 4095, 65535) if high <= top), high))
        return picture.point(lambda value: value * (255.0 / top)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(paper, picture).convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("L" if picture.mode == "1" else "RGB")


def fit(picture, size, raw):
    """The picture as the network's images are, and what was done to it, in words."""
    done = ["%dx%d" % picture.size]
    mode = "L" if size["colour"] == "grey" else "RGB"
    if size["colour"] == "raw":
        raise UserError("a network for %d channels takes no picture" % size["channels"])
    if picture.mode != mode:
        picture = picture.convert(mode)
        done.append("made %s" % size["colour"])
    wanted = size["width"], size["height"]
    if raw:
        if picture.size != wanted:
            raise UserError("--raw takes pictures of %dx%d, this is %dx%d" % (wanted + picture.size))
        return picture, done
    if size["picture"] == "digit":
        picture = shrink(picture, DIGIT_SIDE)
    is_light = {"digit": is_dark_on_light, "on_black": lambda picture: border(picture) > middle(picture)}
    if size["picture"] in is_light and is_light[size["picture"]](picture):
        picture = picture.point(lambda value: 255 - value)
        done.append("dark on light: inverted")
    if size["picture"] == "digit":
        low, high = picture.getextrema()
        if high - low < FAINTEST:
            raise UserError("it is blank: no ink to read")
        if picture.size != wanted:
            return fit_digit(picture, wanted, done)
    if picture.size == wanted:
        return picture, done
    return fit_photo(picture, wanted, size.get("fit", "crop"), done)


def fit_photo(picture, wanted, way, done):
    """Cropped, padded on black or stretched to the `wanted` size."""
    from PIL import Image

    if way == "crop":
        left, top, right, bottom = crop = centre(picture.size, wanted)
        if crop != (0, 0) + picture.size:
            picture = picture.crop(crop)
            done.append("cropped to %dx%d" % (right - left, bottom - top))
    side = within(picture.size, wanted) if way == "pad" else wanted
    picture = picture.resize(side, Image.BILINEAR)
    done.append("scaled to %dx%d" % side)
    if side != wanted:
        paper = Image.new(picture.mode, wanted)
        paper.paste(picture, ((wanted[0] - side[0]) // 2, (wanted[1] - side[1]) // 2))
        picture = paper
        done.append("put on black, %dx%d" % wanted)
    return picture, done


def fit_digit(picture, wanted, done):
    """As MNIST was made: the ink scaled to 20x20 pixels of 28x28, its centre of mass in the middle."""
    from PIL import Image

    uneven = is_uneven(picture)
    found, blobs = find_ink(picture, uneven)
    if not blobs and found.getextrema()[1] < FAINTEST:
        raise UserError("it is blank: no ink to read")
    if not blobs:  # the ink reaches the edge
        ink = picture.getextrema()[1]
        paper = min(border(picture), ink - 1)
        # what is hardly brighter than the paper is noise and shadow
        found = picture.point(lambda value: max(0, min(255, int((value - paper) * 255.0 / (ink - paper)))))
    box = found.point(lambda value: 255 if value > 80 else 0).getbbox()
    picture = found.point(lambda value: value if value > 25 else 0).crop(box)
    done.append("cropped to its ink, %dx%d of %dx%d" % (picture.size + found.size))
    done.extend(DOUBTFUL + doubt for doubt in find_doubts(picture, found.size, blobs, uneven))
    scale = 20.0 / 28 * min(wanted[0] / float(picture.width), wanted[1] / float(picture.height))
    side = tuple(max(1, int(round(length * scale))) for length in picture.size)
    picture = picture.convert("F").resize(side, Image.LANCZOS)
    high = max(picture.getextrema()[1], 1e-3)
    picture = picture.point(lambda value: value * (255.0 / high)).convert("L")  # thin strokes fade when scaled
    done.append("scaled to %dx%d" % side)
    pixels = picture.tobytes()
    total = float(sum(pixels))
    x = sum(value * (place % side[0] + 0.5) for place, value in enumerate(pixels)) / total
    y = sum(value * (place // side[0] + 0.5) for place, value in enumerate(pixels)) / total
    fitted = Image.new("L", wanted)
    fitted.paste(picture, (int(round(wanted[0] / 2.0 - x)), int(round(wanted[1] / 2.0 - y))))
    done.append("centred by mass in %dx%d" % wanted)
    return fitted, done


def is_uneven(picture):
    """Whether a shadow or a table lies at the picture's edge."""
    edge = border_counts(picture)
    return quantile(edge, 0.9) - quantile(edge, 0.1) > UNEVEN


def find_ink(picture, uneven):
    """Bright ink alone, without its paper and what lies on that: shadows, lines, a table's edge; and its Blobs.

    The paper is what is left where all that is narrower than a stroke is taken away (a top-hat transform); Otsu's
    level parts the ink from the rest. No Blobs where the ink touches the picture's edge, None where nothing stands out.
    """
    from PIL import Image, ImageChops, ImageFilter

    picture = shrink(picture, INK_SIDE).filter(ImageFilter.GaussianBlur(1))
    paper = shrink(picture, PAPER_SIDE)
    for rank in (ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3)):
        for _ in range(WIDEST // 2):
            paper = paper.filter(rank)
    ink = ImageChops.subtract(picture, paper.resize(picture.size, Image.BILINEAR))
    small = shrink(ink, BLOB_SIDE)
    level = otsu(small.histogram())
    # where there is a table or a shadow, what touches the edge is theirs
    blobs = [blob for blob in find_blobs(small, level) if not (uneven and blob.touches(small.size))]
    blobs = [blob for blob in blobs if not any(blob.frames(other) for other in blobs)]
    heaviest = max(blobs, key=lambda blob: blob.mass) if blobs else None
    if heaviest is None or heaviest.length() < SHORTEST * max(small.size) or is_noise(blobs):
        return ink, None
    if heaviest.touches(small.size):
        return ink, []
    blobs = [blob for blob in blobs if blob.mass > DUST * heaviest.mass]
    mask = bytearray(small.width * small.height)
    for blob in blobs:
        for place in blob.places:
            mask[place] = 255
    mask = Image.frombytes("L", small.size, bytes(mask)).filter(ImageFilter.MaxFilter(5))
    ink = ImageChops.multiply(ink, mask.resize(ink.size, Image.NEAREST))
    low, high = 0.3 * level, 0.9 * ink.getextrema()[1]
    return ink.point(lambda value: max(0, min(255, int((value - low) * 255.0 / max(high - low, 1))))), blobs


def is_noise(blobs):
    """Whether the heaviest is little beside all the others."""
    masses = [blob.mass for blob in blobs]
    return sum(masses) > MOST_PIECES * max(masses)


def find_doubts(ink, size, blobs, uneven):
    """Why an answer may be wrong, whatever the network says: `ink` was cropped out of `size`."""
    if blobs is None:
        yield NO_DIGIT
    elif not blobs and uneven:
        yield "ink fills the picture" if ink.size == size else "ink, or a shadow, reaches the picture's edge"
    blobs = blobs or []
    tall = [blob for blob in blobs if 2 * blob.height() > max(each.height() for each in blobs)]
    tall.sort(key=lambda blob: blob.box[0])
    if any(one.box[2] <= other.box[0] for one, other in zip(tall, tall[1:])):
        yield DIGITS


def doubted(done):
    """The doubts among what was done to a picture."""
    return [each[len(DOUBTFUL) :] for each in done if each.startswith(DOUBTFUL)]


class Blob:
    """Pixels that hang together: their numbers, row by row, the sum of their values, the box that they lie in."""

    def __init__(self, places, width, mass):
        self.places, self.mass = places, mass
        rows, columns = [place // width for place in places], [place % width for place in places]
        self.box = min(columns), min(rows), max(columns) + 1, max(rows) + 1

    def height(self):
        return self.box[3] - self.box[1]

    def length(self):
        return max(self.box[2] - self.box[0], self.height())

    def touches(self, size):
        return self.box[0] == 0 or self.box[1] == 0 or self.box[2] == size[0] or self.box[3] == size[1]

    def frames(self, other):
        """Whether it goes all around what may be a digit."""
        around = [here < there for here, there in zip(self.box[:2] + other.box[2:], other.box[:2] + self.box[2:])]
        return all(around) and 5 * other.mass > self.mass


def find_blobs(ink, level):
    """The Blobs of what is brighter than `level`."""
    width, height = ink.size
    values = ink.tobytes()
    left = {place for place, value in enumerate(values) if value > level}
    blobs = []
    while left:
        todo, places = [left.pop()], []
        while todo:
            place = todo.pop()
            places.append(place)
            x = place % width
            for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
                near = place + step
                if near in left and abs(near % width - x) <= 1:
                    left.remove(near)
                    todo.append(near)
        blobs.append(Blob(places, width, sum(values[place] for place in places)))
    return blobs


def shrink(picture, side):
    """No side longer than `side` pixels."""
    from PIL import Image

    scale = side / float(max(picture.size))
    if scale >= 1:
        return picture
    return picture.resize(tuple(max(1, int(round(length * scale))) for length in picture.size), Image.BOX)


def otsu(counts):
    """The level that parts a histogram best in two: Otsu, 1979."""
    total, whole = float(sum(counts)), float(sum(level * count for level, count in enumerate(counts)))
    best, limit, below, sum_below = -1.0, 0, 0, 0.0
    for level, count in enumerate(counts):
        below += count
        sum_below += level * count
        if 0 < below < total:
            gap = sum_below / below - (whole - sum_below) / (total - below)
            between = below * (total - below) * gap * gap
            if between > best:
                best, limit = between, level
    return limit


def is_dark_on_light(picture):
    """Whether a digit's ink is darker than its paper; a table or a shadow may lie around it."""
    edge, whole = border_counts(picture), picture.convert("L").histogram()
    if max(quantile(edge, 0.5), quantile(whole, 0.5)) > middle(picture):
        return True
    darker = quantile(edge, 0.05) - quantile(whole, 0.01)  # than anything at the edge, where there is no ink
    return darker > 40 + quantile(whole, 0.99) - quantile(edge, 0.95)


def border(picture):
    """The middle value of the pixels at the edge."""
    return quantile(border_counts(picture), 0.5)


def border_counts(picture):
    """How many pixels at the edge have each grey level."""
    picture = picture.convert("L")
    width, height = picture.size
    edges = [(0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)]
    return [sum(each) for each in zip(*(picture.crop(edge).histogram() for edge in edges))]


def quantile(counts, share):
    """The level below which `share` of a histogram lies."""
    return next(level for level in range(256) if sum(counts[: level + 1]) > share * sum(counts))


def middle(picture):
    low, high = picture.convert("L").getextrema()
    return (low + high) / 2.0


def centre(size, wanted):
    """The largest box in the middle of `size` that has the sides of `wanted`."""
    scale = min(size[0] / float(wanted[0]), size[1] / float(wanted[1]))
    width, height = max(1, int(round(wanted[0] * scale))), max(1, int(round(wanted[1] * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def within(size, wanted):
    """The sides of `size`, scaled to the largest that `wanted` holds."""
    scale = min(wanted[0] / float(size[0]), wanted[1] / float(size[1]))
    return tuple(min(most, max(1, int(round(length * scale)))) for length, most in zip(size, wanted))


def pixels(picture):
    """A fitted picture's bytes, channel by channel, as the network takes them."""
    return b"".join(band.tobytes() for band in picture.split())


# ---- one class, several, or none


def decide(answered, doubts, metadata):
    """An answer as JSON has it: the likeliest class, and, of a file that tells, those that cannot be excluded.

    It is unknown where the image is stranger than those that the network knows, where no class is likely enough, and
    where the picture had not one digit. `answered` is one of Model.answers.
    """
    (probabilities, strangeness), classes, how = answered, metadata["classes"], metadata.get("abstention")
    answer = {}
    if how:
        probabilities = soften(probabilities, how["temperature"])
        known = all(each <= most for each, most in zip(strangeness, how["most_strange"]))  # not a number is not
        known = known and not set(doubts) & {NO_DIGIT, DIGITS}
        order = sorted(range(len(classes)), key=lambda number: -probabilities[number])
        kept = [classes[number] for number in order if known and probabilities[number] >= how["least"][number]]
        answer = {"set": kept, "unknown": not kept}
    best = max(range(len(classes)), key=lambda number: probabilities[number])
    likeliest = [("class", classes[best]), ("probability", probabilities[best])]
    return OrderedDict(likeliest + [("probabilities", dict(zip(classes, probabilities)))] + list(answer.items()))


def soften(probabilities, temperature):
    """The same as if their logits had been divided by `temperature`."""
    logs = [math.log(max(each, 1.1754944e-38)) / temperature for each in probabilities]  # of float32 the least
    powers = [math.exp(each - max(logs)) for each in logs]
    return [each / sum(powers) for each in powers]


def told_of_abstention(metadata):
    how = metadata.get("abstention")
    if not how:
        return "always one class"
    return "sets that hold the right class for %g %% of images like its validation part's, or unknown" % (
        100 * how["coverage"]
    )


def worded(answer):
    """The class, those that it may be, or `unknown`; `none of the classes` where one of them is called so."""
    if "set" not in answer:
        return answer["class"]
    none = "none of the classes" if "unknown" in answer["probabilities"] else "unknown"
    return none if answer["unknown"] else " or ".join(answer["set"])


# ---- commands


def predict(given):
    pillow()
    paths = list(expand(given.images))
    metadata = read_metadata(given.model)
    model = load(given.model, given.device, metadata)
    writer = csv.writer(sys.stdout, lineterminator="\n") if given.csv else None
    if writer:
        last = ["set"] if "abstention" in metadata else []
        writer.writerow(["file", "class", "probability"] + [cell(name) for name in metadata["classes"]] + last)
    failed = 0
    for path in paths:
        answer, done = answer_to(path, model, given.raw)
        if answer:
            if len(done) > 1:
                print("%s: %s" % (shown(path), ", ".join(done)), file=sys.stderr)
            tell(path, answer, doubted(done), given.json, writer)
        failed += not answer
    return 1 if failed else 0


def answer_to(path, model, raw):
    """What `decide` makes of the picture there, and what was done to it; None, and a line, where it cannot be read."""
    size = model.metadata["input"]
    try:
        picture, done = fit(open_picture(path, None if raw else size), size, raw)
    except UserError as problem:
        print("error: %s" % shown("%s: %s" % (path, problem)), file=sys.stderr)
        return None, []
    (one,) = model.answers([pixels(picture)])
    return decide(one, doubted(done), model.metadata), done


def tell(path, answer, doubts, as_json, writer):
    probabilities, said = answer["probabilities"], shown(worded(answer))
    if as_json:
        print(json.dumps(OrderedDict([("file", path)] + list(answer.items()) + [("doubts", doubts)])))
    elif writer:
        row = [cell(path), cell(answer["class"]), answer["probability"]] + list(probabilities.values())
        writer.writerow(row + [cell(said)] if "set" in answer else row)
    else:
        order = sorted(probabilities, key=lambda name: -probabilities[name])
        named = ["%s %.2f %%" % (shown(name), 100 * probabilities[name]) for name in order[:3]]
        if said == shown(answer["class"]):
            said, named = named[0], named[1:]
            word = "then"
        elif answer["unknown"]:
            word = "perhaps"
        else:
            word = "of them"
            named = ["%s %.2f %%" % (shown(name), 100 * probabilities[name]) for name in answer["set"][:3]]
        print("%s: %s%s" % (shown(path), said, "   (%s %s)" % (word, ", ".join(named)) if named else ""))


def cell(text):
    """As shown, with a ' before it where a spreadsheet would compute it."""
    return "'" * text.startswith(("=", "@", "+", "-")) + shown(text)


def expand(words):
    """The files that paths, folders and patterns name."""
    for word in words:
        if os.path.isdir(word):
            inside = sorted(os.path.join(word, name) for name in visible(word))
            found = [path for path in inside if path.lower().endswith(PICTURES)]
            if not found:
                raise UserError("%s: no pictures are in this folder" % word)
        else:
            found = [word] if os.path.exists(word) else sorted(glob.glob(word))
            if not found:
                raise UserError("%s: there is no such file" % word)
        for path in found:
            yield path


def visible(folder):
    """The names in it that a person has put there, as in training: macOS adds ._picture.png to each picture."""
    return [name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX"))]


def selftest(given):
    model = load(given.model, given.device, read_metadata(given.model))
    return 0 if test(model)["passed"] else 1


def test(model):
    """Put the golden sample to it; what came of it, told and returned."""
    (right, difference), whole, count = model.check(), reads_pictures(model), len(model.golden()[0])
    told = "pass" if right and whole else "FAIL", count, difference, model.words()
    print("%s: %d images, largest difference %.1e in a probability, %s" % told)
    if not whole:
        print("this Pillow reads other pixels than were written: pip install -U Pillow")
    return {"passed": right and whole, "images": count, "largest_difference": difference, "reads_pictures": whole}


def reads_pictures(model):
    """Whether the golden sample's pictures, written to a file, are the same pixels on their way to the network."""
    size, Image = model.metadata["input"], pillow()[0]  # noqa: N806
    if size["colour"] == "raw":
        return True
    area = size["width"] * size["height"]
    for content in model.golden()[0]:
        bands = [content[place : place + area] for place in range(0, len(content), area)]
        bands = [Image.frombytes("L", (size["width"], size["height"]), band) for band in bands]
        file = io.BytesIO()
        (bands[0] if len(bands) == 1 else Image.merge("RGB", bands)).save(file, "PNG")
        if pixels(fit(open_picture(file), size, True)[0]) != content:
            return False
    return True


def bench(given):
    time_batches(load(given.model, given.device, read_metadata(given.model)), given)
    return 0


def time_batches(model, given):
    """Milliseconds a call and images/s at batch 1 and given.batch, and the largest memory; told and returned."""
    print(model.words())
    found = {"speed": {}}
    for n in sorted({1, given.batch}):
        images = repeated(model.golden()[0], n)
        optimised = model.optimise(images)
        if optimised:
            print(shown(optimised))
        found["speed"][str(n)] = tell_speed(n, measure(model, images, given.seconds))
    found["memory_mb"], found["gpu_memory_mb"] = peak_memory(), model.gpu_memory()
    print("largest memory of this process: %.0f MB" % found["memory_mb"])
    if found["gpu_memory_mb"] is not None:
        print("largest memory of the GPU: %.0f MB" % found["gpu_memory_mb"])
    return found


def repeated(images, n):
    return [images[number % len(images)] for number in range(n)]


def tell_speed(n, seconds):
    median, p95, p99 = [1000 * share_of(seconds, share) for share in (0.5, 0.95, 0.99)]
    told = n, median, p95, p99, 1000 * n / median, len(seconds)
    print("batch %4d: median %8.3f ms, 95 %% below %8.3f, 99 %% below %8.3f, %9.0f images/s (%d calls)" % told)
    names = "median_ms", "p95_ms", "p99_ms", "images_per_second", "calls"
    return dict(zip(names, told[1:]))


def share_of(seconds, share):
    """The time below which that share of them lies."""
    return sorted(seconds)[int(len(seconds) * share)]


def measure(model, images, budget):
    """Seconds of each call, for about `budget` seconds, after warming up; a copy to the CPU ends each."""
    for _ in range(CALLS):
        model.answers(images)
    seconds, end = [], time.monotonic() + budget
    while len(seconds) < 20 or time.monotonic() < end:
        started = time.perf_counter()
        model.answers(images)
        seconds.append(time.perf_counter() - started)
    return seconds


def peak_memory():
    """MB; not a number where the system does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1e3
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux would count the memory of who started this, too
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


# ---- a receipt: what this file does on this machine


def receipt(given):
    """Write what the self-test, the bench and, where pictures of known classes are given, these say."""
    folder, name = os.path.split(given.out)
    if not name or os.path.isdir(given.out):
        raise UserError("--out %s: a folder: give a file's name in it" % given.out)
    metadata = read_metadata(given.model)
    pictures = [each for word in given.images[1:] for each in labelled(word, metadata["classes"])]
    model = load(given.model, given.device, metadata)
    os.makedirs(folder or ".", exist_ok=True)
    beside = "%s.%s" % (given.out, os.urandom(8).hex())  # a name that nobody has planted a link under
    try:
        with open(beside, "x") as file:  # before all that takes long
            content = measured(model, pictures, given)
            json.dump(finite(content), file, indent=2, allow_nan=False)
        os.replace(beside, given.out)
    finally:
        with contextlib.suppress(OSError):
            os.remove(beside)  # of a disk that is full
    print("receipt: %s" % shown(given.out))
    return 0 if content["selftest"]["passed"] else 1


def measured(model, pictures, given):
    """What a receipt says."""
    metadata = model.metadata
    content = {"receipt": FORMAT, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    content.update(file=os.path.basename(given.model), file_bytes=os.path.getsize(given.model))
    content.update((key, metadata[key]) for key in ("model", "data", "classes"))
    content.update(precision=model.precision(), runtime=model.words(), device=machine())
    content["versions"] = {"python": platform.python_version(), "pillow": pillow()[0].__version__}
    content["selftest"] = test(model)
    content["accuracy"] = score(model, pictures, given.raw) if pictures else None
    content.update(time_batches(model, given))
    content.update(temperature=metadata.get("abstention", {}).get("temperature"), degrees=degrees())
    return content


def labelled(folder, classes):
    """(class, path) of each picture in a folder that has one folder a class."""
    if not os.path.isdir(folder):
        raise UserError("%s: there is no such folder, with one folder a class in it" % folder)
    names = sorted(name for name in visible(folder) if os.path.isdir(os.path.join(folder, name)))
    for name in names or [""]:
        if name not in classes:
            raise UserError("%s: has %s, and no folder for each of %s" % (folder, name or "none", ", ".join(classes)))
        for path in expand([os.path.join(folder, name)]):
            yield name, path


def score(model, pictures, raw):
    """The share of pictures whose likeliest class is their own; one that cannot be read is not right.

    `right` has a digit for each, sorted by class and content, whatever the files' names; `pictures` is the digest of
    these: two receipts that share it can be compared picture by picture.
    """
    found, unknown, refused = [], 0, 0
    for number, (name, path) in enumerate(pictures):
        if number % 100 == 0 and sys.stderr.isatty():
            print("\r%d of %d pictures" % (number, len(pictures)), end="\r", file=sys.stderr)
        answer = answer_to(path, model, raw)[0] or {}
        found.append((name, digest_of(path), answer.get("class") == name))
        unknown, refused = unknown + answer.get("unknown", False), refused + (not answer)
    right = [is_right for _, _, is_right in sorted(found)]
    share, (low, high) = sum(right) / len(right), wilson(sum(right), len(right))
    told = 100 * share, 100 * low, 100 * high, len(right), unknown, refused
    print("accuracy: %.2f %% (95 %% interval %.2f to %.2f) of %d pictures; %d unknown, %d refused" % told)
    names = repr([each[:2] for each in sorted(found)]).encode("utf-8", "backslashreplace")
    return {
        "value": share,
        "interval": [low, high],
        "images": len(right),
        "unknown": unknown,
        "refused": refused,
        "pictures": hashlib.sha256(names).hexdigest(),
        "right": "".join("01"[each] for each in right),
    }


def digest_of(path):
    """SHA-256 of a file's content; of none, where it cannot be read."""
    content = b""
    with contextlib.suppress(OSError):
        if os.path.isfile(path):  # a pipe would let us wait
            with open(path, "rb") as file:
                content = file.read()
    return hashlib.sha256(content).hexdigest()


def wilson(right, count):
    """The 95 % interval of a share: Wilson, 1927."""
    z, share = 1.959964, right / count
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [(share + z * z / (2 * count) + each) / (1 + z * z / count) for each in (-half, half)]


def machine(root="/"):
    """What it runs on, without the name that its owner gave it; a Jetson has a board's name and a release."""
    processors = re.findall("^model name\\s*: (.*)$", text_of(root, "proc/cpuinfo"), re.MULTILINE)
    return {
        "machine": platform.machine(),
        "system": "%s %s" % (platform.system(), platform.release()),
        "processor": processors[0] if processors else platform.processor(),
        "cores": os.cpu_count(),
        "board": text_of(root, "proc/device-tree/model").strip("\0\n") or None,
        "release": text_of(root, "etc/nv_tegra_release").partition("\n")[0] or None,
    }


def degrees(root="/"):
    """Celsius, of each thermal zone that can be read."""
    found = {}
    for zone in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*"))):
        with contextlib.suppress(ValueError):
            name = "%s %s" % (os.path.basename(zone)[8:], text_of(zone, "type").strip())
            found[name] = int(text_of(zone, "temp")) / 1000
    return found


def text_of(*parts):
    """Nothing, of a file that cannot be read."""
    with contextlib.suppress(OSError), open(os.path.join(*parts), errors="replace") as file:
        return file.read()
    return ""


def finite(value):
    """The same with None for what is no number: JSON has no word for it."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- server


class Clocked(io.RawIOBase):
    """What a client sends, until a request's time or bytes are up: a socket alone would wait anew for every byte."""

    def __init__(self, connection):
        self.connection, self.end, self.left = connection, 0, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        seconds = self.end - time.monotonic()
        if seconds <= 0 or self.left <= 0:
            raise socket.timeout("the request is too slow, or too long")
        self.connection.settimeout(seconds)
        count = self.connection.recv_into(memoryview(buffer)[: self.left])
        self.left -= count
        return count


class Queue:
    """Some pictures are unpacked side by side, some more wait, the rest are sent away."""

    def __init__(self, at_a_time, waiting):
        self.running, self.all = threading.Semaphore(at_a_time), threading.Semaphore(at_a_time + waiting)

    @contextlib.contextmanager
    def place(self):
        if not self.all.acquire(blocking=False):
            raise BusyError("too many pictures at a time, try again")
        try:
            with self.running:
                yield
        finally:
            self.all.release()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # seconds, for a client to take the answer
    disable_nagle_algorithm = True  # a body that follows its headers would wait 40 ms for the client's word
    server_version, sys_version = "lab", ""

    def setup(self):
        BaseHTTPRequestHandler.setup(self)
        self.rfile = io.BufferedReader(Clocked(self.connection))

    def handle_one_request(self):
        self.rfile.raw.end, self.rfile.raw.left = time.monotonic() + PATIENCE, MOST_HEADERS
        self.server.wait_for(self, 0)
        try:
            BaseHTTPRequestHandler.handle_one_request(self)
        finally:
            self.server.wait_no_more(self)

    def do_GET(self):
        if self.is_refused():
            return
        if self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # what is left of a body is no request
        if self.path.split("?")[0] == "/":
            self.answer(200, self.server.page, "text/html; charset=utf-8")
        elif self.path == "/info":
            self.answer(200, self.server.about)
        elif self.path == "/favicon.ico":
            self.answer(200, b"", "image/png")
        else:
            self.answer(404, {"error": "there is only / and /predict"})

    def do_POST(self):
        keeps, self.close_connection = not self.close_connection, True
        if self.is_refused():
            return
        length = ",".join(self.headers.get_all("Content-Length", []))
        if not re.match("[0-9]{1,12}$", length):
            return self.answer(411, {"error": "state the Content-Length"})
        length = int(length)
        if length > MOST_BYTES:
            self.read_body(min(length, 5 * MOST_BYTES), False)  # else a browser never reads the answer
            return self.answer(413, {"error": "at most %d MB" % (MOST_BYTES // 10**6)})
        content = self.read_body(length, True)
        self.server.wait_no_more(self)
        if len(content) < length:
            return
        if self.path not in ("/predict", "/"):
            return self.answer(404, {"error": "POST pictures to /predict"})
        try:
            answer = self.predict(file_of_form(content, self.headers.get("Content-Type", "")))
            self.close_connection = not keeps
            self.answer(200, answer)
        except UserError as problem:
            self.answer(503 if isinstance(problem, BusyError) else 422, {"error": str(problem)})
        except OSError:
            raise  # the client is gone
        except Exception as error:
            print("error: %r" % error, file=sys.stderr)
            self.answer(500, {"error": first_line(error)})

    def is_refused(self):
        """Whether it is none of our requests: a page of another site may have sent the browser here."""
        host, here = self.headers.get("Host", ""), ("127.0.0.1", "localhost")
        status, why = 403, None
        if self.server.given.host in here and (host.rpartition(":")[0] or host) not in here:
            why = "this page is for this machine only"
        elif any(origin.partition("://")[2] != host for origin in self.headers.get_all("Origin", [])):
            why = "a page of another site has no access"
        elif "Transfer-Encoding" in self.headers:
            status, why = 411, "state the Content-Length: Transfer-Encoding is not read"
        if why:
            self.close_connection = True
            self.answer(status, {"error": why})
        return bool(why)

    def read_body(self, length, keeps):
        """bytes, fewer than `length` where the client goes away."""
        self.rfile.raw.left = length
        parts, read = [], 0
        while read < length:
            part = self.rfile.read1(min(65536, length - read))
            if not part:
                break
            read += len(part)
            if keeps:
                parts.append(part)
                self.server.wait_for(self, read)
        return b"".join(parts)

    def predict(self, content):
        picture = look(io.BytesIO(content), MOST_SERVED_PIXELS)
        queue = self.server.large if picture.width * picture.height > LARGE else self.server.small
        with queue.place():
            size, raw = self.server.metadata["input"], self.server.given.raw
            picture, done = fit(unpack(picture, None if raw else size), size, raw)
        with self.server.one_at_a_time:  # the network has all cores
            (one,) = self.server.model.answers([pixels(picture)])
        doubts = doubted(done)
        return dict(decide(one, doubts, self.server.metadata), done=done, doubts=doubts)

    def answer(self, status, content, kind="application/json"):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode("utf-8")
        self.connection.settimeout(self.timeout)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline' data: blob:")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def file_of_form(content, kind):
    """The first file of a form (RFC 7578); all of `content` where `kind`, its Content-Type, is another."""
    found = re.match('multipart/form-data *;.*boundary="?([^" ;]{1,70})', kind, re.IGNORECASE)
    if not found:
        return content
    mark, end = b"--" + found.group(1).encode("latin-1", "replace"), 0
    for _ in range(MOST_FIELDS):
        start = content.find(mark, end)
        body = content.find(b"\r\n\r\n", start) + 4
        end = content.find(b"\r\n" + mark, body - 2)
        if start < 0 or body < 4 or end < 0:
            break
        if b"filename" in content[start:body].lower():
            return content[body:end]
    raise UserError("there is no file in this form: curl -F file=@photo.jpg")


class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, given):
        self.given, self.metadata = given, read_metadata(given.model)
        self.model = load(given.model, given.device, self.metadata)
        self.model.optimise(self.model.golden()[0][:1])
        if isinstance(self.model, OnnxModel):
            self.model.answers(self.model.golden()[0][:1])  # within the limit; all pictures are as large,
            self.model.most = None  # and it would be one for the requests' threads, too
        pillow()
        self.about = {key: self.metadata[key] for key in ("model", "data", "classes")}
        self.about["picture"] = self.metadata["input"]["picture"]
        self.page = PAGE.replace("{{about}}", json.dumps(self.about).replace("<", "\\u003c")).encode("utf-8")
        self.small, self.large = Queue(8, 24), Queue(2, 14)  # large pictures take memory
        self.one_at_a_time, self.lock = threading.Lock(), threading.Lock()
        self.waiting = OrderedDict()  # bytes that each handler has, of a request that is not whole; the oldest first
        HTTPServer.__init__(self, (given.host, given.serve), Handler)

    def process_request(self, request, address):
        while threading.active_count() > MOST_CONNECTIONS:
            self.end_the_oldest()
            time.sleep(0.001)
        ThreadingMixIn.process_request(self, request, address)

    def wait_for(self, handler, count):
        """Its request has `count` bytes so far."""
        with self.lock:
            self.waiting[handler] = count
            too_many = sum(self.waiting.values()) > MOST_WAITING_BYTES
        if too_many:
            self.end_the_oldest()

    def wait_no_more(self, handler):
        with self.lock:
            self.waiting.pop(handler, None)

    def end_the_oldest(self):
        """The request that has let us wait longest gives way, so that no crowd of slow ones keeps others out."""
        with self.lock:
            handler = self.waiting.popitem(last=False)[0] if self.waiting else None
        if handler:
            with contextlib.suppress(OSError):  # it has ended by itself
                handler.connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, address):
        """A client that goes away is none."""


def serve(given):
    try:
        server = Server(given)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError("--serve %d on %s: %s" % (given.serve, given.host, error))
    name = socket.gethostname() if given.host == "0.0.0.0" else given.host
    print("http://%s:%d/   Ctrl-C ends it" % (name, server.server_address[1]))
    sys.stdout.flush()
    sys.setswitchinterval(0.001)  # seconds that a small picture waits for each thread that is busy in Python
    server.serve_forever()


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>lab</title>
<style>
body { font: 16px/1.4 sans-serif; max-width: 46em; margin: 1em auto; padding: 0 1em; color: #111; }
main { display: flex; flex-wrap: wrap; gap: 1.5em; }
canvas { border: 2px solid #666; width: 280px; height: 280px; touch-action: none; cursor: crosshair; }
canvas.over { border-color: #0072b2; }
#bars { flex: 1; min-width: 16em; }
.row { display: flex; align-items: center; gap: .5em; margin: .15em 0; }
.name { width: 6em; text-align: right; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.track { flex: 1; background: #eee; height: 1.1em; }
.bar { background: #999; height: 100%; width: 0; }
.best .bar { background: #0072b2; } .best { font-weight: bold; }
.share { width: 4.5em; text-align: right; font-variant-numeric: tabular-nums; }
#said { min-height: 3em; color: #444; } #said.error { color: #a30; }
button, input { font: inherit; }
</style>
<h1 id="title"></h1>
<main>
<div>
<canvas id="paper" width="280" height="280" aria-label="paper to draw on"></canvas>
<p><button id="clear">Clear</button> <input id="file" type="file" accept="image/*" aria-label="a picture"></p>
</div>
<div id="bars" aria-live="polite"></div>
</main>
<p id="said"></p>
<script>
const about = {{about}};
const paper = document.getElementById("paper"), pen = paper.getContext("2d"), said = document.getElementById("said");
const draws = about.picture !== "photo";
document.getElementById("title").textContent = about.model + " on " + about.data;
const hint = (draws ? "Draw on the paper, or drop a picture on it." : "Drop a picture on the paper.");
const rows = new Map(about.classes.map(name => {
  const row = document.createElement("div");
  row.className = "row";
  row.innerHTML = '<span class="name"></span><span class="track"><div class="bar"></div></span>'
    + '<span class="share"></span>';
  row.firstChild.textContent = name;
  document.getElementById("bars").append(row);
  return [name, row];
}));
function show(answer) {
  const doubt = answer.error || answer.doubts.join(", ");
  const verdict = answer.unknown ? "unknown: it is like nothing that this network knows, " + answer.class + " perhaps"
    : (answer.set || [answer.class]).join(" or ");
  said.className = doubt || answer.unknown ? "error" : "";
  said.textContent = answer.error || (doubt ? "Doubtful, " + doubt + ": perhaps it is " : "It is ")
    + verdict + ". " + answer.done.filter(each => !each.startsWith("doubtful")).join(", ") + ".";
  for (const [name, row] of rows) {
    const share = answer.error ? 0 : answer.probabilities[name];
    row.classList.toggle("best", !answer.error && (answer.set || [answer.class]).includes(name));
    row.querySelector(".bar").style.width = 100 * share + "%";
    row.querySelector(".share").textContent = answer.error ? "" : (100 * share).toFixed(1) + " %";
  }
}
let asking = false, next = null, sheet = 0;
async function ask(picture) {
  if (asking) { next = picture; return; }
  asking = true;
  try {
    const mine = sheet, answer = await fetch("/predict", { method: "POST", body: await picture() });
    const said = await answer.json();
    if (mine === sheet) show(said);
  } catch (error) { show({ error: "The server does not answer." }); }
  asking = false;
  if (next) { const then = next; next = null; ask(then); }
}
const drawing = () => new Promise(done => paper.toBlob(done, "image/png"));
function clear() {
  sheet += 1; next = null;
  pen.fillStyle = "white"; pen.fillRect(0, 0, 280, 280);
  for (const row of rows.values()) {
    row.classList.remove("best");
    row.querySelector(".bar").style.width = 0;
    row.querySelector(".share").textContent = "";
  }
  said.className = ""; said.textContent = hint;
}
let last = null;
const place = event => [event.offsetX * 280 / paper.clientWidth, event.offsetY * 280 / paper.clientHeight];
if (draws) {
  paper.onpointerdown = event => {
    paper.setPointerCapture(event.pointerId);
    last = place(event);
    paper.onpointermove(event);
  };
  paper.onpointerup = paper.onpointercancel = () => { last = null; };
  paper.onpointermove = event => {
    if (!last) return;
    const here = place(event);
    pen.lineWidth = 20; pen.lineCap = "round"; pen.strokeStyle = "black";
    pen.beginPath(); pen.moveTo(...last); pen.lineTo(here[0] + 0.01, here[1]); pen.stroke();
    last = here;
    ask(drawing);
  };
}
async function take(file) {
  if (!file) return;
  try {
    const picture = await createImageBitmap(file), scale = 280 / Math.max(picture.width, picture.height);
    clear();
    const width = picture.width * scale, height = picture.height * scale;
    pen.drawImage(picture, 140 - width / 2, 140 - height / 2, width, height);
  } catch (error) { clear(); }
  ask(async () => file);
}
document.getElementById("file").onchange = event => take(event.target.files[0]);
document.getElementById("clear").onclick = clear;
document.ondragover = event => { event.preventDefault(); paper.classList.add("over"); };
document.ondragleave = () => paper.classList.remove("over");
document.ondrop = event => {
  event.preventDefault();
  paper.classList.remove("over");
  take(event.dataTransfer.files[0]);
};
clear();
</script>
"""


class Parser(argparse.ArgumentParser):
    """Refuses what was typed in one line."""

    def error(self, message):
        print("error: %s; see --help" % shown(message), file=sys.stderr)
        sys.exit(2)


def parse(words):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model.ts, .onnx or .engine; or a run's folder, exported if it is not yet")
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="pictures, folders, patterns; or info, selftest, bench, receipt"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a line of JSON for each picture")
    form.add_argument("--csv", action="store_true", help="a row for each picture")
    parser.add_argument("--device", default="cpu", help="cuda, or cuda:1 for the second GPU; else cpu")
    parser.add_argument("--raw", action="store_true", help="feed the pixels as they are")
    parser.add_argument("--batch", type=int, default=32, help="of bench; else 32")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row of bench; else 2")
    parser.add_argument("--out", metavar="FILE", help="of receipt: the JSON; folders of one folder a class may follow")
    parser.add_argument("--serve", type=int, metavar="PORT", help="a page to draw on, and POST /predict")
    parser.add_argument("--host", default="127.0.0.1", help="of --serve; 0.0.0.0 lets other machines in")
    given, more = parser.parse_known_args(words)  # pictures may follow options
    for word in more:
        if word.startswith("-"):
            parser.error("there is no option %s" % word)
    given.images += more
    commands = {"info": info, "selftest": selftest, "bench": bench, "receipt": receipt}
    first = given.images[0] if given.images else None
    if given.serve is not None:
        given.run = serve
    elif first == "receipt" or (first in commands and len(given.images) == 1):
        given.run = commands[first]
    elif given.images:
        given.run = predict
    else:
        parser.error("give pictures, or one of info, selftest, bench, receipt, --serve PORT")
    if (given.run is receipt) != bool(given.out):
        parser.error("receipt and --out FILE go together")
    if not given.host:
        parser.error("--host is empty")
    if given.batch < 1:
        parser.error("--batch %d: must be 1 or more" % given.batch)
    return given


if __name__ == "__main__":
    # names of files and classes that the terminal cannot show do not end the program
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, sys.stdout.encoding, "backslashreplace", line_buffering=True)
    sys.exit(main())
