"""GKE: a JobSet for each run, which restarts by itself and is deleted when the run is over.

What a container's exit code means is said in the manifest: 2 (bad input) ends the run; 75 (saved,
run me again) and a node that is taken away are no failures, the pod is made again; anything else
restarts the JobSet, up to the cap.
"""

import dataclasses
import json
import pathlib
from typing import Any

from scripts.launch.jobs import Job
from scripts.launch.kit import Kit
from scripts.launch.shell import Command, CommandError
from scripts.launch.watch import State

_CONTAINER = "train"
_VOLUME = "shared"
_KEPT_SECONDS = 7 * 24 * 3600  # of a JobSet that is over while no launcher is there to delete it
_SPOT = "cloud.google.com/gke-spot"
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"


@dataclasses.dataclass(frozen=True)
class GKE:
    """The kind of pod.

    Attributes:
      kit: what it starts from.
      image: with Python, the gcloud CLI and, for --source=installed, rkbench.
      accelerator: the node label gke-tpu-accelerator, as tpu-v5-lite-podslice; "" for CPUs.
      topology: the node label gke-tpu-topology, as 2x4.
      chips: TPU chips of one host.
      spot: on nodes that may be taken away at any time.
      attempts: failures after which a run is given up.
      volume: the claim of a volume that is mounted at the kit's `shared` folder; "" for none.
      service_account: of Kubernetes, with access to the bucket; "" for the namespace's default.
      options: further flags of every kubectl, as --context=... or --namespace=...
    """

    kit: Kit
    image: str
    accelerator: str
    topology: str
    chips: int
    spot: bool
    attempts: int
    volume: str = ""
    service_account: str = ""
    options: tuple[str, ...] = ()

    restarts = True  # by itself, whether or not a launcher looks

    @property
    def bucket(self):
        """The kit's."""
        return self.kit.bucket

    @property
    def hosts(self) -> int:
        """Pods of one run, at least 1."""
        return self.kit.hosts or 1

    def files(self, job: Job) -> dict[str, bytes]:
        """The kit."""
        return self.kit.files(job)

    def start(self, job: Job, folder: pathlib.Path) -> list[Command]:
        """Sends the files and creates the JobSet."""
        apply = self._kubectl("apply", "--filename=-")
        text = json.dumps(self.manifest(job), indent=1) + "\n"
        return [*self.kit.send(job, folder), dataclasses.replace(apply, stdin=text)]

    def describe(self, job: Job) -> Command:
        """Prints the kinds of the conditions that hold, a slash, and the Jobs that are ready."""
        conditions = '{.status.conditions[?(@.status=="True")].type}'
        ready = "{.status.replicatedJobsStatus[0].ready}"
        return self._kubectl("get", self._name(job), f"--output=jsonpath={conditions}/{ready}")

    def look(self, job: Job) -> State:
        """The state; CommandError where kubectl cannot say."""
        try:
            conditions, _, ready = self.describe(job).run().partition("/")
        except CommandError as error:
            if "NotFound" in error.output:
                return State.ABSENT
            raise
        if "Completed" in conditions.split():
            return State.DONE
        if "Failed" in conditions.split():
            return State.FAILED
        return State.RUNNING if ready.strip() == "1" else State.WAITING

    def delete(self, job: Job) -> Command:
        """Deletes the JobSet with its pods."""
        return self._kubectl("delete", self._name(job), "--ignore-not-found")

    def manifest(self, job: Job) -> dict[str, Any]:
        """The JobSet."""
        annotations = {"rkbench/run": job.name}
        if self.hosts > 1:  # all on the hosts of one slice
            annotations[_EXCLUSIVE] = "cloud.google.com/gke-nodepool"
        bad_input = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": job.machine(self.bucket.url), "annotations": annotations},
            "spec": {
                "ttlSecondsAfterFinished": _KEPT_SECONDS,
                "failurePolicy": {"maxRestarts": self.attempts - 1, "rules": [bad_input]},
                "replicatedJobs": [
                    {"name": "run", "replicas": 1, "template": {"spec": self._job(job)}}
                ],
            },
        }

    def _job(self, job: Job) -> dict[str, Any]:
        def on_exit(action: str, code: int) -> dict[str, Any]:
            codes = {"containerName": _CONTAINER, "operator": "In", "values": [code]}
            return {"action": action, "onExitCodes": codes}

        taken_away = {"type": "DisruptionTarget", "status": "True"}
        return {
            "parallelism": self.hosts,
            "completions": self.hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [
                    on_exit("FailJob", 2),
                    on_exit("Ignore", 75),
                    {"action": "Ignore", "onPodConditions": [taken_away]},
                ]
            },
            "template": {"spec": self._pod(job)},
        }

    def _pod(self, job: Job) -> dict[str, Any]:
        lines = [
            "set -euo pipefail",
            "mkdir -p /tmp/rkbench && cd /tmp/rkbench",
            self.kit.fetch(job),
            "exec python3 agent.py job.json",
        ]
        container: dict[str, Any] = {
            "name": _CONTAINER,
            "image": self.image,
            "command": ["bash", "-c", "\n".join(lines)],
        }
        nodes = {}
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 120,
            "nodeSelector": nodes,
            "containers": [container],
        }
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        if self.volume:
            claim = {"claimName": self.volume}
            pod["volumes"] = [{"name": _VOLUME, "persistentVolumeClaim": claim}]
            container["volumeMounts"] = [{"name": _VOLUME, "mountPath": self.kit.shared}]
        if self.accelerator:
            container["resources"] = {"limits": {"google.com/tpu": self.chips}}
            nodes["cloud.google.com/gke-tpu-accelerator"] = self.accelerator
            nodes["cloud.google.com/gke-tpu-topology"] = self.topology
        if self.spot:
            nodes[_SPOT] = "true"
            spot = {"key": _SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
            pod["tolerations"] = [spot]
        return pod

    def _name(self, job: Job) -> str:
        return f"jobset/{job.machine(self.bucket.url)}"

    def _kubectl(self, *arguments: str) -> Command:
        return Command(("kubectl", *arguments, *self.options))
