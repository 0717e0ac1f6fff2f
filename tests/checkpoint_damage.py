"""Ways in which a checkpoint can be broken, also with sums that are right, each with what a reader says of it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[Path], None]
DEEP = "[" * 200_000 + "]" * 200_000
HUGE = "1" + "0" * 5000


def newest_of(run: Path) -> Path:
    return max((run / "checkpoints").iterdir())


def sign(folder: Path) -> None:
    """Write size and sha256 of every file into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def manifest_is(text: str | bytes) -> Damage:
    """Other contents of the manifest."""
    return lambda folder: _write(folder / "manifest.json", text)


def _write(file: Path, text: str | bytes) -> None:
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def manifest_with(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """The manifest after ``change``."""

    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def listed_as(**entry: Any) -> Damage:
    """The learner's file with another entry in the manifest."""
    return manifest_with(lambda manifest: manifest["files"]["learner.safetensors"].update(entry))


def lists_too(name: str) -> Damage:
    """One more file in the manifest."""
    return manifest_with(lambda m: m["files"].update({name: {"size": 0, "sha256": hashlib.sha256().hexdigest()}}))


def meta_is(text: str) -> Damage:
    """Other meta data."""

    def damage(folder: Path) -> None:
        (folder / "meta.json").write_text(text)
        sign(folder)

    return damage


def meta_with(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """The meta data after ``change``."""

    def damage(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        change(meta)
        (folder / "meta.json").write_text(json.dumps(meta))
        sign(folder)

    return damage


def header_with(change: Callable[[dict[str, Any]], Any], part: str = "learner") -> Damage:
    """The header of a part after ``change``; the data behind it stay as they are."""

    def damage(folder: Path) -> None:
        file = folder / f"{part}.safetensors"
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        sign(folder)

    return damage


def a_weight(header: dict[str, Any]) -> dict[str, Any]:
    """The header's entry of a weight."""
    entry: dict[str, Any] = next(value for name, value in header.items() if name.startswith("weights/"))
    return entry


def length_is(length: int) -> Damage:
    """Another length of the header."""

    def damage(folder: Path) -> None:
        file = folder / "learner.safetensors"
        file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
        sign(folder)

    return damage


def an_npy(folder: Path) -> Path:
    """One of the .npy files."""
    return min(folder.glob("*.npy"))


def npy_header(descr: Any, shape: Any) -> Damage:
    """Another header of an .npy file."""

    def damage(folder: Path) -> None:
        text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
        an_npy(folder).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4096))
        sign(folder)

    return damage


def npy_is(content: bytes) -> Damage:
    """Other contents of an .npy file."""

    def damage(folder: Path) -> None:
        an_npy(folder).write_bytes(content)
        sign(folder)

    return damage


def a_pickle(folder: Path) -> None:
    with an_npy(folder).open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    sign(folder)


def in_place_of(name: str, make: Callable[[Path], object]) -> Damage:
    """Something else where the file was."""

    def damage(folder: Path) -> None:
        file = an_npy(folder) if name == "npy" else folder / name
        file.unlink()
        make(file)

    return damage


def a_socket(file: Path) -> None:
    before = Path.cwd()
    os.chdir(file.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(file.name)
    finally:
        os.chdir(before)


PLACES = ("manifest.json", "meta.json", "learner.safetensors", "npy")
STRANGERS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda file: file.symlink_to("/dev/zero"),
    "loop": lambda file: file.symlink_to(file.name),
    "dangling": lambda file: file.symlink_to("nothing"),
    "socket": a_socket,
}
CASES: dict[str, tuple[Damage, str]] = {
    "manifest-null": (manifest_is("null"), "no table"),
    "manifest-list": (manifest_is("[]"), "no table"),
    "manifest-number": (manifest_is(HUGE), "cannot be read"),
    "manifest-empty": (manifest_is(""), "cannot be read"),
    "manifest-deep": (manifest_is(DEEP), "cannot be read"),
    "manifest-deep-inside": (manifest_is('{"format": 1, "x": ' + DEEP + "}"), "cannot be read"),
    "manifest-no-text": (manifest_is(b"\xff\xfe\xfd"), "cannot be read"),
    "manifest-endless": (manifest_is(b" " * (17 << 20)), "longer than 16 MiB"),
    "format-text": (manifest_with(lambda m: m.update(format="1\x1b[31m")), "is not 1"),
    "steps-text": (manifest_with(lambda m: m.update(agent_steps=str(m["agent_steps"]))), "of agent step"),
    "steps-float": (manifest_with(lambda m: m.update(agent_steps=float("inf"))), "of agent step"),
    "files-list": (manifest_with(lambda m: m.update(files=list(m["files"]))), "lists no files"),
    "entry-number": (manifest_with(lambda m: m["files"].update({"meta.json": 3})), "no size and sha256"),
    "size-text": (listed_as(size="12"), "no size and sha256"),
    "size-negative": (listed_as(size=-1), "no size and sha256"),
    "size-nan": (listed_as(size=float("nan")), "no size and sha256"),
    "size-bool": (listed_as(size=True), "no size and sha256"),
    "size-huge": (listed_as(size=2**63 - 1), "the manifest says"),
    "sum-number": (listed_as(sha256=3), "no size and sha256"),
    "outside": (lists_too("../../config.toml"), "outside the folder"),
    "absolute": (lists_too("/etc/passwd"), "outside the folder"),
    "dots": (lists_too(".."), "outside the folder"),
    "nul": (lists_too("a\0.safetensors"), "of no part"),
    "surrogate": (lists_too("\ud800.safetensors"), "of no part"),
    "program": (lists_too("setup.py"), "of no part"),
    "absent": (lists_too("actor-9.safetensors"), "actor-9.safetensors is missing"),
    "meta-null": (meta_is("null"), "no table"),
    "meta-list": (meta_is("[1, 2]"), "no table"),
    "meta-deep": (meta_is(DEEP), "cannot be read"),
    "meta-huge": (meta_is('{"counters": {"updates": ' + HUGE + "}}"), "cannot be read"),
    "meta-inf": (meta_is('{"counters": {"updates": 1e999}}'), "whole number"),
    "counters-list": (meta_with(lambda m: m.update(counters=[1])), "no table"),
    "counters-text": (meta_with(lambda m: m["counters"].update(updates="7")), "whole number"),
    "counters-negative": (meta_with(lambda m: m["counters"].update(agent_steps=-7)), "whole number"),
    "counters-huge": (meta_with(lambda m: m["counters"].update(agent_steps=2**70)), "whole number"),
    "resumes-text": (meta_with(lambda m: m.update(resumes="x")), "whole number"),
    "header-length": (length_is(2**40), "cannot be read"),
    "header-length-most": (length_is(2**64 - 1), "cannot be read"),
    "header-length-none": (length_is(0), "cannot be read"),
    "header-shape": (header_with(lambda h: a_weight(h)["shape"].append(1000)), "cannot be read"),
    "header-shape-huge": (header_with(lambda h: a_weight(h).update(shape=[2**62, 2**62])), "cannot be read"),
    "header-shape-negative": (header_with(lambda h: a_weight(h).update(shape=[-1])), "cannot be read"),
    "header-offsets": (header_with(lambda h: a_weight(h).update(data_offsets=[0, 2**50])), "cannot be read"),
    "header-offsets-turned": (header_with(lambda h: a_weight(h)["data_offsets"].reverse()), "cannot be read"),
    "header-dtype": (header_with(lambda h: a_weight(h).update(dtype="PICKLE")), "cannot be read"),
    "header-undescribed": (header_with(lambda h: h.pop("__metadata__")), "cannot be read"),
    "part-null": (header_with(lambda h: h.update(__metadata__={"part": "null"})), "describe"),
    "part-deep": (header_with(lambda h: h.update(__metadata__={"part": DEEP})), "cannot be read"),
    "part-npy-list": (header_with(lambda h: h.update(__metadata__={"part": '{"numpy": [], "npy": []}'})), "cannot be"),
    "part-npy-outside": (
        header_with(lambda h: h.update(__metadata__={"part": '{"numpy": [], "npy": {"a": "../../../x.npy"}}'})),
        "is missing",
    ),
    "part-npy-unlisted": (
        header_with(lambda h: h.update(__metadata__={"part": '{"numpy": [], "npy": {"a": "learner.0.npy"}}'})),
        "is missing",
    ),
    "npy-pickle": (a_pickle, "cannot be read"),
    "npy-empty": (npy_is(b""), "cannot be read"),
    "npy-cut": (npy_is(b"\x93NUMPY\x01\x00\xff\xff{'descr'"), "cannot be read"),
    "npy-zip": (npy_is(b"PK\x03\x04" + bytes(100)), "cannot be read"),
    "npy-larger": (npy_header("<f4", (1 << 40,)), "cannot be read"),
    "npy-huge": (npy_header("<f4", (1 << 62, 1 << 62)), "cannot be read"),
    "npy-negative": (npy_header("<f4", (-4,)), "cannot be read"),
    "npy-float-shape": (npy_header("<f4", (4.0,)), "cannot be read"),
    "npy-objects": (npy_header("|O", (4,)), "cannot be read"),
    "npy-fields": (npy_header([("a", "<f4")], (4,)), "not numbers or bool"),
    "npy-text": (npy_header("<U4", (4,)), "not numbers or bool"),
} | {
    f"{stranger}-{place}": (in_place_of(place, make), "")
    for stranger, make in STRANGERS.items()
    for place in PLACES
}  # fmt: skip
