"""What comes of a fault: a promise that was kept, one that was broken, or a fault that cannot be made here."""

from __future__ import annotations


class Broken(Exception):
    """A promise was not kept."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected, self.got = expected, " ".join(got.split())
        super().__init__(f"expected {self.expected}, got {self.got}")


class Unfit(Exception):
    """The fault cannot happen to this run, or cannot be made on this machine; the text says why."""


def expect(kept: object, expected: str, got: object) -> None:
    """Raise ``Broken`` unless ``kept``."""
    if not kept:
        raise Broken(expected, str(got))
