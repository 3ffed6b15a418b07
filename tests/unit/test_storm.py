"""What a storm is judged by, and asked for; ``tests/acceptance/test_storm.py`` plays one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.storm.__main__ import main
from tests.storm.ledger import BLOCK, Ledger, block, counted, tokens_in, torn
from tests.storm.plan import FAULTS, Plan, varied
from tests.storm.record import Record


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Record(str(tmp_path / "ops.log")))


def test_a_token_that_is_gone_is_missed(ledger: Ledger) -> None:
    token = ledger.new("a")
    ledger.wrote(token, 3, b"f")
    assert ledger.missing(counted(b"")) == {token: 3}
    assert ledger.missing(counted(block(token) * 2)) == {token: 3}
    assert ledger.missing(counted(block(token) * 3)) == {}


def test_what_somebody_took_away_is_not_missed(ledger: Ledger) -> None:
    kept, gone = ledger.new("a"), ledger.new("b")
    for token in (kept, gone):
        ledger.wrote(token, 1, b"f")
    ledger.give_up([gone], "b unlinked it")
    assert ledger.missing(counted(b"")) == {kept: 1}


def test_what_was_never_acknowledged_is_not_missed(ledger: Ledger) -> None:
    ledger.new("s")
    assert ledger.missing(counted(b"")) == {}


def test_half_a_block_is_torn() -> None:
    whole = block(b"<a000001>")
    assert len(whole) == BLOCK
    assert tokens_in(whole * 2) == {b"<a000001>"}
    assert torn(whole + bytes(BLOCK) + b"zz" + whole) == b""
    assert torn(whole + whole[5:]) == whole[5:]


def test_a_plan_is_asked_for_by_its_command() -> None:
    sorts = {varied(kind, seed, 22.0).command for kind in ("dir", "sftp") for seed in range(5)}
    assert len(sorts) == 10
    assert "--faults" not in Plan("dir", 1, faults=FAULTS).command


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "9"],
        ["--faults", "rain"],
        ["--only", "dance"],
        ["--kind", "nfs"],
        ["--actors", "server"],
    ],
)
def test_bad_input_is_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["storm", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err
