"""Find the demo's configuration file, and the environment variables that it refers to."""

from pathlib import Path

CONFIGURATION = Path(__file__).with_name("demo.yaml")
CLIENT_ID = "demo"


def environment(
    *,
    listen: str,
    public_url: str,
    issuer: str,
    application_url: str,
    client_secret: str,
    database: Path,
    directory: Path,
) -> dict[str, str]:
    """Return every variable that `demo.yaml` reads.

    `listen` is host:port; `database` is the legacy application's SQLite file, `directory` the sidecar's own.
    """
    return {
        "DEMO_LISTEN": listen,
        "DEMO_PUBLIC_URL": public_url,
        "DEMO_ISSUER": issuer,
        "DEMO_APPLICATION": application_url,
        "DEMO_CLIENT_SECRET": client_secret,
        "DEMO_DATABASE": f"sqlite:///{database.resolve()}",
        "DEMO_DIRECTORY": f"sqlite:///{directory.resolve()}",
    }
