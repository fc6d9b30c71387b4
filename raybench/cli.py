"""The verbs: parse, call, print. Each verb imports its room when it is called, so that `--help` is instant."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raybench import __version__
from raybench.cluster import environment
from raybench.cluster.jobs import JOBS
from raybench.errors import RaybenchError

if TYPE_CHECKING:
    from raybench.s3 import Prefix

app = typer.Typer(
    help="Load-tests foundation-model endpoints on SageMaker: which is cheapest inside your latency budget, and can "
    "you trust the number?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

HOME = environment.home()

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML config file.", show_default=False)]
RunDirectory = Annotated[
    str, typer.Argument(metavar="RUN_DIR", help="The directory of a run, or s3://BUCKET/PREFIX.", show_default=False)
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]
Cluster = Annotated[str, typer.Option(help="Ray cluster: local, auto, or HOST:PORT; in a Ray job its own, by auto.")]
Jobs = Annotated[str, typer.Option(help="The cluster's Ray Jobs API, http://HOST:PORT.")]
Out = Annotated[Path | None, typer.Option(help="Run directory to make; default runs/NAME-TIME.", show_default=False)]
Place = Annotated[
    str | None,
    typer.Option("--out", help="Run directory to make, or s3://BUCKET/PREFIX; default runs/NAME-TIME."),
]


@app.command()
def run(
    config: ConfigFile,
    out: Place = None,
    address: Cluster = HOME,
    enforce: Annotated[bool, typer.Option("--enforce", help="Exit 4 if no setting meets every criterion.")] = False,
    selftest: Annotated[bool, typer.Option(help="Measure the load actors' own error first.")] = True,
    ship: Annotated[bool, typer.Option("--ship", hidden=True, help="Print the run directory, framed.")] = False,
) -> None:
    """Measure what CONFIG asks for and report."""
    from raybench.cluster.monitor import Screen
    from raybench.config import load_config
    from raybench.errors import InputError, StorageError
    from raybench.run import run as play

    checked = load_config(config)
    place, to = _place(out, checked.name)
    enforce |= checked.criteria.enforce
    framed = ship and not to
    try:
        play(checked, place, address, Screen(), enforce=enforce, selftest=selftest, to=to)
    except StorageError:
        framed = ship  # S3 may not have all of it
        raise
    except InputError:
        framed = False  # nothing was started: what is there is another run
        raise
    finally:
        if framed and place.is_dir():
            from raybench.cluster.frames import ship as lines

            for line in lines(place):
                print(line, flush=True)


def _place(out: str | None, name: str) -> "tuple[Path, Prefix | None]":
    """The directory that a run works in, and where in S3 it is copied to, if it is."""
    from raybench import s3
    from raybench.rundir import default_path

    to = s3.prefix(out) if out and s3.is_url(out) else None
    return (Path(out) if out and not to else default_path(name)), to


def _at_hand(run_dir: str) -> Path:
    """A run directory on this machine, fetched from S3 if it is there."""
    from raybench.fetching import at_hand

    return at_hand(run_dir, lambda text: print(text, file=sys.stderr))


@app.command()
def submit(
    config: ConfigFile,
    out: Place = None,
    address: Jobs = JOBS,
) -> None:
    """Measure CONFIG as a job of a Ray cluster. Follows it, and fetches its run directory."""
    from raybench.cluster.monitor import Screen
    from raybench.cluster.submit import submit as send
    from raybench.config import load_config

    checked = load_config(config)
    place, to = _place(out, checked.name)
    raise typer.Exit(send(checked, address, place, Screen(), to))


@app.command()
def attach(job: JobId, out: Out = None, address: Jobs = JOBS) -> None:
    """Follow a submitted job again, and fetch its run directory."""
    from raybench.cluster.monitor import Screen
    from raybench.cluster.submit import attach as follow
    from raybench.rundir import default_path

    raise typer.Exit(follow(job, address, out or default_path(job), Screen()))


@app.command()
def stop(job: JobId, address: Jobs = JOBS) -> None:
    """Ask a submitted job to drain and report what there is."""
    from raybench.cluster.monitor import Screen
    from raybench.cluster.submit import stop as ask

    ask(job, address, Screen())


@app.command()
def plan(
    config: ConfigFile,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Play it in virtual time first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Validate CONFIG and print its trials, time and cost. Touches nothing."""
    from raybench import plan_text
    from raybench.config import load_config
    from raybench.plan import plan as planned_by

    checked = load_config(config)
    planned = planned_by(checked)
    if rehearse:
        from raybench import rehearsal_text
        from raybench.rehearsal import rehearse as play

        rehearsal = play(checked, planned)
        print(json.dumps(rehearsal_text.as_dict(rehearsal), indent=1) if as_json else rehearsal_text.text(rehearsal))
    else:
        print(json.dumps(plan_text.as_dict(planned), indent=1) if as_json else plan_text.text(planned))


@app.command()
def report(
    run_dir: RunDirectory,
    png: Annotated[bool, typer.Option("--png", help="Also write each chart as PNG, beside its SVG.")] = False,
) -> None:
    """Rebuild the reports of RUN_DIR from its rows. Writes trials.parquet, report.html and report.md."""
    from raybench.publish import report as rebuild

    rebuild(_at_hand(run_dir), png)


@app.command()
def resume(
    run_dir: RunDirectory,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: local, auto, or HOST:PORT; by default where the run was.")
    ] = None,
    selftest: Annotated[bool, typer.Option(help="Measure the load actors' own error first.")] = True,
    inputs: Annotated[
        Path | None, typer.Option(help="Where the config's paths start from, if not where they did.")
    ] = None,
) -> None:
    """Play what is left of the run in RUN_DIR. Reports all of it; a finished run stays as it is."""
    from raybench import fetching, s3
    from raybench.cluster.monitor import Screen
    from raybench.resume import resume as go_on

    screen, to = Screen(), s3.prefix(run_dir) if s3.is_url(run_dir) else None
    path = fetching.taken_over(to, screen.say) if to else Path(run_dir)
    go_on(path, address, screen, selftest=selftest, inputs=inputs, to=to)


@app.command("open")
def open_(run_dir: RunDirectory) -> None:
    """Open the report of RUN_DIR in the browser and print its path."""
    from raybench.report.browse import open_page

    page, opened = open_page(_at_hand(run_dir))
    print(page)
    if not opened:
        print("raybench: no browser here; open the file where there is one", file=sys.stderr)


@app.command()
def status(
    run_dir: RunDirectory,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print how far the run in RUN_DIR is. Live figures too, while it measures."""
    from raybench import fetching
    from raybench.cluster import status as room

    with fetching.glimpsed(run_dir) as path:
        found = room.status(path) | {"run_dir": run_dir.rstrip("/")}
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        room.show(found)


@app.command()
def deploy(
    config: ConfigFile,
    hours: Annotated[float, typer.Option(min=0.1, max=168, help="How long until `gc` may delete them.")] = 2.0,
) -> None:
    """Create the endpoints that CONFIG says to deploy. Waits until they serve; they cost until torn down."""
    from raybench.config import load_config
    from raybench.deploying import deploy as make

    make(load_config(config), int(hours * 3600), print)


@app.command()
def teardown(config: ConfigFile) -> None:
    """Delete the endpoints that CONFIG deployed. Their configs and models too; prints what they cost."""
    from raybench.config import load_config
    from raybench.deploying import teardown as end

    end(load_config(config), print)


@app.command()
def gc(
    run: Annotated[str | None, typer.Option(help="All of this config's name, expired or not.")] = None,
    region: Annotated[str | None, typer.Option(help="Only here; default yours and the ledger's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is found.")] = False,
) -> None:
    """Find endpoints that a crash left behind or that expired. Only raybench's own are ever touched."""
    from raybench.deploying import gc as sweep

    sweep(run, region, yes, print)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The config file to make.")] = Path("raybench.yaml"),
) -> None:
    """Write a commented config to start from."""
    from raybench.starter import init as write

    write(file)
    print(f"{file}: now `raybench plan {file}`, then `raybench run {file}`")


@app.command()
def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A run directory.", show_default=False)],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="Another one.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Default CANDIDATE/compare-BASE.", show_default=False)] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare even what is not comparable.")] = False,
    enforce: Annotated[bool, typer.Option("--enforce", help="Exit 4 if anything got worse.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs: worse, better, same or can't tell. Cell by cell; writes compare.html and compare.md."""
    from raybench import comparing, comparing_text

    before, after = _at_hand(base), _at_hand(candidate)
    found = comparing.compare(before, after, out, anyway)
    print(comparing_text.as_json(found) if as_json else comparing_text.text(found))
    print(f"comparison: {comparing.folder(found, after, out) / 'compare.html'}", file=sys.stderr)
    comparing.gate(found, enforce=enforce)


@app.command()
def simulate(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="fixed, llama2-70b-g5-tgi or llama2-70b-p4d-tgi.")
    ] = "fixed",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """Serve a local endpoint that speaks SageMaker's Runtime API. Ends when interrupted."""
    from raybench.simulator.launch import simulate as serve

    serve(profile, port)


@app.command()
def selftest(
    actors: Annotated[int, typer.Option(min=1, help="Load actors that measure at once.")] = 1,
    address: Cluster = HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine's own error against the simulator."""
    from raybench import selftest_text
    from raybench.cluster.monitor import Screen
    from raybench.selftest import selftest as measured

    found = measured(actors, address, Screen())
    print(json.dumps(found.as_dict(), indent=1) if as_json else selftest_text.text(found))


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What may stand before a verb."""


def main() -> None:
    """Runs a verb; a failure of ours is one line and its exit code, never a traceback."""
    try:
        app()
    except RaybenchError as error:
        print(f"raybench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
