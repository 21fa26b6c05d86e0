"""Print a script that completes commands and options in a shell.

asr completion bash > ~/.local/share/bash-completion/completions/asr
asr completion zsh > ~/.zfunc/_asr                  with fpath+=~/.zfunc in .zshrc
"""

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"shell: {', '.join(SHELLS)}")


def run(arguments: argparse.Namespace) -> int:
    """Print the script. Raises ModuleNotFoundError if shtab is not installed."""
    import shtab

    from asr.cli.parser import whole_parser

    print(shtab.complete(whole_parser(), arguments.shell))
    return 0
