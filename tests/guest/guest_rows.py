"""Inside of a guest: runs rows of the catalog, and says of each how it went."""
import os
import subprocess
import sys
import time

TIMEOUT_S = 120


def main(driver, *arguments):
    """driver.py, its options, and NAME.MODE for each row."""
    options = [argument for argument in arguments if argument.startswith("--")]
    failed = 0
    for row in (argument for argument in arguments if not argument.startswith("--")):
        name, mode = row.rsplit(".", 1)
        began = time.monotonic()
        try:
            done = subprocess.run([sys.executable, "-B", driver, *options, f"--mode={mode}", name], text=True,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S)
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired:
            status, output = 1, f"it takes more than {TIMEOUT_S} s"
        word = {0: "passed", 77: "skipped"}.get(status, "FAILED")
        failed += word == "FAILED"
        print(f"{row}: {word}, {time.monotonic() - began:.1f} s", flush=True)
        if word != "passed":
            print("".join(f"    {line}\n" for line in output.strip().splitlines()[-25:]), end="", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
