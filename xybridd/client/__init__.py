"""The app's side: record, and go on with your work.

`client` is the face: its calls put what they are given into a bounded queue and return. `flusher` is one thread that
takes it from there and makes numbered batches (`outbox`). `carrier` sends them over a `connection`, keeps each until
the daemon says that it is on disk, and sends again what was not answered; what cannot be sent it puts into the `spool`.
Only `connection` touches the socket.

Nothing of the daemon is imported here, and msgspec only on the flusher's thread: importing xybridd costs an app little.
"""
