"""What skaffold reads of our files, strict about names: the part of its schema v4beta13 that we use.

Written from the reference at skaffold.dev/docs/references/yaml: skaffold comes from no package that a test
could use. Whether what is named is there, the tests look; here it is keys and types.
"""

from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

VERSION = "skaffold/v4beta13"


class Part(BaseModel):
    """A mapping with these keys and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SyncRule(Part):
    src: str
    dest: str
    strip: str | None = None


class Sync(Part):
    manual: list[SyncRule]


class Docker(Part):
    dockerfile: str = "Dockerfile"
    target: str | None = None
    build_args: Annotated[dict[str, str], Field(alias="buildArgs")] = {}


class Artifact(Part):
    image: str
    context: str = "."
    docker: Docker
    sync: Sync | None = None
    runtime_type: Annotated[
        Literal["go", "nodejs", "jvm", "python", "netcore"] | None, Field(alias="runtimeType")
    ] = None


class InputDigest(Part):
    pass


class TagPolicy(Part):
    input_digest: Annotated[InputDigest | None, Field(alias="inputDigest")] = None


class LocalBuild(Part):
    push: bool | None = None
    use_buildkit: Annotated[bool | None, Field(alias="useBuildkit")] = None
    concurrency: int = 1


class Build(Part):
    artifacts: list[Artifact]
    tag_policy: Annotated[TagPolicy | None, Field(alias="tagPolicy")] = None
    local: LocalBuild | None = None


class HostHook(Part):
    command: list[str]
    os: list[str] = []
    dir: str | None = None


class Hook(Part):
    host: HostHook


class Hooks(Part):
    before: list[Hook] = []
    after: list[Hook] = []


class HelmRelease(Part):
    name: str
    chart_path: Annotated[str, Field(alias="chartPath")]
    namespace: str
    values_files: Annotated[list[str], Field(alias="valuesFiles")] = []
    set_values: Annotated[dict[str, Any], Field(alias="setValues")] = {}
    set_value_templates: Annotated[dict[str, Any], Field(alias="setValueTemplates")] = {}
    skip_build_dependencies: Annotated[bool, Field(alias="skipBuildDependencies")] = False
    wait: bool = False


class Helm(Part):
    releases: list[HelmRelease]
    hooks: Hooks | None = None


class KubectlFlags(Part):
    apply: list[str] = []


class Kubectl(Part):
    flags: KubectlFlags | None = None


class Deploy(Part):
    status_check_deadline_seconds: Annotated[int | None, Field(alias="statusCheckDeadlineSeconds")] = None
    helm: Helm | None = None
    kubectl: Kubectl | None = None


class Kustomize(Part):
    paths: list[str]


class Manifests(Part):
    kustomize: Kustomize


class PortForward(Part):
    resource_type: Annotated[str, Field(alias="resourceType")]
    resource_name: Annotated[str, Field(alias="resourceName")]
    namespace: str
    port: int
    local_port: Annotated[int, Field(alias="localPort")]


class Variable(Part):
    name: str
    value: str


class VerifyContainer(Part):
    name: str
    image: str
    command: list[str] = []
    args: list[str] = []
    env: list[Variable] = []


class ClusterMode(Part):
    job_manifest_path: Annotated[str, Field(alias="jobManifestPath")]


class ExecutionMode(Part):
    kubernetes_cluster: Annotated[ClusterMode, Field(alias="kubernetesCluster")]


class Verify(Part):
    name: str
    timeout: int
    container: VerifyContainer
    execution_mode: Annotated[ExecutionMode, Field(alias="executionMode")]


class Activation(Part):
    command: str


class Patch(Part):
    op: Literal["add", "remove", "replace"]
    path: str
    value: Any = None


class Profile(Part):
    name: str
    activation: list[Activation] = []
    patches: list[Patch] = []
    verify: list[Verify] = []


class Required(Part):
    path: str


class Metadata(Part):
    name: str


class Config(Part):
    """A file."""

    api_version: Annotated[Literal["skaffold/v4beta13"], Field(alias="apiVersion")]
    kind: Literal["Config"]
    metadata: Metadata
    requires: list[Required] = []
    build: Build | None = None
    manifests: Manifests | None = None
    deploy: Deploy
    port_forward: Annotated[list[PortForward], Field(alias="portForward")] = []
    verify: list[Verify] = []
    profiles: list[Profile] = []


def read(file: Path, profile: str | None = None) -> Config:
    """A file as skaffold takes it, with a profile laid over it."""
    content = yaml.safe_load(file.read_text())
    whole = Config.model_validate(content)
    if profile is None:
        return whole
    (chosen,) = (one for one in whole.profiles if one.name == profile)
    patched = deepcopy(content)
    for patch in chosen.patches:
        _apply(patched, patch)
    if chosen.verify:
        (raw,) = (one for one in content["profiles"] if one["name"] == profile)
        patched["verify"] = raw["verify"]
    return Config.model_validate(patched)


def _apply(content: Any, patch: Patch) -> None:
    """JSON Patch (RFC 6902): all but the last step has to be there, and what is replaced or removed, too."""
    *way, last = patch.path.removeprefix("/").split("/")
    for step in way:
        content = content[int(step)] if isinstance(content, list) else content[step]
    if patch.op != "add":
        assert last in content, patch.path
    if patch.op == "remove":
        del content[last]
    else:
        content[last] = patch.value
