"""`lrscale ui`: opens MLflow's UI on this machine at the summary of a study."""

import argparse

from lrscale.commands import Command, add_study


def _add(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    parser.epilog = "lrscale ui audits shows the audits of training steps that lrscale audit --record has kept."
    parser.add_argument(
        "--port", type=int, default=5000, help="port of the UI; the next free port is used if it is taken (default: 5000)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address of the UI; any other address lets other machines in (default: 127.0.0.1)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the link only, and open no browser")
    parser.add_argument("--storage", metavar="URL", help="Optuna's storage for --optuna, where it is a database server")
    parser.add_argument("--optuna", action="store_true", help="open optuna-dashboard too (pip install 'lrscale[dashboard]')")


def _run(options: argparse.Namespace) -> None:
    from lrscale.mlflow_ui.serve import serve

    browser = not options.no_browser
    place = options.host, options.port
    serve(options.study, options.tracking_uri, *place, browser=browser, optuna=options.optuna, storage=options.storage)


COMMAND = Command(6, "open MLflow's UI on this machine at the summary of a study", _add, _run)
