"""`make fuzz`: Schemathesis on all services, on MariaDB, with another seed each time.

FUZZ_SECONDS (default 300) is for all three services together, FUZZ_SEED repeats a run that found something.
Exits 1 if it did.
"""

import asyncio
import os
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.mariadb import private_server
from dev.stack import run
from tests.fuzz.campaign import SERVICES, Longer, fuzz, shop

EXAMPLES = 100


async def main() -> int:
    """Fuzz one service after the other; print what Schemathesis says of each."""
    seconds = int(os.environ.get("FUZZ_SECONDS", "300")) // len(SERVICES)
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))  # noqa: S311 - no secret
    print(f"FUZZ_SEED={seed}, {seconds} s a service", flush=True)
    failed = []
    with TemporaryDirectory(prefix="b2b-fuzz-") as folder, private_server(Path(folder)) as server:
        urls = {service: server.url(service) for service in SERVICES}
        for service in SERVICES:
            server.create_database(service)
        async with shop(Path(folder) / "services", urls) as services:
            for service in SERVICES:
                url = getattr(services, service).url
                result = await asyncio.to_thread(fuzz, url, seed=seed, longer=Longer(EXAMPLES, seconds))
                print(result.stdout, result.stderr, sep="\n", flush=True)
                if result.returncode:
                    failed.append(service)
    print(f"FUZZ_SEED={seed}: {'failed: ' + ', '.join(failed) if failed else 'nothing found'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(main()))
