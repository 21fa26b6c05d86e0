"""Search over configurations with Optuna: `python scripts/sweep_optuna.py --trials 20 --config CONFIG.yaml`.

Each trial is a normal run of `asr train` in a process of its own, in FOLDER/trialN, with its checkpoints, logs and
report. The study is a file, FOLDER/study.db: the same command goes on with it, and several at once share the trials.
What is searched stands in `suggest`, which is meant to be edited.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import optuna


def suggest(trial: optuna.Trial) -> dict[str, object]:
    """Draw one configuration: keys of `asr train --print-config`."""
    return {
        "optimizer.learning_rate": trial.suggest_float("optimizer.learning_rate", 3e-4, 1e-2, log=True),
        "optimizer.weight_decay": trial.suggest_float("optimizer.weight_decay", 1e-3, 1e-1, log=True),
        "model.dropout": trial.suggest_float("model.dropout", 0.0, 0.4, step=0.1),
        "spec_augment.time_masks": trial.suggest_int("spec_augment.time_masks", 0, 4),
    }


def main() -> None:
    """Command line; what it does not know goes to `asr train`."""
    parser = argparse.ArgumentParser(description="Search over configurations with Optuna.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep"))
    arguments, settings = parser.parse_known_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    def objective(trial: optuna.Trial) -> float:
        run = arguments.folder / f"trial{trial.number}"
        drawn = [f"--{key}={value}" for key, value in suggest(trial).items()]
        command = [sys.executable, "-m", "asr", "train", *settings, *drawn, f"--run.folder={run}"]
        trial.set_user_attr("command", " ".join(command[1:]))
        with (arguments.folder / f"trial{trial.number}.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        summary = run / "summary.json"
        if not summary.is_file():  # diverged, or a mistake in the settings: the log says which
            raise optuna.TrialPruned(f"no model; see {log.name}")
        return json.loads(summary.read_text("utf-8"))["dev_wer"]

    study = optuna.create_study(
        study_name="sweep",
        storage=f"sqlite:///{arguments.folder}/study.db",
        load_if_exists=True,
    )
    study.optimize(objective, n_trials=arguments.trials)
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if not done:
        sys.exit(f"no trial came to a model; see {arguments.folder}/trial*.log")
    print(" trial  dev WER (%)  values")
    for trial in sorted(done, key=lambda trial: trial.value):
        values = ", ".join(f"{key} {value:.4g}" for key, value in trial.params.items())
        print(f"{trial.number:>6}  {100 * trial.value:11.2f}  {values}")
    print(f"best: {arguments.folder}/trial{study.best_trial.number}/config.yaml")


if __name__ == "__main__":
    main()
