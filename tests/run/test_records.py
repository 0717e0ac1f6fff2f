"""Reading metrics.jsonl back, also where it is torn."""

from __future__ import annotations

from pathlib import Path

from offbeat.run.records import evaluations, read_records


def test_whole_lines_are_read_and_torn_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    text = '{"kind": "evaluation", "mean": 1}\n[3]\n{"kind": "learner"}\n' + "[" * 100_000 + "\n"
    path.write_bytes(text.encode() + b'{"note": "evaluation"}\n\xff\xfe\n{"kind": "evaluation", "me')
    assert [record.get("kind") for record in read_records(path)] == ["evaluation", "learner", None]
    assert list(read_records(path, "learner")) == [{"kind": "learner"}]
    assert evaluations(tmp_path) == [{"kind": "evaluation", "mean": 1}]
    assert list(read_records(tmp_path / "nothing")) == []
