"""The software bill of materials (SBOM) of a lock: CycloneDX 1.5. Pure.

A lock pins packages, and not which of them needs which: all of them are dependencies of the main
component. Source: https://cyclonedx.org/docs/1.5/json/
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from optictl import __version__
from optictl.releases.targets import Pin, entries

_NAMESPACE = uuid.UUID("5c1f7ef0-3f0b-4d0e-9a53-3a0f1f6ad0f5")


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{canonicalize_name(name)}@{version}"


def document(name: str, version: str, lock: str) -> dict[str, Any]:
    """The SBOM of a program that a lock installs. The same input gives the same document.

    Raises:
        ValueError: a line of the lock is not a pinned requirement with hashes.
    """
    root = _purl(name, version)
    others = [
        (pin, marker) for pin, marker in entries(lock) if _purl(pin.name, pin.version) != root
    ]
    main = {"type": "application", "bom-ref": root, "name": name, "version": version, "purl": root}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{root} {__version__} {lock}')}",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "optictl", "version": __version__}]
            },
            "component": main,
        },
        "components": [_component(pin, marker) for pin, marker in others],
        "dependencies": _dependencies(root, [pin for pin, _ in others]),
    }


def _component(pin: Pin, marker: Marker | None) -> dict[str, Any]:
    """A package. Each digest is that of one file that the lock allows."""
    purl = _purl(pin.name, pin.version)
    files = [
        {"type": "distribution", "url": purl, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for digest in sorted(pin.digests)
    ]
    needed = [{"name": "optictl:marker", "value": str(marker)}] if marker is not None else []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        "externalReferences": files,
        **({"properties": needed} if needed else {}),
    }


def _dependencies(root: str, pins: Sequence[Pin]) -> list[dict[str, Any]]:
    references = [_purl(pin.name, pin.version) for pin in pins]
    return [{"ref": root, "dependsOn": references}, *({"ref": ref} for ref in references)]
