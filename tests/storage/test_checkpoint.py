"""Checkpoints: what is saved comes back, what is torn is skipped, a kill or a full disk never costs the older ones."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from offbeat.storage import checkpoint as checkpoints
from offbeat.storage.checkpoint import CheckpointError

TORCH_DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip
NUMPY_DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


def parts_of(number: int) -> dict[str, dict[str, checkpoints.Array]]:
    """Two small parts whose contents tell which save they are from."""
    weights = {f"{checkpoints.WEIGHTS}layer.weight": torch.full((3, 2), float(number)), "step": torch.tensor(number)}
    return {"learner": weights, "streams": {"rows": np.arange(number, number + 5)}}


def save(run: Path, number: int, keep: int = 3) -> Path:
    return checkpoints.save(run, number, parts_of(number), {"updates": number}, keep=keep)


def read(run: Path, skipped: list[str]) -> checkpoints.Checkpoint | None:
    return checkpoints.newest(run, skipped.append)


def folders(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def same_bytes(left: object, right: object) -> bool:
    """Equal kind, dtype, shape and bits (NaN payloads included)."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same_form = left.dtype == right.dtype and left.shape == right.shape
        flat = (left.contiguous().reshape(-1).view(torch.uint8), right.contiguous().reshape(-1).view(torch.uint8))
        return same_form and torch.equal(*flat)
    assert isinstance(left, np.ndarray)
    assert isinstance(right, np.ndarray)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("large_bytes", [1 << 30, 16], ids=["safetensors", "npy"])
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, monkeypatch, large_bytes):
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", large_bytes)
    generator = np.random.default_rng(0)
    arrays: dict[str, checkpoints.Array] = {}
    for shape in ((), (0, 3), (1,), (4, 3, 2)):
        for dtype in TORCH_DTYPES:
            bits = torch.randint(2, (int(np.prod(shape)) * dtype.itemsize,), dtype=torch.uint8)
            arrays[f"torch/{dtype}/{shape}"] = bits.view(dtype).reshape(shape)
        for name in NUMPY_DTYPES:
            arrays[f"numpy/{name}/{shape}"] = generator.integers(0, 2, shape).astype(name)
    arrays["nan"] = torch.tensor([float("nan"), -0.0, float("inf")])
    arrays["strided"] = torch.arange(12).reshape(3, 4).t()
    arrays["fortran"] = np.asfortranarray(np.arange(12).reshape(3, 4))
    arrays["read-only"] = np.broadcast_to(np.float32(2), (3, 3))
    meta = {"pcg64": 2**127 + 1, "ratio": 0.1, "nested": {"list": [1, None, "x"]}}
    checkpoints.save(tmp_path, 7, {"learner": arrays, "actor-0": {}}, meta, keep=1)

    found = read(tmp_path, [])
    assert found is not None
    parts, loaded_meta = checkpoints.load(found)
    assert loaded_meta == meta
    assert found.agent_steps == 7
    assert parts["actor-0"] == {}
    assert set(parts["learner"]) == set(arrays)
    assert [name for name in arrays if not same_bytes(arrays[name], parts["learner"][name])] == []


def test_writing_into_what_was_loaded_leaves_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", 8)
    save(tmp_path, 1)
    for _ in range(2):
        found = read(tmp_path, [])
        assert found is not None
        parts, _ = checkpoints.load(found)
        parts["streams"]["rows"][:] = 0
        parts["learner"]["step"].fill_(0)


def test_tied_weights_are_saved_twice_and_not_refused(tmp_path):
    weight = torch.ones(4)
    checkpoints.save(tmp_path, 1, {"learner": {"a": weight, "b": weight, "c": weight[1:]}}, {}, keep=1)
    found = read(tmp_path, [])
    assert found is not None
    assert checkpoints.load(found)[0]["learner"]["c"].shape == (3,)


def test_an_array_that_only_pickle_could_hold_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="learner: array 'names' has dtype object"):
        checkpoints.save(tmp_path, 1, {"learner": {"names": np.array([{}], dtype=object)}}, {}, keep=1)
    assert folders(tmp_path) == []


def test_load_weights_reads_a_run_a_folder_or_a_checkpoint(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    found = read(tmp_path, [])
    assert found is not None
    for source in (tmp_path, path, found):
        weights, meta = checkpoints.load_weights(source)
        assert list(weights) == ["layer.weight"]
        assert weights["layer.weight"].mean() == 2
        assert meta == {"updates": 2}
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoints.load_weights(tmp_path / "elsewhere")


def test_weights_can_be_read_though_the_replay_is_broken(tmp_path):
    path = save(tmp_path, 1)
    flip_a_byte(path / "streams.safetensors")
    assert read(tmp_path, []) is None
    assert checkpoints.load_weights(tmp_path)[0]["layer.weight"].mean() == 1


def test_the_newest_are_kept_and_nothing_else_lies_about(tmp_path):
    for number in range(5):
        path = save(tmp_path, number, keep=2)
        assert path == tmp_path / "checkpoints" / f"{number:012d}"
    assert folders(tmp_path) == ["000000000003", "000000000004"]


def test_a_broken_checkpoint_does_not_count_as_kept(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "streams.safetensors").unlink()
    save(tmp_path, 3, keep=2)
    assert folders(tmp_path) == ["000000000001", "000000000002", "000000000003"]
    save(tmp_path, 4, keep=1)
    assert folders(tmp_path) == ["000000000004"]


def test_saving_behind_a_broken_newer_one_keeps_the_new(tmp_path):
    save(tmp_path, 1)
    flip_a_byte(save(tmp_path, 9) / "streams.safetensors")
    save(tmp_path, 5, keep=1)
    skipped: list[str] = []
    found = read(tmp_path, skipped)
    assert found is not None
    assert found.agent_steps == 5
    assert len(skipped) == 1


def test_of_two_saves_at_the_same_step_the_later_one_stays(tmp_path):
    save(tmp_path, 3)
    checkpoints.save(tmp_path, 3, parts_of(3), {"updates": 99}, keep=2)
    found = read(tmp_path, [])
    assert found is not None
    assert checkpoints.load(found)[1] == {"updates": 99}
    assert folders(tmp_path) == ["000000000003"]


def test_a_replacement_cut_short_is_still_found_and_then_mended(tmp_path):
    path = save(tmp_path, 3)
    path.rename(path.with_name(f".old-{path.name}"))  # where a kill between the two renames leaves it
    found = read(tmp_path, [])
    assert found is not None
    assert found.agent_steps == 3
    checkpoints.clean(tmp_path)
    assert folders(tmp_path) == ["000000000003"]


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, Path.unlink], ids=["flipped", "truncated", "missing"])
@pytest.mark.parametrize("name", ["learner.safetensors", "streams.safetensors", "streams.0.npy", "meta.json"])
def test_a_torn_checkpoint_is_skipped_with_its_reason(tmp_path, monkeypatch, damage, name):
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", 8)
    save(tmp_path, 1)
    damage(save(tmp_path, 2) / name)
    skipped: list[str] = []
    found = read(tmp_path, skipped)
    assert found is not None
    assert found.agent_steps == 1
    assert len(skipped) == 1
    assert "000000000002" in skipped[0]
    assert name in skipped[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "manifest.json is missing"),
        ("{", "cannot be read"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1, "agent_steps": 3, "files": {}}', "agent step 3"),
        ('{"format": 1, "agent_steps": 2, "files": {}}', "does not list meta.json"),
        ('{"format": 1, "agent_steps": 2, "files": {"meta.json": 1, "../x": {}}}', "cannot be read"),
    ],
)
def test_a_bad_manifest_is_skipped_with_its_reason(tmp_path, content, reason, caplog):
    save(tmp_path, 1)
    manifest = save(tmp_path, 2) / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.agent_steps == 1
    assert reason in caplog.text


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path):
    path = save(tmp_path, 2)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"size": 0, "sha256": ""}
    (path / "manifest.json").write_text(json.dumps(manifest))
    skipped: list[str] = []
    assert read(tmp_path, skipped) is None
    assert "outside the folder" in skipped[0]


def test_no_run_or_an_empty_one_has_no_checkpoint(tmp_path):
    assert read(tmp_path / "nowhere", []) is None
    (tmp_path / "checkpoints").mkdir()
    assert read(tmp_path, []) is None


def test_parts_of_other_processes_are_adopted_or_refused(tmp_path):
    draft = checkpoints.begin(tmp_path, 5)
    draft.write("learner", {"a": torch.ones(1)})
    checkpoints.write_part(draft.path, "actor-0", {"b": np.ones(2)})
    draft.adopt("actor-0")
    draft.commit({}, keep=1)
    found = read(tmp_path, [])
    assert found is not None
    assert set(checkpoints.load(found)[0]) == {"learner", "actor-0"}

    draft = checkpoints.begin(tmp_path, 6)
    with pytest.raises(CheckpointError, match="actor-1"):
        draft.adopt("actor-1")
    draft = checkpoints.begin(tmp_path, 7)
    torn = checkpoints.write_part(draft.path, "actor-0", {"b": np.ones(2)})
    truncate(torn[0])
    with pytest.raises(CheckpointError, match="was not written completely"):
        draft.adopt("actor-0")
    draft = checkpoints.begin(tmp_path, 8)
    checkpoints.write_part(draft.path, "actor-0", {"b": np.ones(2)})
    with pytest.raises(CheckpointError, match=r"actor-0\.safetensors belong to parts that were never adopted"):
        draft.commit({}, keep=1)
    assert folders(tmp_path) == ["000000000005"]


def test_meta_that_is_no_json_leaves_no_trace(tmp_path):
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path, 1, parts_of(1), {"tensor": torch.ones(1)}, keep=1)
    assert folders(tmp_path) == []


SAVER = """
import os, sys
from pathlib import Path
import torch
from offbeat.storage import checkpoint
checkpoint.LARGE_BYTES = 1 << 16

def save_for_ever(number):
    while True:
        rows = torch.full((1 << 16,), number % 251, dtype=torch.uint8)
        parts = {"learner": {"rows": rows, "number": torch.tensor(number)}, "streams": {"rows": rows.numpy()}}
        checkpoint.save(Path(sys.argv[1]), number // 2, parts, {"number": number}, keep=2)
        number += 1

for line in sys.stdin:  # a child per line, so that torch is imported once only
    child = os.fork()
    if child == 0:
        save_for_ever(int(line))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def test_a_saver_killed_at_any_moment_leaves_a_complete_checkpoint(tmp_path):
    delays = random.Random(0)
    number = 0
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for _ in range(30):
            nursery.stdin.write(f"{number}\n")
            nursery.stdin.flush()
            child = int(nursery.stdout.readline())
            while read(tmp_path, []) is None:
                time.sleep(0.005)
            time.sleep(delays.uniform(0.0, 0.1))
            os.kill(child, signal.SIGKILL)
            assert nursery.stdout.readline() == "gone\n"
            skipped: list[str] = []
            found = read(tmp_path, skipped)
            assert skipped == []
            assert found is not None
            parts, meta = checkpoints.load(found)
            assert meta["number"] >= number
            number = meta["number"]
            assert found.agent_steps == number // 2
            assert parts["learner"]["number"] == number
            assert all((rows == number % 251).all() for rows in (parts["learner"]["rows"], parts["streams"]["rows"]))
        nursery.stdin.close()
    assert number > 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("kind", [torch.zeros, np.zeros], ids=["safetensors", "npy"])
@pytest.mark.parametrize("honest", [True, False], ids=["room-known", "room-unknown"])
def test_a_full_disk_keeps_the_older_checkpoint(small_disk, monkeypatch, kind, honest):
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", 1 << 16)
    save(small_disk, 1)
    if not honest:  # a quota, or others who fill the disk meanwhile: the error comes while writing
        usage = checkpoints.shutil.disk_usage(small_disk)
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=1 << 40))
    draft = checkpoints.begin(small_disk, 2)
    draft.write("learner", {"a": torch.ones(1000)})
    with pytest.raises(
        CheckpointError, match=r"cannot write .*streams.*needs [37]\.[86] MiB.*earlier checkpoints are unto"
    ):
        draft.write("streams", {"rows": kind(1_000_000, dtype=kind(1).dtype)})
    assert folders(small_disk) == ["000000000001"]
    skipped: list[str] = []
    found = read(small_disk, skipped)
    assert found is not None
    assert found.agent_steps == 1
    assert skipped == []
    save(small_disk, 3)


def test_a_file_size_limit_keeps_the_older_checkpoint(tmp_path):
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write"):
            checkpoints.save(tmp_path, 2, {"learner": {"rows": torch.zeros(1 << 20)}}, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folders(tmp_path) == ["000000000001"]
