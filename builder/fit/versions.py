"""An engine's versions against a place's, and the place's driver against its CUDA."""

from __future__ import annotations

from collections.abc import Iterator

from builder import versions
from builder.fit.engine import BuiltEngine
from builder.fit.mend import anew, other_versions
from builder.fit.mismatch import Agreement, Found, Mismatch, Unknown
from builder.fit.place import Place
from builder.versions import OLDEST_DRIVERS, numbers

_NAMES = (("TensorRT-LLM", "tensorrt_llm"), ("TensorRT", "tensorrt"), ("CUDA", "cuda"))


def software(built: BuiltEngine, place: Place) -> Iterator[Found]:
    """TensorRT-LLM and TensorRT must be the same, CUDA of the same major version."""
    for what, name in _NAMES:
        ours, theirs = getattr(built, name), getattr(place, name)
        if ours is None:
            yield Unknown(what=what, why="the engine doesn't say what built it")
        elif theirs is None:
            yield Unknown(what=what, why=place.no_versions)
        elif strange := next((each for each in (ours, theirs) if not numbers(each)), None):
            yield Unknown(what=what, why=f"{strange!r} is no version")
        elif _same(name, ours, theirs):
            yield Agreement(what=what, value=theirs)
        else:
            yield Mismatch(
                what=what,
                engine=f"built with {ours}",
                found=theirs,
                do=other_versions(built, place),
                command=anew(built, place),
            )


def _same(name: str, ours: str, theirs: str) -> bool:
    if name == "tensorrt_llm":
        return ours.partition("+")[0] == theirs.partition("+")[0]
    # wheels and containers write more or fewer parts of the same version
    parts = list(zip(numbers(ours), numbers(theirs), strict=False))
    parts = parts[:1] if name == "cuda" else parts
    return bool(parts) and all(a == b for a, b in parts)


def driver(_: BuiltEngine, place: Place) -> Iterator[Found]:
    """Whether the driver is new enough for the place's CUDA."""
    if place.driver is None or place.cuda is None:
        why = place.no_gpus if place.driver is None else place.no_versions
        yield Unknown(what="driver", why=why)
        return
    if not numbers(place.cuda):
        yield Unknown(what="driver", why=f"{place.cuda!r} is no version")
        return
    cuda, made_for = numbers(place.cuda)[0], place.made_for_driver
    oldest = OLDEST_DRIVERS.get(cuda)
    if oldest and numbers(place.driver) < numbers(oldest):
        yield _too_old(place, oldest)
    elif made_for and numbers(place.driver)[:1] < numbers(made_for)[:1]:
        yield Mismatch(
            what="driver",
            engine=f"CUDA {place.cuda} comes with {made_for}",
            found=place.driver,
            do=f"nothing: every CUDA {cuda} runs on it; update it should a kernel fail to load",
            fatal=False,
        )
    else:
        yield Agreement(what="driver", value=place.driver)


def _too_old(place: Place, oldest: str) -> Mismatch:
    # NVIDIA's containers bring a newer user-mode driver, which its data-centre GPUs may use
    rescued = not any("GeForce" in gpu.name for gpu in place.gpus or ())
    do = f"update the driver to {oldest} or newer"
    if older := _image_for(numbers(place.driver or "")):
        do += f", or build and serve in {older}"
    if rescued:
        do += "; a data-centre GPU may run with the container's own compatibility package"
    return Mismatch(
        what="driver",
        engine=f"CUDA {place.cuda} needs {oldest} or newer",
        found=str(place.driver),
        do=do,
        fatal=not rescued,
    )


def _image_for(found: tuple[int, ...]) -> str | None:
    """The newest image whose CUDA a driver runs."""
    for release in versions.RELEASES:
        needs = OLDEST_DRIVERS.get(numbers(release.cuda or "0")[0])
        if needs and numbers(needs) <= found:
            return versions.image(release)
    return None
