"""The process that executes a notebook: this Python, on private sockets, never left running."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager, suppress

from ..errors import shortened
from ..progress import UNATTENDED
from . import kernel_main

#: The shell script of a guard process. Once the process that started it is gone, for whatever
#: reason, it kills the kernel with all its children, and removes the sockets.
GUARD = 'read -r _; kill -9 "-$1"; rm -rf -- "$2"'
#: How many bytes of its log are read to find the last line.
LOG_TAIL = 10_000
#: The seconds that a kernel has to end by itself when its notebook is interrupted.
GRACE = 2.0


@contextmanager
def kernel_manager(environment: Mapping[str, str]):
    """The class of kernel managers for one run; its kernel has ended when the block is left.

    It starts this Python, since otherwise a user's own kernel named ``python3`` would take
    precedence, and talks to it through sockets in a folder that only this user can read. Where
    there are none (on Windows), it uses TCP, encrypted if possible.

    Args:
        environment: variables for the kernel, besides those of this process.
    """
    import zmq
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from traitlets import default

    folder, kernels, guards = socket_folder(), [], []

    class Kernel(AsyncKernelManager):
        #: How the last kernel ended by itself, in words; empty if it did not.
        ended = ""

        def __init__(self, **options):
            super().__init__(**options)
            kernels.append(self)
            if folder:
                self.transport, self.ip = "ipc", f"{folder}/s"
                self.connection_file = f"{folder}/kernel.json"

        @default("kernel_spec_manager")
        def _only_this_environment(self):
            return KernelSpecManager(kernel_dirs=[])

        @default("transport_encryption")
        def _encrypted_where_others_can_read(self):
            return "auto" if zmq.has("curve") and not folder else "disabled"

        async def _async_interrupt_kernel(self):
            # jupyter_client interrupts before each shutdown, and an idle kernel complains of it.
            if not self.shutting_down:
                await super()._async_interrupt_kernel()

        def format_kernel_cmd(self, extra_arguments=None):
            words = super().format_kernel_cmd(extra_arguments)
            launcher = words.index("ipykernel_launcher")
            return [*words[: launcher - 1], kernel_main.__file__, *words[launcher + 1 :]]

        def client(self, **options):
            client = super().client(**options)
            client.context.setsockopt(zmq.RCVHWM, 0)  # unlimited, or some are lost
            return client

        async def start_kernel(self, **options):
            with suppress(NotImplementedError, RuntimeError):
                asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # Ctrl-C is ours
            # For small networks one thread is as fast as many, and many give other numbers.
            usual = {"OMP_NUM_THREADS": "1"}
            ours = {UNATTENDED: "1", **environment}
            options["env"] = {**usual, **options.get("env", os.environ), **ours}
            # Outputs of cells are caught before they get there, and only repeated.
            options |= {"stdout": subprocess.DEVNULL, "stderr": log}
            await super().start_kernel(**options)
            if guard := start_guard(self.provisioner.pid, folder):
                guards.append(guard)

        async def shutdown_kernel(self, now=False, restart=False):
            if sys.exc_info()[0] is not None:  # a cell was interrupted
                self.shutdown_wait_time = GRACE
                await self._interrupt_cell()
            await super().shutdown_kernel(now, restart)

        async def _interrupt_cell(self):
            """Raise ``KeyboardInterrupt`` in the kernel and give it a moment to answer."""
            listening = asyncio.all_tasks() - {asyncio.current_task()}
            for task in listening:
                task.add_done_callback(lambda task: task.cancelled() or task.exception())
            with suppress(RuntimeError, OSError):
                await self._async_interrupt_kernel()
            if listening:
                await asyncio.wait(
                    listening, timeout=GRACE / 2, return_when=asyncio.FIRST_COMPLETED
                )

        async def cleanup_resources(self, restart=False):
            process = getattr(self.provisioner, "process", None)
            if process and process.poll() is not None:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL))
                Kernel.ended = how_it_ended(process.returncode, log.read())
            await super().cleanup_resources(restart)

    try:
        with tempfile.TemporaryFile() as log:
            yield Kernel
    finally:
        for kernel in kernels:  # those that were interrupted while they started
            process = getattr(kernel.provisioner, "process", None)
            if process and process.poll() is None:
                process.kill()
                process.wait()
        for guard in guards:
            guard.stdin.close()
            guard.wait()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def socket_folder() -> str | None:
    """A new folder for sockets that only this user can read, or None where there can be none."""
    if not hasattr(socket, "AF_UNIX") or os.name != "posix":
        return None
    for parent in (tempfile.gettempdir(), "/tmp"):
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="bmnas-", dir=parent)
            try:
                with socket.socket(socket.AF_UNIX) as tried:  # the path may be too long for one
                    tried.bind(longest := f"{folder}/pipe")
                os.unlink(longest)
                return folder
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
    return None


def start_guard(kernel: int, folder: str | None) -> subprocess.Popen | None:
    """A process that runs :data:`GUARD`: it kills a kernel when its standard input is closed.

    None where there is no shell: there a kernel ends only when it notices that we are gone.
    """
    if os.name != "posix":
        return None
    words = ["/bin/sh", "-c", GUARD, "bmnas-guard", str(kernel), folder or ""]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with suppress(OSError):
        return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True, **quiet)
    return None


def how_it_ended(status: int, log: bytes) -> str:
    """A kernel's exit status in words, such as ``"of SIGSEGV"``, with the last line it logged."""
    if status >= 0:
        last = log.decode(errors="replace").strip().splitlines()[-1:]
        return f"with exit status {status}" + "".join(f" ({shortened(line, 200)})" for line in last)
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"of {name}" + " (is there too little memory?)" * (name == "SIGKILL")
