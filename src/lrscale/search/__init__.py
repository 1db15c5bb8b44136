"""Which lrs are tried next. The only folder that imports Optuna; besides it `study` and below."""
