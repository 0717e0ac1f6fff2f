"""``offbeat chaos``: every fault of docs/faults.md is made to happen to a real run, and what is promised is checked."""
