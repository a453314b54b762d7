"""`python -m tokenyard.bootstrap.migrate`: brings the configured database to the newest schema."""

from tokenyard.settings import Settings
from tokenyard.storage.migrate import upgrade


def main() -> None:
    upgrade(Settings().effective_database_url)


if __name__ == "__main__":
    main()
