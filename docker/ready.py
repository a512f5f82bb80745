"""The containers' health check: exits with 0 when every URL given answers with success.

Standard library only, and quick: it runs every few seconds.
"""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5


def main(urls: list[str]) -> int:
    """0 when all answer; else 1, and the reason on stderr."""
    for url in urls:
        try:
            urllib.request.urlopen(url, timeout=TIMEOUT_S).close()
        except (urllib.error.URLError, OSError) as error:
            print(f"{url}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
