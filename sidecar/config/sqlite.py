"""Open a file of SQLite for SQLAlchemy so that nothing of a failed attempt is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiosqlite import Connection

_PATIENCE_SECONDS = 1


async def open_file(*arguments: Any, **options: Any) -> Connection:
    """Connect as ``aiosqlite.connect`` does; for SQLAlchemy's ``async_creator_fn``. Raises sqlite3.Error.

    Where the file cannot be opened, the driver sends its thread away and does not wait for it (aiosqlite 0.22). A loop
    that ends meanwhile, as that of a command does, is answered too late, and the thread dies with a traceback.
    """
    from aiosqlite import connect  # noqa: PLC0415 - only who has such a file loads the driver

    connection = connect(*arguments, **options)
    thread = connection._thread  # noqa: SLF001 - SQLAlchemy reaches for it, too: there is no other way to it
    thread.daemon = True
    try:
        return await connection
    except Exception:
        # Its last order is to end; that takes as long as its turn to run does.
        thread.join(_PATIENCE_SECONDS)
        raise
