"""What a run's kernel executes: ipykernel, which here loses no outputs and opens no port.

A script of its own, so that a kernel imports the kit only when its notebook does.
"""

import sys

#: The most bytes that a cell may show; a loop that prints for ever would fill the memory.
MOST_SHOWN = 100_000_000
SHOWN = ("stream", "display_data", "execute_result")


def main() -> None:
    """Start a kernel, as ``python -m ipykernel_launcher -f FILE`` does."""
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this script
    import json
    import os
    from pathlib import Path

    import zmq
    from ipykernel import kernelapp
    from jupyter_client.jsonutil import json_default
    from jupyter_client.session import DELIM
    from zmq.eventloop.zmqstream import ZMQStream

    connection = Path(sys.argv[sys.argv.index("-f") + 1])
    pipe = f"ipc://{connection.parent}/pipe"

    class Outputs(kernelapp.IOPubThread):
        """Sends outputs, however many there are; ipykernel drops some above 1000.

        Of a cell that shows more than MOST_SHOWN bytes at a time, the rest is left out.
        """

        shown = 0

        def __init__(self, socket, *args, **options):
            socket.setsockopt(zmq.SNDHWM, 0)
            super().__init__(socket, *args, **options)

        def _really_send(self, msg, *args, **options):
            start = msg.index(DELIM)
            header, parent, *content = msg[start + 2 :]
            kind = json.loads(header)["msg_type"]
            if kind in ("execute_input", "clear_output"):
                self.shown = 0
            if kind in SHOWN:
                before = self.shown
                self.shown += sum(map(len, content))
                if before > MOST_SHOWN:
                    return
                if self.shown > MOST_SHOWN:
                    text = f"What this cell shows beyond {MOST_SHOWN:,} bytes is left out.\n"
                    said = {"name": "stderr", "text": text}
                    app.session.send(self.socket, "stream", said, json.loads(parent), msg[:start])
                    return
            super()._really_send(msg, *args, **options)

    class PrivateOutputs(Outputs):
        """Takes outputs of forked processes through a socket in the kernel's folder, not TCP."""

        def _setup_pipe_in(self):
            self._pipe_uuid = os.urandom(16)
            socket = self.socket.context.socket(zmq.PULL)
            socket.linger = 0
            socket.bind(pipe)
            self._pipe_in = ZMQStream(socket, self.io_loop)
            self._pipe_in.on_recv(self._handle_pipe_msg)

        def _setup_pipe_out(self):
            context = zmq.Context()
            socket = context.socket(zmq.PUSH)
            socket.linger = 3000
            socket.connect(pipe)
            return context, socket

    private = json.loads(connection.read_text(encoding="utf-8"))["transport"] == "ipc"
    kernelapp.IOPubThread = PrivateOutputs if private else Outputs
    app = kernelapp.IPKernelApp.instance()
    app.initialize()
    usual = app.session.pack

    def pack(message: object) -> bytes:
        try:
            return usual(message)
        except UnicodeEncodeError:  # a lone surrogate, for which Jupyter would lose an error
            return json.dumps(message, default=json_default).encode()

    app.session.pack = pack
    app.start()


if __name__ == "__main__":
    main()
