"""Puts the parts together: settings in, one web server out. Nothing imports this file."""

import argparse
import gc
import importlib
import importlib.util
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

# Read by OpenMP and by Gradio when they are imported: docs/decisions/0004; no version check leaves the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# Only ZeroGPU has it, and there it must be imported before torch.
if importlib.util.find_spec("spaces"):
    importlib.import_module("spaces")

import gradio as gr
import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import func, select

import demo.tab
import demo.texts
from analysis import figures
from analysis.load import load_votes
from analysis.power import plan_of, simulate_power
from analysis.rates import Rate, preference_rates, selection_ratios, tie_counts, vote_counts
from analysis.votes import Votes
from asuka_infer.batch import Choices, local_engine, pair_up, run_batch
from asuka_infer.catalog import METHODS
from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from asuka_infer.datasets.sample_stimuli import write_sample_stimuli
from asuka_infer.safety import safety_check_here
from db.connections import DatabaseError
from db.engine import Database
from db.migrate import migrate
from db.models import Image
from demo.endpoint import add_endpoint
from demo.engine import DemoEngine
from demo.examples import ExampleGallery
from demo.offer import keep_offers
from demo.selection import SAM_SOURCE, ClickSelect
from demo.sweeping import keep_sweeping
from study.admin import AdminError, Admission, Role, Surroundings, admin_router
from study.api import router, utc_microseconds
from study.backup import BackupError, Backups, backup_folder, refuse_ephemeral, restore_if_absent
from study.counters import CountError
from study.definition import StudyDefinition, read_definition
from study.ingest import ingest_study
from study.journal import Journal, JournalError
from study.limits import Limits
from study.payment import PaymentKeys, Retention, keys_folder
from study.publication import PublicationError, launch, newest_version, status
from study.remote_backup import RemoteBackupError, hub_mirror
from study.results import StudyResults, study_results
from study.service import RefusedError
from study.tab import build_admin_tab, build_study_tab

TITLE = "ASUKA inpainting"
EXAMPLES = Path(__file__).parent / "study" / "examples"
BAD_INPUT = 2
"""Exit code when what was given cannot be used, as argparse has it."""

LARGEST_PORT = 65535

LONGEST_QUEUE = 20
"""Visitors that may wait for the one slot; the next is told that the app is busy (our choice)."""

SWEEP_EVERY_S, KEEP_UPLOADS_S = 3600, 86400
"""Uploads and results older than a day are deleted, looked for every hour: an idle painter's photo stays usable."""

EXAMPLE_WORKERS = 2
"""Processes that make the example study's pictures; the smallest machine we plan for has two cores."""

POWER_SIMULATIONS = 50
"""The admin page waits for them: a standard error of at most 7 points. `python -m analysis power` does more."""

POWER_SHARES = (0.6, 0.65, 0.7)

POLL_S = 1.0
"""How often the second tab looks whether the example study is ready."""

Part = Literal["demo", "study"]


class AppSettings(BaseSettings):
    """What can be set from outside, each as an environment variable ASUKA_<NAME>; the database also as DATABASE_URL."""

    model_config = SettingsConfigDict(env_prefix="ASUKA_", extra="ignore", populate_by_name=True)

    database_url: str = Field(default="sqlite:///var/asuka.db", validation_alias="DATABASE_URL")
    data_dir: Path = Path("var")
    study: str = Field(default="example", description="slug of the study in the second tab")
    example: bool = Field(default=True, description="build the example study when the second tab shows it")
    gallery: bool = Field(default=True, description="prepare the demo's examples in the background")
    offers: bool = Field(default=False, description="visitors may offer results to a study's pool of candidates")
    max_upload_mb: int = Field(default=50, gt=0)
    sam: str = Field(default=SAM_SOURCE, description="SAM 2.1 for click-select: a folder or a hub id")

    admin_owner: SecretStr = Field(default=SecretStr(""), description="password; none, no admin page")
    admin_operator: SecretStr = SecretStr("")
    admin_viewer: SecretStr = SecretStr("")
    admin_secret: SecretStr = Field(default=SecretStr(""), description="signs cookies; the same for all replicas")
    studies_dir: Path | None = Field(default=None, description="folders the admin page may make studies from")

    backup: bool = Field(default=True, description="journal and copies of a SQLite database")
    backup_dir: Path | None = Field(default=None, description="where; below the data folder by default")
    backup_every_s: float = Field(default=300, gt=0)
    backup_dataset: str = Field(default="", description="private Hugging Face dataset that mirrors the copies")
    allow_ephemeral: bool = Field(default=False, description="the answers may be lost at a restart")
    payment_keys: Path | None = None

    answers_per_second: int = Field(default=2, ge=0)
    answers_per_minute: int = Field(default=60, ge=0)
    sessions_per_minute: int = Field(default=30, ge=0)
    proxies: int = Field(default=0, ge=0, description="trusted proxies in front of the app")

    def limits(self) -> Limits:
        """How fast anybody may ask."""
        return Limits(self.answers_per_second, self.answers_per_minute, self.sessions_per_minute, self.proxies)

    def passwords(self) -> dict[Role, str]:
        """Of the roles that have one."""
        given: dict[Role, SecretStr] = {
            "owner": self.admin_owner,
            "operator": self.admin_operator,
            "viewer": self.admin_viewer,
        }
        return {role: password.get_secret_value() for role, password in given.items() if password.get_secret_value()}


class AppError(Exception):
    """Why the app cannot start, in one sentence."""


EXPECTED = (AppError, AdminError, BackupError, CountError, DatabaseError, JournalError, RemoteBackupError)
"""Why a start may fail, in words for whoever starts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the app until it is interrupted.

    Returns:
        0, or 2 after one sentence on stderr when it cannot start.
    """
    parsed = _parser().parse_args(arguments)
    # A service manager's way to stop is to end as Ctrl+C does: the journal closed, no worker left at work.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = _read_settings()
        _refuse_taken_port(parsed.host, parsed.port)
        serve(settings, only=parsed.only, host=parsed.host, port=parsed.port)
    except EXPECTED as error:
        print(f"app: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def serve(settings: AppSettings, *, only: Part | None, host: str, port: int) -> None:
    """Migrate, build the pages and serve them; returns when interrupted."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    uploads = os.environ.setdefault("GRADIO_TEMP_DIR", str(settings.data_dir.absolute() / "uploads"))
    keep_sweeping(Path(uploads), keep_s=KEEP_UPLOADS_S, every_s=SWEEP_EVERY_S)
    if only == "demo":
        _launch(_build_page(settings, None, None), [], settings, host, port)
        return
    with _open_database(settings) as (database, backups), _open_payments(settings, database) as payments:
        preparation = Preparation()
        _start_preparing(settings, database, preparation)
        page = _build_page(settings, database, preparation, with_demo=only is None)
        try:
            _launch(page, _routes(settings, database, backups, payments), settings, host, port)
        finally:
            preparation.stop()


# ------------------------------------------------------------------------------------------ the database


@contextmanager
def _open_database(settings: AppSettings) -> Generator[tuple[Database, Backups | None], None, None]:
    """Restored if it was lost, migrated, and with a second record and copies where it is a file of our own."""
    url, folder = settings.database_url, _backup_folder(settings)
    remote = hub_mirror(settings.backup_dataset) if settings.backup_dataset else None
    if folder is not None:
        restored = restore_if_absent(folder, url, remote)
        if restored is not None:
            print(f"Database restored from {restored.snapshot.path} and the journal", flush=True)
    migrate(url)
    print(f"Database ready: {_without_password(url)}", flush=True)
    with ExitStack() as stack:
        if folder is None:
            yield stack.enter_context(Database.open(url)), None
            return
        journal = Journal(folder)
        stack.callback(journal.close)
        database = stack.enter_context(Database.open(url, follower=journal))
        backups = Backups(url, folder, every_s=settings.backup_every_s, remote=remote)
        backups.start()
        stack.callback(backups.stop)
        yield database, backups


def _backup_folder(settings: AppSettings) -> Path | None:
    """Of the database; None where nothing is kept."""
    return (
        backup_folder(settings.database_url, settings.backup_dir or settings.data_dir / "backups")
        if settings.backup
        else None
    )


@contextmanager
def _open_payments(settings: AppSettings, database: Database) -> Generator[PaymentKeys | None, None, None]:
    """The keys of the recruiting platforms' ids, which are deleted when their time is up; None where none are kept."""
    folder = keys_folder(settings.database_url, settings.payment_keys)
    if folder is None:
        yield None
        return
    payments = PaymentKeys(folder)
    retention = Retention(database, payments, clock=utc_microseconds)
    retention.start()
    try:
        yield payments
    finally:
        retention.stop()


def _routes(
    settings: AppSettings, database: Database, backups: Backups | None, payments: PaymentKeys | None
) -> list[Any]:
    """The participants' routes and, where a password is set, the researcher's."""
    routes: list[Any] = []
    if settings.passwords():
        secret = settings.admin_secret.get_secret_value().encode()
        admission = Admission(settings.passwords(), secret) if secret else Admission(settings.passwords())
        around = Surroundings(
            backups=backups,
            payments=payments,
            refuse_launch=partial(
                refuse_ephemeral,
                settings.database_url,
                allowed=settings.allow_ephemeral,
                remote=bool(settings.backup_dataset),
            ),
            studies_dir=settings.studies_dir,
            planning={"power": partial(_power_table, database)},
            outcomes={"rates": partial(_outcome_table, settings.database_url)},
        )
        # Before the participants' routes, whose page takes any other word after /study/.
        routes += admin_router(database, admission, around).routes
    return [*routes, *router(database, limits=settings.limits(), payments=payments).routes]


def _power_table(database: Database, slug: str) -> Mapping[str, Any]:
    """For the admin page: what the study as designed would find."""
    with database.read() as session:
        version = newest_version(session, slug)
        images = session.scalar(select(func.count()).where(Image.version_id == version.id))
        plan = plan_of(json.loads(version.spec_json), images)
    found = [simulate_power(plan, share, simulations=POWER_SIMULATIONS) for share in POWER_SHARES]
    rows = [
        [f"{each.share:.0%}", f"{each.power:.0%}", f"{each.any_power:.0%}", f"{100 * each.interval_width:.1f} points"]
        for each in found
    ]
    return {
        "title": "What this design would find",
        "columns": ["true preference", "power, one comparison", "power, any", "width of a 95 % interval"],
        "rows": rows,
        "note": f"{POWER_SIMULATIONS} simulated studies each, two-way clustered tests, Holm over {plan.tests} tests.",
    }


def _outcome_table(url: str, slug: str) -> Mapping[str, Any]:
    """For the admin page, once results may be seen: rates with the headline intervals."""
    votes = load_votes(url, slug)
    table = _rate_table(preference_rates(votes) if votes.is_pairwise else selection_ratios(votes))
    return {
        "title": "Preference rates" if votes.is_pairwise else "Selection ratios",
        "columns": list(table.columns),
        "rows": table.astype(str).to_numpy().tolist(),
        "note": "Intervals are clustered by people and by images.",
    }


# ------------------------------------------------------------------------------------------ the example study


@dataclass
class Preparation:
    """How far the example study is; written by the thread that makes it, read by the page."""

    done: int = 0
    total: int = 0
    ready: bool = False
    error: str = ""
    stopped: bool = False

    def stop(self) -> None:
        """End what is at work for it; Python would wait until every picture is made."""
        self.stopped = True
        for worker in multiprocessing.active_children():
            worker.terminate()

    def told(self) -> str:
        """One line for people."""
        if self.error:
            return f"The example study could not be prepared: {self.error}"
        if self.ready or not self.total:
            return "The example study is ready." if self.ready else "Looking for the example study ..."
        share = self.done / self.total
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        return f"Making the example study's pictures: {bar} {self.done} of {self.total}"


def example_definition() -> StudyDefinition:
    """With the embedded methods where they can run; of classical ones on a host without torch or weights."""
    definition = read_definition(EXAMPLES / "example.yaml")
    if all(METHODS[method.key].readiness().ready for method in definition.methods):
        return definition
    return read_definition(EXAMPLES / "without_torch" / "example.yaml")


def prepare_example(settings: AppSettings, database: Database, preparation: Preparation) -> None:
    """Make the example study's pictures, bring them in and open the study; what is done already is not done again."""
    definition = example_definition()
    folder = settings.data_dir / "example-study"
    write_sample_stimuli(folder)
    pairs = pair_up(folder / "images", folder / "holes").pairs
    keys = tuple(method.key for method in definition.methods)
    preparation.total = len(pairs) * len(keys)
    for outcome in run_batch(pairs, Choices(keys), folder / "results", local_engine(EXAMPLE_WORKERS)):
        if outcome.state == "failed":
            raise AppError(f"{outcome.method} failed on {outcome.stem}: {outcome.message}")
        preparation.done += 1
    ingest_study(
        database,
        definition,
        folder / "images",
        folder / "holes",
        folder / "results",
        now=utc_microseconds(),
        random_bytes=os.urandom,
    )
    launch(database, definition.study, now=utc_microseconds(), replace=True)
    preparation.ready = True


def _start_preparing(settings: AppSettings, database: Database, preparation: Preparation) -> None:
    definition = example_definition()
    if not settings.example or settings.study != definition.study or _is_open(database, definition.study):
        preparation.ready = True
        return

    def work() -> None:
        try:
            prepare_example(settings, database, preparation)
            print("The example study is ready.", flush=True)
        except Exception as error:  # noqa: BLE001 - the rest of the app goes on; the page and the terminal say why
            if preparation.stopped:
                return
            preparation.error = f"{error}" or type(error).__name__
            print(f"app: {preparation.told()}", file=sys.stderr, flush=True)

    print("Preparing the example study in the background (once, about a minute)", flush=True)
    threading.Thread(target=work, name="example-study", daemon=True).start()


def _is_open(database: Database, slug: str) -> bool:
    try:
        with database.read() as session:
            return status(session, slug).status in {"live", "draining"}
    except PublicationError:
        return False


# ------------------------------------------------------------------------------------------ the pages


def _build_page(
    settings: AppSettings, database: Database | None, preparation: Preparation | None, *, with_demo: bool = True
) -> gr.Blocks:
    with gr.Blocks(title=TITLE, delete_cache=(SWEEP_EVERY_S, KEEP_UPLOADS_S)) as page, gr.Tabs():
        if with_demo:
            with gr.Tab(demo.texts.interface("tabInpaint"), id="inpaint"):
                _build_demo(settings)
        if database is not None and preparation is not None:
            with gr.Tab(demo.texts.interface("tabStudy"), id="study") as study_tab:
                _build_study(settings, preparation, study_tab)
            with gr.Tab(demo.texts.interface("tabResults"), id="results") as results_tab:
                _build_results(settings, database, results_tab)
            if settings.passwords():
                with gr.Tab(demo.texts.interface("tabAdministration"), id="administration"):
                    build_admin_tab()
    return page


def _build_demo(settings: AppSettings) -> None:
    """The first tab and the function for programs, which share one engine."""
    engine = DemoEngine(SAMPLE_PICTURES, may_be_shown=safety_check_here())
    gallery = ExampleGallery(engine, settings.data_dir / "examples") if settings.gallery else None
    if gallery is not None:
        gallery.prepare_in_background()
    demo.tab.build_demo_tab(
        engine,
        max_megabytes=settings.max_upload_mb,
        select=ClickSelect(settings.sam),
        offer=keep_offers(settings.data_dir / "offers") if settings.offers else None,
        gallery=gallery,
    )
    add_endpoint(engine)


def _build_study(settings: AppSettings, preparation: Preparation, tab: gr.Tab) -> None:
    """The participant's page, or how far the example study is until there is one."""
    told = gr.Markdown(preparation.told(), visible=not preparation.ready, elem_id="study-preparation")
    with gr.Column(visible=preparation.ready) as room:
        build_study_tab(settings.study)
    timer = gr.Timer(POLL_S, active=False)

    def look() -> tuple[Any, Any, Any]:
        waiting = not preparation.ready and not preparation.error
        return (
            gr.Markdown(preparation.told(), visible=not preparation.ready),
            gr.Column(visible=preparation.ready),
            gr.Timer(active=waiting),
        )

    tab.select(look, None, [told, room, timer], show_progress="hidden", api_visibility="private")
    timer.tick(look, None, [told, room, timer], show_progress="hidden", api_visibility="private")


def _build_results(settings: AppSettings, database: Database, tab: gr.Tab) -> None:
    """Counts and rates, as soon as the study's definition lets them be seen."""
    # Each part is hidden by itself: a plot in a hidden column that one answer both shows and fills stays empty
    # (seen with Gradio 6.31).
    with gr.Row(equal_height=False):
        summary = gr.Markdown(elem_id="results-summary")
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=120, elem_id="results-refresh")
    bars = gr.Plot(show_label=False, visible=False, elem_id="results-rates")
    criterion = gr.Radio(label="Pair by pair", visible=False, elem_id="results-criterion")
    pairs = gr.Plot(show_label=False, visible=False, elem_id="results-pairs")
    table = gr.Dataframe(interactive=False, wrap=True, visible=False, elem_id="results-table", show_label=False)
    download = gr.HTML(
        f'<a href="study/api/v1/studies/{settings.study}/votes.csv" download="{settings.study}-votes.csv" '
        'id="results-csv">Download the votes (CSV)</a>',
        visible=False,
    )

    def look(asked: str | None) -> tuple[Any, ...]:
        return _show_results(settings, database, asked)

    for trigger in (tab.select, refresh.click, criterion.input):
        trigger(
            look,
            criterion,
            [summary, bars, criterion, pairs, table, download],
            show_progress="hidden",
            api_visibility="private",
        )


def _show_results(settings: AppSettings, database: Database, asked: str | None) -> tuple[Any, ...]:
    """The words, the two figures with the choice between criteria, the table and the download link."""
    hidden = (gr.Plot(visible=False), gr.Radio(visible=False), gr.Plot(visible=False))
    nothing = (*hidden, gr.Dataframe(visible=False), gr.HTML(visible=False))
    try:
        with database.read() as session:
            results = study_results(session, settings.study)
    except RefusedError as error:
        return (str(error), *nothing)
    if not results.visible or not results.votes:
        return (_summary(results, results.why_hidden or "No answer has been given yet."), *nothing)
    votes = load_votes(settings.database_url, settings.study, version=results.version)
    votes = replace(votes, criteria=tuple(_in_english(results.criteria[key], key) for key in votes.criteria))
    rates = selection_ratios(votes)
    shown = asked if asked in votes.criteria else votes.criteria[0]
    return (
        _summary(results, _why_no_interval(rates)),
        gr.Plot(figures.rate_bars(rates, votes.methods), visible=True),
        gr.Radio(choices=list(votes.criteria), value=shown, visible=votes.is_pairwise),
        gr.Plot(_pair_figure(votes, shown), visible=votes.is_pairwise),
        gr.Dataframe(_rate_table(rates), visible=True),
        gr.HTML(visible=True),
    )


def _summary(results: StudyResults, remark: str) -> str:
    people = "1 completed session" if results.completed == 1 else f"{results.completed} completed sessions"
    return (
        f"### {_in_english(results.title, results.slug)}\n{results.votes} answers, {people}. "
        f"Status: {results.status}. Definition `{results.sha256[:12]}`. {remark}"
    )


def _in_english(texts: Mapping[str, str], otherwise: str) -> str:
    return texts.get("en", otherwise)


def _pair_figure(votes: Votes, criterion: str) -> go.Figure | None:
    if not votes.is_pairwise:
        return None
    return figures.win_heatmap(vote_counts(votes, criterion), tie_counts(votes, criterion), votes.methods)


def _rate_table(rates: Sequence[Rate]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "criterion": rate.criterion,
            "method": rate.method,
            "preferred, %": rate.percent(),
            "95 % interval": _interval(rate),
            "wins": rate.wins,
            "ties": rate.ties,
            "losses": rate.losses,
            "trials": rate.n,
            "people": rate.participants,
            "images": rate.images,
        }
        for rate in rates
    )


def _why_no_interval(rates: Sequence[Rate]) -> str:
    notes = {rate.interval.note for rate in rates if rate.interval.low is None and rate.interval.note}
    return f"No intervals yet: {min(notes)}." if notes else ""


def _interval(rate: Rate) -> str:
    low, high = rate.interval.low, rate.interval.high
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


# ------------------------------------------------------------------------------------------ the server


def _launch(page: gr.Blocks, routes: Sequence[Any], settings: AppSettings, host: str, port: int) -> None:
    page.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=1)
    page.launch(
        server_name=host,
        server_port=port,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        mcp_server=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=f"{settings.max_upload_mb}mb",
        css=demo.tab.CSS,
        i18n=demo.texts.interface,
        app_kwargs={"routes": list(routes), "docs_url": None, "redoc_url": None, "openapi_url": None},
    )
    # Else every full collection walks all that the libraries have made, for 90 ms in which everybody waits (measured).
    gc.collect()
    gc.freeze()
    print(f"Serving on http://{host}:{port} (stop with Ctrl+C)", flush=True)
    page.block_thread()


def _read_settings() -> AppSettings:
    try:
        return AppSettings()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = "_".join(str(part) for part in wrong["loc"]).upper()
        name = name if name == "DATABASE_URL" else f"ASUKA_{name}"
        raise AppError(f"{name} is {wrong['input']!r}: {wrong['msg']}; set another value or unset it.") from error


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{port} is no port; choose one from 1 to {LARGEST_PORT}")
    return port


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AppError(
                f"Port {port} on {host} cannot be used ({error.strerror}); stop what runs there or choose another, "
                f"for example: make run PORT={port % LARGEST_PORT + 1}"
            ) from error


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python app.py", description=__doc__)
    parser.add_argument("--only", choices=("demo", "study"), help="serve one part; a study needs no torch")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=_port, default=os.environ.get("GRADIO_SERVER_PORT", "7860"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
