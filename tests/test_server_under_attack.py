"""predict.py --serve beside clients that send slowly, or pictures that cost much: the others are answered in time."""

import io
import os
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from test_predict import picture_bytes, post, serve, write_model

SIDE = 4000  # 16 million pixels, the most that is read
SLOW_CONNECTIONS, SECONDS = 64, 20


def saved(picture, *kind, **options):
    file = io.BytesIO()
    picture.save(file, *kind, **options)
    return file.getvalue()


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def run_length_bmp(side):
    pixels = (b"\1\7" * side + b"\0\0") * side + b"\0\1"  # runs of one pixel each
    sizes = (54 + 1024 + len(pixels), 0, 0, 54 + 1024, 40, side, side, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", *sizes) + bytes(1024) + pixels


def scans_jpeg(count):
    """A progressive JPEG whose last scan comes again and again: 70 bytes, and all pixels, each."""
    plain = saved(Image.new("L", (SIDE, SIDE)), "JPEG", progressive=True)
    last = plain[plain.rfind(b"\xff\xc4", 0, plain.rfind(b"\xff\xda")) : -2]
    return plain[:-2] + last * count + plain[-2:]


def slow_pictures():
    """Each with what the server answers: some are dear, but pictures; the others are refused, noise as it is blank."""
    slope = Image.linear_gradient("L").resize((SIDE, SIDE))
    deep = Image.fromarray(np.tile(np.arange(SIDE, dtype=np.uint16), (SIDE, 1)))
    small = {kind: saved(Image.new("L", (28, 28)), kind) for kind in ("PNG", "GIF", "JPEG")}
    image = small["GIF"].index(b",", 13)
    return {
        "plain PGM": (b"P2 3162 3162 255\n" + b"7 " * 3162**2, 422),
        "PGM of 200 greys": (b"P5 3162 3162 200\n" + bytes(3162**2), 422),
        "run-length BMP": (run_length_bmp(3150), 422),
        "JPEG of 2,000 scans": (scans_jpeg(2000), 422),
        "PNG of 1,600,000 chunks": (small["PNG"][:33] + chunk(b"abCd") * 1_600_000 + small["PNG"][33:], 422),
        "GIF of 3,900,000 comments": (small["GIF"][:image] + b"!\xfe\1x\0" * 3_900_000 + small["GIF"][image:], 422),
        "JPEG of 4,000,000 notes": (small["JPEG"][:2] + b"\xff\xe5\0\2" * 4_000_000 + small["JPEG"][2:], 422),
        "PNG of noise": (saved(Image.frombytes("L", (SIDE, SIDE), os.urandom(SIDE**2)), "PNG", compress_level=1), 422),
        "PNG of 16 bits": (saved(deep, "PNG", compress_level=1), 200),
        "transparent PNG": (saved(slope.convert("LA").convert("RGBA"), "PNG", compress_level=1), 200),
        "WebP": (saved(slope, "WEBP", lossless=True, method=0, quality=0), 200),
        "TIFF": (saved(slope, "TIFF", compression="tiff_lzw"), 200),
    }


def send_slowly(url, stop):
    """A byte of a header every four seconds, and again from the start where the server ends it."""
    place = url.rpartition("/")[2].split(":")
    while not stop.is_set():
        try:
            with socket.create_connection((place[0], int(place[1])), timeout=30) as connection:
                connection.sendall(b"POST /predict HTTP/1.1\r\nX: ")
                while not stop.wait(4):
                    connection.sendall(b"x")
        except OSError:
            stop.wait(0.1)


def send_again_and_again(url, content, stop, answers):
    while not stop.is_set():
        try:
            answers.append(post(url, content))
        except OSError as error:
            answers.append((None, str(error)))
            stop.wait(0.1)


def seconds_of_good_requests(url, until):
    """Of each, one every 50 ms; no number where it was lost."""
    taken = []
    while time.monotonic() < until:
        started = time.perf_counter()
        try:
            answered = post(url, picture_bytes())[0] == 200
        except OSError:
            answered = False
        taken.append(time.perf_counter() - started if answered else float("nan"))
        time.sleep(0.05)
    return taken


@pytest.mark.slow
def test_good_requests_are_answered_beside_slow_connections_and_slow_pictures(tmp_path):
    stop, pictures = threading.Event(), slow_pictures()
    answers = {name: [] for name in pictures}
    with serve(write_model(tmp_path / "model.ts")) as url, ThreadPoolExecutor(100) as pool:
        for _ in range(SLOW_CONNECTIONS):
            pool.submit(send_slowly, url, stop)
        for name, (content, _) in pictures.items():
            pool.submit(send_again_and_again, url, content, stop, answers[name])
        time.sleep(2)
        end = time.monotonic() + SECONDS
        taken = np.sort(np.concatenate(list(pool.map(lambda _: seconds_of_good_requests(url, end), range(2)))))
        stop.set()
    print(f"{len(taken)} good, {np.isnan(taken).sum()} lost, 95 % below {taken[int(0.95 * len(taken))]:.3f} s")
    print({name: (len(found), {str(each)[:60] for each in found}) for name, found in answers.items()})
    assert len(taken) >= 100 and not np.isnan(taken).any() and taken[int(0.95 * len(taken))] < 0.5
    for name, (_, wanted) in pictures.items():
        assert {status for status, _ in answers[name]} == {wanted}, name
