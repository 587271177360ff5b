"""Writes the bill of materials of the image: `make sbom`, in the form of CycloneDX.

The lock says what is in the image, in which version and with which hashes; the installed packages, which are
of the same lock, say their licences and what they need. So it is made without a network, and twice the
same.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILE = ROOT / "sbom.cdx.json"
LOCK = ROOT / "requirements-run.lock"
_ENTRY = re.compile(
    r"^([a-z0-9-]+)==([^ ;]+)(?: ; (.+?))? \\\n((?:    --hash=\S+(?: \\)?\n)+)", flags=re.MULTILINE
)
_LICENCES = LicenseFactory()


def bom() -> Bom:
    """What the image has on Linux, and what needs what."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    root = Component(
        name=project["name"],
        version=project["version"],
        description=project["description"],
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
    )
    components = {component.name: component for component in _locked(LOCK.read_text())}
    made = Bom(components=components.values())
    made.metadata.component = root
    made.register_dependency(root, [components[name] for name in _needed(project["dependencies"])])
    for name, component in components.items():
        needed = set(_needed(distribution(name).requires or []))
        made.register_dependency(component, [components[other] for other in needed if other in components])
    return made


def _locked(lock: str) -> Iterator[Component]:
    for name, version, marker, hashes in _ENTRY.findall(lock):
        if marker and not Marker(marker).evaluate({"sys_platform": "linux", "platform_system": "Linux"}):
            continue
        found = distribution(name)
        if found.version != version:
            raise SystemExit(f"sbom: {name} {found.version} is installed, the lock has {version}: make setup")
        files = [
            HashType(alg=HashAlgorithm.SHA_256, content=digest)
            for digest in re.findall(r"sha256:([0-9a-f]{64})", hashes)
        ]
        purl = PackageURL("pypi", None, name, version)
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={version}",
            purl=purl,
            licenses=[_licence(found)],
            external_references=[
                ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(purl)), hashes=files)
            ],
        )


def _licence(found: Distribution) -> License:
    """What a package declares: an expression, a name, or a classifier, whatever there is."""
    said = found.metadata.get_all("License-Expression") or found.metadata.get_all("License") or []
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in found.metadata.get_all("Classifier") or []
        if "License ::" in text
    ]
    (text, *_) = [line.strip() for line in (*said, *classifiers) if line.strip()] or ["unknown"]
    return _LICENCES.make_from_string(text.splitlines()[0])


def _needed(requirements: list[str]) -> Iterator[str]:
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def text() -> str:
    """The file: the same for the same lock."""
    made = bom()
    made.serial_number = made.metadata.timestamp = None  # type: ignore[assignment]  # no run differs from another
    return str(JsonV1Dot6(made).output_as_string(indent=2)) + "\n"


def main() -> int:
    """Write it."""
    FILE.write_text(text())
    print(f"{FILE.name} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
