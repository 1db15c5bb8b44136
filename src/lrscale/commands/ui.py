"""`lrscale ui`: MLflow's own UI on this machine, opened at a study's summary."""

import argparse

from lrscale.commands import Command, add_study


def _add(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    parser.add_argument("--port", type=int, default=5000, help="port to listen on; the next free one if taken (default: 5000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; another lets others in (default: 127.0.0.1)")
    parser.add_argument("--no-browser", action="store_true", help="print the link only")
    parser.add_argument("--optuna", action="store_true", help="open optuna-dashboard too (pip install 'lrscale[dashboard]')")


def _run(options: argparse.Namespace) -> None:
    from lrscale.mlflow_ui.serve import serve

    browser = not options.no_browser
    serve(options.study, options.tracking_uri, options.host, options.port, browser=browser, optuna=options.optuna)


COMMAND = Command(6, "MLflow's own UI on this machine, opened at a study", _add, _run)
