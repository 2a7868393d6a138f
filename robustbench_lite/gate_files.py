"""What the gate found, in the files that continuous integration reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from robustbench_lite.checking import Checked, trust_of
from robustbench_lite.gate import Answer, Finding, overall
from robustbench_lite.trust import Trust

SUMMARY_BYTES = 64 * 1024
ANNOTATIONS = 10
_NAMED = 10
_MARK = {Answer.PASS: "PASS", Answer.FAIL: "FAIL", Answer.INCONCLUSIVE: "INCONCLUSIVE"}


def sentence(model: str, finding: Finding) -> str:
    """What was found, for people: figures, interval and answer in one line."""
    c = finding.counts
    text = (
        f"{model} {c.name}: {_percent(c.before, c.n)} % -> {_percent(c.after, c.n)} %, drop "
        f"{100 * finding.low:+.1f} to {100 * finding.high:+.1f} points, {c.lost} lost, "
        f"{c.gained} gained of {c.n}, p {finding.p:.2g}: {_MARK[finding.answer]}"
    )
    if finding.needed:
        text += f", about {finding.needed} more samples needed"
    return text


def as_markdown(every: Sequence[Checked]) -> str:
    """A summary for a pull request, at most 64 KiB."""
    answer = overall([f for one in every for f in one.findings])
    trusted = trust_of(every) is not Trust.FAIL
    lines = [
        f"### Robustness: {_MARK[answer] if trusted else 'NOT TO BE TRUSTED'}",
        "",
        "| model | measured | was % | is % | drop | 95 % CI | lost | gained | n | p | |",
        "| :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: | :-- |",
    ]
    for one in every:
        for f in one.findings:
            c = f.counts
            more = f", about {f.needed} more samples needed" if f.needed else ""
            cells = (
                one.model.replace("|", "\\|"),
                c.name,
                _percent(c.before, c.n),
                _percent(c.after, c.n),
                f"{100 * (c.lost - c.gained) / c.n:+.1f}",
                f"{100 * f.low:+.1f} to {100 * f.high:+.1f}",
                c.lost,
                c.gained,
                c.n,
                f"{f.p:.2g}",
                _MARK[f.answer] + more,
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    told = dict.fromkeys(f"* {d.trust}: {d}" for one in every for d in one.doubts)
    lines += ["", *told] if told else []
    for one in every:
        for name, lost in one.lost.items():
            if lost:
                more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
                lines += ["", f"Lost by {one.model}, {name}: {', '.join(lost[:_NAMED])}{more}"]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > SUMMARY_BYTES:
        note = "\n(cut: the whole is in the JSON file)\n"
        whole_lines = text.encode()[: SUMMARY_BYTES - len(note)].rpartition(b"\n")[0]
        text = whole_lines.decode() + "\n" + note
    return text


def as_junit(every: Sequence[Checked], threats: Sequence[Sequence[str]]) -> bytes:
    """A test suite of a test case a model, measurement and threat."""
    root = ElementTree.Element("testsuites", name="robustness")
    for one, told in zip(every, threats, strict=True):
        answers = [f.answer for f in one.findings]
        lies = [str(doubt) for doubt in one.doubts if doubt.trust is Trust.FAIL]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=one.model,
            tests=str(len(answers) + len(lies[:1])),
            failures=str(answers.count(Answer.FAIL)),
            skipped=str(answers.count(Answer.INCONCLUSIVE)),
            errors=str(len(lies[:1])),
            time=f"{one.seconds:.3f}",
        )
        for finding, threat in zip(one.findings, ["", *told], strict=True):
            name = f"{finding.counts.name} {threat}".strip()
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"robustness.{one.model}", name=name, time="0"
            )
            text = sentence(one.model, finding)
            if finding.answer is Answer.FAIL:
                failure = ElementTree.SubElement(case, "failure", message=text)
                failure.text = "\n".join(one.lost[finding.counts.name][:_NAMED])
            elif finding.answer is Answer.INCONCLUSIVE:
                ElementTree.SubElement(case, "skipped", message=text)
            else:
                ElementTree.SubElement(case, "system-out").text = text
        if lies:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"robustness.{one.model}", name="trust", time="0"
            )
            ElementTree.SubElement(case, "error", message="; ".join(lies))
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def as_json(every: Sequence[Checked]) -> str:
    """Everything; `trend` is what github-action-benchmark reads (customBiggerIsBetter)."""
    return json.dumps(
        {
            "answer": str(overall([f for one in every for f in one.findings])),
            "trust": str(trust_of(every)),
            "checks": [_told(one) for one in every],
        },
        indent=1,
        allow_nan=False,
    )


def as_trend(every: Sequence[Checked]) -> str:
    """Accuracies for charts over commits, in github-action-benchmark's customBiggerIsBetter."""
    points = [
        {
            "name": f"{one.model} {f.counts.name}",
            "unit": "%",
            "value": round(100 * f.counts.after / f.counts.n, 3),
            "extra": sentence(one.model, f),
        }
        for one in every
        for f in one.findings
    ]
    return json.dumps(points, indent=1)


def _told(one: Checked) -> dict[str, Any]:
    return {
        "model": one.model,
        "data": one.data,
        "n": one.n,
        "samples_of_baseline": one.total,
        "seconds": round(one.seconds, 3),
        "doubts": [doubt.to_json() for doubt in one.doubts],
        "measured": [
            {
                "name": f.counts.name,
                "answer": str(f.answer),
                "was": f.counts.before / f.counts.n,
                "is": f.counts.after / f.counts.n,
                "lost": f.counts.lost,
                "gained": f.counts.gained,
                "p": f.p,
                "drop_interval": [f.low, f.high],
                "needed": f.needed,
                "lost_samples": list(one.lost[f.counts.name]),
            }
            for f in one.findings
        ],
    }


def as_openmetrics(every: Sequence[Checked]) -> str:
    """Gauges of accuracy, of flips and of the answer, for Prometheus and the like."""
    families: list[tuple[str, str, list[str]]] = [
        ("rbl_accuracy", "Share of samples that the model gets right.", []),
        ("rbl_accuracy_baseline", "The same of the baseline.", []),
        ("rbl_lost_samples", "Samples that were right and are not.", []),
        ("rbl_gained_samples", "Samples that are right and were not.", []),
        ("rbl_gate", "1 for the answer that the gate gave.", []),
    ]
    for one in every:
        for f in one.findings:
            c = f.counts
            labels = f'model="{_escaped(one.model)}",measured="{_escaped(c.name)}"'
            values = (c.after / c.n, c.before / c.n, c.lost, c.gained)
            for (name, _, lines), value in zip(families[:-1], values, strict=True):
                lines.append(f"{name}{{{labels}}} {value}")
            families[-1][2].extend(
                f'rbl_gate{{{labels},answer="{answer}"}} {int(answer is f.answer)}'
                for answer in Answer
            )
    text = ""
    for name, told, lines in families:
        text += f"# HELP {name} {told}\n# TYPE {name} gauge\n" + "".join(f"{s}\n" for s in lines)
    return text + "# EOF\n"


def as_annotations(every: Sequence[Checked]) -> list[str]:
    """Lines that GitHub shows beside a commit, failures first, at most ten."""
    of = {Answer.FAIL: "error", Answer.INCONCLUSIVE: "warning"}
    found = [
        (list(of).index(f.answer), f"::{of[f.answer]} title=robustness::{_data(one.model, f)}")
        for one in every
        for f in one.findings
        if f.answer in of
    ]
    return [line for _, line in sorted(found, key=lambda pair: pair[0])][:ANNOTATIONS]


def _data(model: str, finding: Finding) -> str:
    """A sentence as GitHub's commands want it."""
    text = sentence(model, finding).replace("%", "%25")
    return text.replace("\r", "%0D").replace("\n", "%0A")


def _percent(part: int, n: int) -> str:
    return f"{100 * part / n:.1f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
