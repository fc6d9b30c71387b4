"""Writes a run's reports into its directory: report.html, report.md, and the charts as files of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raybench.analysis.decide import Decision
from raybench.analysis.reduce import Findings
from raybench.report.view import look
from raybench.rundir import MARKDOWN, PAGE, RunDir

FILES = {
    "price": "business_summary",
    "error_rates": "error_rates",
    "tokens_latency": "tokens_vs_latency",
    "load_latency": "concurrency_vs_inference_latency",
}
"""Chart -> the name of its file where the seed has one; the others go by their own."""


def build(run_dir: Path, findings: Findings, decision: Decision, manifest: Mapping[str, Any]) -> None:
    """Writes report.html, report.md and charts/*.svg; the same inputs give the same bytes.

    What an earlier report of the run drew and this one does not is taken away.
    """
    from raybench.report import figures, markdown, page, vega
    from raybench.report.charts import style

    view = look(findings, decision, manifest)
    with style.unchecked():
        drawn = figures.draw(view)
    stems = {name: FILES.get(name, name) for name in figures.CHARTS}
    files = {f"charts/{stems[name]}.svg": vega.standalone(figure.drawing) for name, figure in drawn.items()}
    files[MARKDOWN] = markdown.write(view, [stems[name] for name in drawn])
    files[PAGE] = page.render(view, drawn)
    for name, text in files.items():
        RunDir(run_dir).write(name, text.encode())
    for name in figures.CHARTS.keys() - drawn.keys():
        for kind in ("svg", "png"):
            (run_dir / "charts" / f"{stems[name]}.{kind}").unlink(missing_ok=True)


def pictures(run_dir: Path) -> None:
    """Writes each of charts/*.svg as a PNG beside it, for places that show no SVG."""
    from raybench.report import vega

    for path in sorted((run_dir / "charts").glob("*.svg")):
        RunDir(run_dir).write(f"charts/{path.stem}.png", vega.picture(path.read_text("utf-8")))


def warm_up() -> None:
    """Loads what `build` needs, about two seconds of CPU, so that a thread can have it ready in time."""
    import pandas  # noqa: F401  (a job's Ray imports it too: Altair looks at it wherever it is, even half imported)

    from raybench.report import vega
    from raybench.report.charts import style

    vega.bundle()
    vega.drawing(vega.compiled(style.spec("simple", style.simple())), "simple")
