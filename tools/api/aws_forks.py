"""Runs commands of the aws CLI, each in a process of its own that begins where the modules and models are loaded already.

Usage: aws_forks.py DIRECTORY

For each line of standard input the words in DIRECTORY/words, each ended by a zero byte, are a command. Its output is put in
DIRECTORY/out, what it says in DIRECTORY/said, and its exit code is a line of standard output.
"""

import contextlib
import os
import sys
import traceback

from awscli.clidriver import create_clidriver

HELP = ["ec2", "describe-regions", "--region", "us-east-1", "--generate-cli-skeleton"]


def child(driver, directory):
    with open(os.path.join(directory, "words"), encoding="utf-8") as file:
        words = file.read().split("\0")[:-1]
    for name, number in (("out", 1), ("said", 2)):
        file = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    # The command finds its surroundings as they are now.
    try:
        code = driver.main(words)
    except BaseException:
        traceback.print_exc()
        code = 255
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    driver = create_clidriver()
    with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing):
        # Loads what all commands need.
        driver.main(HELP)
    for _ in sys.stdin:
        process = os.fork()
        if process == 0:
            child(driver, sys.argv[1])
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
