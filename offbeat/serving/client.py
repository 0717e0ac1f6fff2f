"""Ask a policy that ``offbeat serve`` serves, from any process: this one file, with NumPy alone.

Copy it to the robot, or beside the game (``offbeat serve --write-client FILE`` does); it needs Python 3.10, and nothing
of offbeat is imported.

    policy = Client("results/drone/serve.sock")  # or Client(("127.0.0.1", 7777), token="...")
    action = policy.act(observation, first=True)  # then, until the episode is over:
    action = policy.act(observation)

``python client.py ADDRESS --bench 1000`` prints how long the answers to 1,000 questions take.

A *message* is its length in 4 bytes, big-endian, and then the bytes of a safetensors file: the length of a header in 8
bytes, little-endian; the header as JSON, name -> dtype, shape and place; the arrays. ``__metadata__`` in the header are
texts: ``offbeat`` is the version of the protocol, ``kind`` what the message is, ``hello``, ``act``, ``action`` or
``error``. Nothing is ever unpickled, and no length is believed before it was compared with what may come.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

PROTOCOL = "1"
"""Both sides must speak the same."""
MOST_BYTES = 1 << 24
"""No message is longer, whatever its kind. A server says in its hello what it takes, mostly far less."""
MOST_AXES = 8
"""No array has more."""
DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""Names of safetensors -> NumPy's; no others may cross."""
CHUNK = 1 << 16
"""Bytes that are read at a time."""
TOKEN = "OFFBEAT_SERVE_TOKEN"
"""Variable of the environment that a token may be in."""


class Refused(RuntimeError):
    """The server's answer is an error. ``code`` is one of those in docs/serve.md."""

    def __init__(self, code: str, line: str) -> None:
        super().__init__(f"{line} [{code}]")
        self.code = code


class Client:
    """One connection: the server keeps recurrent state, frame stacks and the last action for it, and for nobody else.

    Not thread-safe. After ``Refused`` of code ``request`` and after ``TimeoutError`` it can be used on.
    """

    def __init__(
        self, address: str | os.PathLike[str] | tuple[str, int], token: str = "", timeout: float = 10.0
    ) -> None:
        """``address``: the path of a Unix socket, or (host, port), which needs the ``token``. ``timeout``: seconds that
        an answer may take.
        """
        self.timeout, self._numbers, self._received = timeout, itertools.count(1), bytearray()
        if isinstance(address, tuple):
            self._socket = socket.create_connection(address, timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout)
            self._socket.connect(os.fspath(address))
        try:
            self.about, _ = self._ask("hello", {"token": token} if token else {}, {})
        except BaseException:
            self.close()
            raise
        self.observation: dict[str, dict[str, Any]] = json.loads(self.about["observation"])
        """Name -> ``shape`` and ``dtype`` of what ``act`` is given, and an ``example`` of its numbers."""
        self.action: dict[str, Any] = json.loads(self.about["action"])
        """``kind``, ``shape`` and ``dtype`` of what it returns."""
        self.most_bytes = int(self.about["most_bytes"])
        self.last: dict[str, str] = {}
        """What came with the newest answer: ``version`` of the weights; ``server_s`` and ``forward_s``, seconds from
        the whole question to the answer, and of the network alone; ``batch``, how many were answered at once."""

    def act(self, observation: Any, first: bool = False, reward: float | None = None, action_mask: Any = None) -> Any:
        """The action for an observation as the environment gives it: an array, or dictionaries and tuples of arrays.

        Args:
            observation: one, as ``reset`` and ``step`` give it.
            first: an episode starts here. The first call of a connection starts one in any case.
            reward: that the last action earned; asked for where ``about["needs_reward"]`` is 1.
            action_mask: which actions may be taken, where ``info`` holds it in training.

        Returns:
            An int for a single choice, else an array. ``TimeoutError`` where it takes longer than ``timeout``: the
            answer to that question is passed over when it comes. ``Refused`` where the server says why there is none.
        """
        given = named(observation, alone=list(self.observation) == ["observation"])
        if action_mask is not None:
            given["legal_actions"] = action_mask
        arrays: dict[str, Any] = {f"observation/{name}": self._fitted(name, value) for name, value in given.items()}
        if reward is not None:
            arrays["reward"] = np.float32(reward)
        self.last, answer = self._ask("act", {"first": str(int(first))}, arrays)
        action = answer["action"]
        return int(action) if action.shape == () and action.dtype.kind in "iu" else action

    def close(self) -> None:
        """End the connection; the server forgets its state."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fitted(self, name: str, value: Any) -> np.ndarray:
        """``value`` of the dtype that is asked for, where no kind of number is lost. The server looks at the rest."""
        wanted = self.observation.get(name)
        array = np.asarray(value)
        return array if wanted is None else array.astype(wanted["dtype"], casting="same_kind", copy=False)

    def _ask(self, kind: str, texts: dict[str, str], arrays: Mapping[str, Any]) -> tuple[dict[str, str], Any]:
        """Send a message; the texts and arrays of its answer."""
        number = str(next(self._numbers))
        ends = time.monotonic() + self.timeout
        message = encode(kind, {**texts, "number": number}, arrays)
        if kind == "act" and len(message) - 4 > self.most_bytes:
            raise Refused("request", f"the observation takes {len(message)} bytes, the server takes {self.most_bytes}")
        try:
            self._socket.settimeout(self.timeout)
            self._socket.sendall(message)
        except ConnectionError as error:  # it may have said why before it hung up
            failure: ConnectionError | None = error
        else:
            failure = None
        while True:
            try:
                answer, found = decode(self._message(ends))
            except ConnectionError:
                raise failure or ConnectionError("the server has closed the connection") from None
            if answer.get("kind") == "error":
                raise Refused(answer.get("code", ""), answer.get("error", ""))
            if answer.get("number") == number:
                return answer, found

    def _message(self, ends: float) -> bytearray:
        """The next whole message, without its length."""
        while True:
            have = self._received
            length = int.from_bytes(have[:4], "big") if len(have) >= 4 else 0
            if length > MOST_BYTES:
                raise ConnectionError(f"a message of {length} bytes was announced, at most {MOST_BYTES} are taken")
            if length and len(have) >= 4 + length:
                self._received = have[4 + length :]
                return have[4 : 4 + length]
            try:
                self._socket.settimeout(max(ends - time.monotonic(), 1e-6))
                new = self._socket.recv(CHUNK)
            except TimeoutError:
                raise TimeoutError(f"no answer within {self.timeout:g} s") from None
            if not new:
                raise ConnectionResetError("the server has closed the connection")
            have += new


def named(observation: Any, name: str = "", *, alone: bool = False) -> dict[str, Any]:
    """Parts of an observation by their dotted names, ``camera``, ``arm.angles``, ``0``. ``alone``: it is one array."""
    if alone and not isinstance(observation, Mapping):
        return {"observation": observation}
    if isinstance(observation, Mapping):
        parts = [(str(key), part) for key, part in observation.items()]
    elif isinstance(observation, (tuple, list)) and not alone and (name == "" or isinstance(observation, tuple)):
        parts = [(str(index), part) for index, part in enumerate(observation)]
    else:
        return {name: observation}
    found: dict[str, Any] = {}
    for key, part in parts:
        found.update(named(part, f"{name}.{key}" if name else key))
    return found


def encode(kind: str, texts: Mapping[str, str], arrays: Mapping[str, Any]) -> bytes:
    """A message with its length in front. ValueError for an array that may not cross, or where it is too long."""
    header: dict[str, Any] = {"__metadata__": {**texts, "offbeat": PROTOCOL, "kind": kind}}
    parts, at = [], 0
    for name, given in arrays.items():
        array = np.asarray(given)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        dtype = next((key for key, value in DTYPES.items() if np.dtype(value) == little.dtype), None)
        if dtype is None or array.ndim > MOST_AXES:
            raise ValueError(f"{name!r}: arrays of {array.dtype} with {array.ndim} axes cannot be sent")
        data = little.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    length = 8 + len(written) + at
    if length > MOST_BYTES:
        raise ValueError(f"a message of {length} bytes cannot be sent; at most {MOST_BYTES} can")
    return b"".join([length.to_bytes(4, "big"), len(written).to_bytes(8, "little"), written, *parts])


def decode(body: bytearray) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """(texts, arrays) of a message without its length. The arrays lie in ``body``, and can be written to.

    ValueError for anything that is not exactly what ``encode`` makes: a header longer than the message, an array
    outside of it, bytes that belong to none, a dtype that is not known, a size that is not that of its shape.
    """
    end = 8 + int.from_bytes(body[:8], "little")
    if len(body) < 8 or end > len(body):
        raise ValueError(f"its header ends at byte {end}, and it has {len(body)}")
    try:
        header = json.loads(body[8:end].decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON ({type(error).__name__})") from None
    texts = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("its header is no object with texts as __metadata__")
    arrays, at = {}, end
    for name, said in header.items():
        array, at = _array(body, end, at, name, said)
        arrays[name] = array
    if at != len(body):
        raise ValueError(f"its arrays end at byte {at}, and it has {len(body)}")
    return texts, arrays


def _array(body: bytearray, start: int, at: int, name: str, said: Any) -> tuple[np.ndarray, int]:
    """The array that must begin at byte ``at``, and where it ends. Places are counted from ``start``."""
    told: dict[str, Any] = said if isinstance(said, dict) else {}
    kind: Any = told.get("dtype")
    shape: Any = told.get("shape")
    places: Any = told.get("data_offsets")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"array {name[:60]!r} is of no known dtype")
    if not _counts(shape) or len(shape) > MOST_AXES or not _counts(places) or len(places) != 2:
        raise ValueError(f"array {name[:60]!r} has no shape and place that can be read")
    dtype = np.dtype(DTYPES[kind])
    size = math.prod(shape) * dtype.itemsize
    if places[0] != at - start or places[1] - places[0] != size or at + size > len(body):
        raise ValueError(f"array {name[:60]!r} does not lie where its shape says, one after the other")
    return np.frombuffer(body, dtype, math.prod(shape), at if size else 0).reshape(shape), at + size


def _counts(value: Any) -> bool:
    """Whether it is a list of whole numbers that a size may be."""
    return isinstance(value, list) and all(type(one) is int and 0 <= one <= MOST_BYTES for one in value)


def bench(client: Client, count: int) -> str:
    """Ask ``count`` times, and say in a table how long each answer took from here, in the server, and its forward."""
    example = {name: _example(said) for name, said in client.observation.items()}
    times = np.zeros((count, 4))
    for index in range(count):
        begun = time.perf_counter()
        client.act(example, first=index == 0, reward=0.0)
        took = time.perf_counter() - begun
        server, forward = float(client.last["server_s"]), float(client.last["forward_s"])
        times[index] = took, took - server, server, forward
    rows = [f"{count} actions of weights version {client.last['version']}", ""]
    rows.append(f"{'milliseconds':<22}" + "".join(f"{name:>9}" for name in ("p50", "p90", "p99", "longest")))
    for name, column in zip(("question to answer", "  on the way", "  in the server", "    its forward"), times.T):
        found = [*np.percentile(column, [50, 90, 99]), column.max()]
        rows.append(f"{name:<22}" + "".join(f"{1000 * value:>9.3f}" for value in found))
    return "\n".join(rows)


def _example(said: dict[str, Any]) -> np.ndarray:
    """An observation of the shape and dtype that a server asks for."""
    return np.array(np.broadcast_to(np.asarray(said["example"]), said["shape"]), said["dtype"])


def main(arguments: list[str] | None = None) -> int:
    """The command line: connect, say what is served, and measure."""
    parser = argparse.ArgumentParser(description="Ask a policy that 'offbeat serve' serves, and measure the answers.")
    parser.add_argument("address", help="path of the Unix socket, or HOST:PORT")
    parser.add_argument("--bench", type=int, default=1000, metavar="N", help="how many actions; default: 1000")
    parser.add_argument("--token-file", help=f"file with the token, for HOST:PORT; else it is read from {TOKEN}")
    options = parser.parse_args(arguments)
    token = os.environ.get(TOKEN, "")
    if options.token_file:
        with open(options.token_file) as opened:
            token = opened.read().strip()
    host, colon, port = options.address.rpartition(":")
    tcp = bool(colon) and port.isdigit() and not os.path.exists(options.address)
    try:
        with Client((host.strip("[]"), int(port)) if tcp else options.address, token) as client:
            about = client.about
            print(f"{about['agent']} of {about['env']}, weights {about['weights'][:16]} at {options.address}")
            print(bench(client, max(1, options.bench)))
    except (OSError, Refused) as error:
        print(f"client: error: {options.address}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
