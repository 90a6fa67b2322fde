"""A deployment in a process of its own, so that a test can kill it: prints its summary as JSON."""

import json
import sys
from pathlib import Path

from robo.runtime.deploy import DeployConfig, deploy
from robo.runtime.protocol import Factory
from tasks.registry import load_task

if __name__ == "__main__":
    folder, task_file, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    config = DeployConfig(
        robot="sim://panda?watchdog_s=1",
        task=Factory(call="tasks.registry:load_task", arguments={"name_or_path": task_file}),
        policy=Factory(call="runtime_doubles:wave"),
        seconds=seconds,
    )
    print(json.dumps(deploy(load_task(task_file), config, folder)))
