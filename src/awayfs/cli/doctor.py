"""``doctor``: whether this machine is fit, and what to do where it is not."""

from __future__ import annotations

from dataclasses import asdict

import click

from awayfs.cli import show
from awayfs.cli.ask import json_option

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check this machine: kernel, FUSE, directories, clock, keys, passwords, leftovers."""
    from awayfs.cli import checks, checks_login

    findings = checks.findings_of((*checks.CHECKS, *checks_login.CHECKS))
    failed = [finding for finding in findings if finding.level == "fail"]
    if as_json:
        show.as_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            line = f"{_MARKS[finding.level]}  {finding.name.ljust(width)}  {finding.text}"
            click.echo(show.printable(line + (f"; {finding.advice}" if finding.advice else "")))
    if failed:
        show.complain(f"doctor: {show.count(len(failed), 'check')} failed; see the lines above")
    return 1 if failed else 0
