"""A scheduler and workers on this machine for one sweep, as a program of its own.

The sweep starts it by its path, so that workers, in which Python runs the main program again, never
run the user's script. It prints its address as a line of JSON, and ends when its standard input is
closed: however the sweep ends, the workers end too.
"""

import json
import sys

sys.modules.setdefault("rfc3987_syntax", None)  # in workers too: see cli/app.py

SETTINGS = {
    "distributed.scheduler.allowed-failures": 10**6,  # do_run counts them for each run
    "distributed.deploy.lost-worker-timeout": "1000 days",  # a worker that restarts is not given up
    "distributed.worker.profile.enabled": False,  # which takes a third of an idle worker's time
    "distributed.scheduler.worker-ttl": None,  # a machine that sleeps has silent workers
}


def main(workers: int, dashboard: bool) -> None:
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    dask.config.set(SETTINGS)
    if not dashboard:  # a port stays open, with nothing on it
        dask.config.set({f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")})
    # Only this sweep has the keys: others on this machine reach its ports, but nothing behind them.
    security = Security.temporary()
    with LocalCluster(
        host="127.0.0.1",
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=0,  # a run's memory is its kernel's, not its worker's
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": dashboard},
        security=security,
    ) as cluster:
        where = {
            "address": cluster.scheduler_address,
            "dashboard": cluster.dashboard_link if dashboard else None,
        }
        keys = security.get_tls_config_for_role("client")
        print(json.dumps({**where, "keys": keys}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
