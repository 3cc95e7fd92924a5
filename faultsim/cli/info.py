"""`faultsim info`: versions, build, devices."""

from .options import JsonOption


def info(as_json: JsonOption = False) -> None:
    """Show versions, the build of the kernel, and devices."""
    from ..kernel.installation import Installation
    from .tables import print_json

    found = Installation.inspect()
    if as_json:
        print_json(found.as_dict())
    else:
        print(found)
