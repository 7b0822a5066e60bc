"""``extends``: a service that starts from another one, of this file or of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploykit.spec.merge import clean, merge
from deploykit.spec.mounts import Place
from deploykit.spec.nodes import Map, Node, fail
from deploykit.spec.schema import nearest
from deploykit.spec.units import text_of

Reader = Callable[[Path, Node], Map]


def resolve(document: Map, place: Place, read: Reader, name: str) -> Map:
    """The document with every ``extends`` of its services carried out.

    ``read`` gives another file's document in the one form; ``name`` is this file's own. Raises `SpecError` on a file or
    a service that is not there, and on a circle.
    """
    services = document.items.get("services")
    if not isinstance(services, Map):
        return document
    done = {key: _service(key, services, place, read, (f"{name}#{key}",)) for key in services.items}
    return document.with_items({"services": Map(done, services.at, services.keys, services.tag)})


def _service(key: str, services: Map, place: Place, read: Reader, trail: tuple[str, ...]) -> Node:
    node = services.items[key]
    link = node.get("extends") if isinstance(node, Map) else None
    if not isinstance(node, Map) or not isinstance(link, Map):
        return node
    wanted = text_of(link.items["service"], f"services.{key}.extends.service")
    file_node = link.get("file")
    origin = trail[-1].partition("#")[0]
    if file_node is None:
        others, base_place = services, place
    else:
        path = Path(place.path(text_of(file_node, f"services.{key}.extends.file")))
        found = read(path, file_node).items.get("services")
        others = found if isinstance(found, Map) else Map({}, file_node.at)
        base_place = Place(path.parent, place.environ)
        origin = str(path)
    at = link.items["service"].at
    if wanted not in others.items:
        raise fail(at, f"services.{key} extends '{wanted}', which is not a service{nearest(wanted, others.items)}")
    step = f"{origin}#{wanted}"
    if step in trail:
        circle = " -> ".join(part.rpartition("#")[2] for part in (*trail, step))
        raise fail(at, f"services extend each other in a circle: {circle}")
    base = clean(_service(wanted, others, base_place, read, (*trail, step)))
    own = node.without("extends")
    return merge(base, own) if isinstance(base, Map) else own
